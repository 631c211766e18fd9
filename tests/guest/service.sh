#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A vmdk that is uploaded over HTTP boots a guest from nbd://.../ID+vm1 at once;
# what the guest writes is vm1's alone.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img qemu-io

api=$work/api
nbd=$work/nbd
export PLATTER_URL=unix:$api

service_answers()
{
	"$PLATTER" image list >/dev/null 2>&1 && [ -S "$nbd" ]
}

service_start()
{
	"$PLATTER" serve -U "$nbd" --store "$work/store" --glance "unix:$api" \
		--overlays "$work/vms" >/dev/null 2>"$work/service.err" &
	service_pid=$!
	cleanup_pids+=("$service_pid")
	wait_for 30 service_answers || {
		cat "$work/service.err" >&2
		fail "the image service does not answer"
	}
}

# uri_of EXPORT
uri_of()
{
	echo "nbd+unix:///$1?socket=$nbd"
}

mkdir "$work/vms"
qemu-img convert -f qcow2 -O vmdk "$guest_image" "$work/golden.vmdk"
service_start
id=$("$PLATTER" image create --json "$work/golden.vmdk" |
	sed -n 's/^ *"id": "\(.*\)",\{0,1\}$/\1/p')
[ -n "$id" ] || fail "the upload has no id"

uploaded=$SECONDS
guest_run 200 -smbios type=1,serial=platter.test=poweroff \
	-drive "file=$(uri_of "$id+vm1"),if=virtio,format=raw"
guest_said "platter guest: up, root is /dev/vda2"
guest_said "platter guest: sums OK, $(wc -l <"$guest_folder/guest.sums") files,\
 list $(guest_list_sum)"
echo "booted and checked $((SECONDS - uploaded)) s after the upload"

# What is written is vm1's alone; the image is as it was uploaded.
qemu-io -f raw -c "write -P 0xab 0 1M" -c flush "$(uri_of "$id+vm1")" >/dev/null
qemu-io -f raw -c "read -P 0xab 0 1M" "$(uri_of "$id+vm1")" >"$work/read"
! grep -q "verification failed" "$work/read" || fail "what was written is lost"
"$PLATTER" image save --raw --quiet golden "$work/after.raw"
guest_raw "$work/before.raw"
cmp "$work/before.raw" "$work/after.raw" || fail "the image was written"
kill -TERM "$service_pid"
wait "$service_pid" || fail "the service ended with status $?"
qemu-img check -q "$work/vms/$id+vm1.qcow2" || fail "the overlay is not sound"
