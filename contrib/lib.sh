# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What contrib/serve, contrib/test and contrib/guest-image share: getting
# Debian packages that are missing, and building quietly. Sourced, with
# "set -euo pipefail" in force.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Debian puts mke2fs, sfdisk and losetup where a plain user's PATH may not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# shellcheck disable=SC2034 # for the scripts that source this file
build_packages=(
	gcc libc6-dev meson ninja-build pkg-config perl
	nbdkit nbdkit-plugin-dev
	liburing-dev libssl-dev libgcrypt20-dev libdeflate-dev zlib1g-dev libzstd-dev
	libbz2-dev liblzma-dev liblz4-dev
	libjansson-dev libxml2-dev libnbd-dev libext2fs-dev
	libsqlite3-dev libmicrohttpd-dev libcurl4-openssl-dev
)
# Optional, and not there for every architecture.
case $(dpkg --print-architecture 2>/dev/null) in
amd64) build_packages+=(libisal-dev) ;;
esac

# shellcheck disable=SC2034
image_packages=(
	qemu-utils e2fsprogs fdisk syslinux syslinux-common mtools
	busybox-static gzip xz-utils util-linux
)

say()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die()
{
	say "$@"
	exit 1
}

# quietly COMMAND...: its output is shown only when it fails.
quietly()
{
	local log status=0

	log=$(mktemp)
	"$@" </dev/null >"$log" 2>&1 || status=$?
	if [ "$status" -ne 0 ]; then
		cat "$log" >&2
	fi
	rm -f "$log"
	return "$status"
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "must be root, or have sudo, to run: $*"
	fi
}

apt_run()
{
	as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y \
		-o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 \
		"$@" </dev/null
}

package_present()
{
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = \
		installed ]
}

# need_packages WHY PACKAGE...: installs those that are missing. Asks neither
# apt nor the network when nothing is.
need_packages()
{
	local why=$1 package log
	local -a missing=()

	shift
	if ! command -v dpkg-query >/dev/null; then
		say "not a Debian system: these are needed $why: $*"
		return 0
	fi
	for package in "$@"; do
		package_present "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	say "installing ${missing[*]} $why"
	# The package lists may be absent or older than the archive: the first
	# failure is answered by fetching them, and is shown only if that
	# does not help.
	log=$(mktemp)
	if apt_run install --no-install-recommends "${missing[@]}" \
		>"$log" 2>&1 ||
	   { apt_run update >>"$log" 2>&1 || sleep 5
	     apt_run install --no-install-recommends "${missing[@]}" \
		>>"$log" 2>&1; }; then
		rm -f "$log"
		return 0
	fi
	cat "$log" >&2
	rm -f "$log"
	die "cannot install ${missing[*]}"
}

# build_configure FOLDER MESON-OPTION...: sets the folder up, or gives an
# existing one these options and looks for libraries anew.
build_configure()
{
	local folder=$1

	shift
	if [ -e "$folder/build.ninja" ]; then
		quietly meson setup --reconfigure "$@" "$folder" "$root"
	else
		quietly meson setup "$@" "$folder" "$root"
	fi
}
