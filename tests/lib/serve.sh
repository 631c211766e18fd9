# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# For tests written in bash: a work folder, servers in it, and their end.
# Sourced, with "set -euo pipefail" in force. Everything that is started is
# stopped by its pid when the script ends, however it ends.
#
# Environment: PLATTER names the command under test, PLATTER_VIA its front end.

: "${PLATTER:?the path of the platter command}"
# Debian puts losetup and nbd-client where a plain user's PATH may not look.
PATH=$PATH:/usr/sbin:/sbin

work=$(mktemp -d "${TMPDIR:-/tmp}/platter-test.XXXXXX")
cleanup_pids=()
cleanup_functions=()

# at_end FUNCTION: called when the script ends, last given first. It may have
# been called before.
at_end()
{
	cleanup_functions=("$1" "${cleanup_functions[@]}")
}

cleanup()
{
	local status=$? item

	trap - EXIT
	set +e
	for item in "${cleanup_functions[@]}"; do
		"$item" 2>/dev/null
	done
	for item in "${cleanup_pids[@]}"; do
		kill "$item" 2>/dev/null
	done
	for item in "${cleanup_pids[@]}"; do
		wait "$item" 2>/dev/null
	done
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

fail()
{
	echo "FAIL: $*" >&2
	exit 1
}

# skip REASON: the test cannot be run here.
skip()
{
	echo "SKIP: $*"
	exit 77
}

need_commands()
{
	local name

	for name in "$@"; do
		command -v "$name" >/dev/null || skip "no $name on this machine"
	done
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for()
{
	local end=$((SECONDS + $1))

	shift
	while ! "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

serve_answers()
{
	grep -q "^.*nbd[+:]" "$work/serve.out" ||
		! kill -0 "$serve_pid" 2>/dev/null
}

serve_launch()
{
	: >"$work/serve.out"
	"$PLATTER" serve ${PLATTER_VIA:+--via "$PLATTER_VIA"} "$@" >"$work/serve.out" 2>"$work/serve.err" &
	serve_pid=$!
	cleanup_pids+=("$serve_pid")
	wait_for 60 serve_answers || fail "platter serve: no URI in 60 s"
	kill -0 "$serve_pid" 2>/dev/null
}

# serve_start IMAGE [OPTION...]: on a Unix socket. Sets serve_pid,
# serve_socket and serve_uri, and returns when the server has said that it is
# ready.
serve_start()
{
	serve_socket=$work/serve.sock
	serve_uri="nbd+unix:///?socket=$serve_socket"
	serve_launch -U "$serve_socket" "$@" || {
		cat "$work/serve.err" >&2
		fail "platter serve ended before it was ready"
	}
}

# serve_start_tcp IMAGE [OPTION...]: on a free port of the loopback
# interface. Sets serve_pid, serve_port and serve_uri.
# shellcheck disable=SC2034 # for the scripts that source this file
serve_start_tcp()
{
	local tries

	for tries in 1 2 3 4 5; do
		serve_port=$((20000 + RANDOM % 12000))
		serve_uri="nbd://127.0.0.1:$serve_port"
		! serve_launch -i 127.0.0.1 -p "$serve_port" "$@" || return 0
		echo "try $tries: port $serve_port: $(cat "$work/serve.err")" >&2
	done
	fail "platter serve does not listen"
}

# Ends the server as a user does, and notices when it does not end cleanly.
serve_stop()
{
	local status=0

	kill -TERM "$serve_pid"
	wait "$serve_pid" || status=$?
	[ "$status" -eq 0 ] || {
		cat "$work/serve.err" >&2
		fail "platter serve ended with status $status after SIGTERM"
	}
}
