#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A machine's firmware boots from the export, through qemu's NBD client; its
# kernel mounts the root file system and finds every file as it was written.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64

# Debian's kernel is what Glance calls an aki.
"$PLATTER" info "$guest_folder/vmlinuz" >"$work/info"
if ! grep -q "content: Linux kernel (bzImage)" "$work/info" ||
	! grep -qE "kernel-version: [0-9]+\.[0-9].*-amd64 " "$work/info"; then
	cat "$work/info" >&2
	fail "the kernel is not known"
fi

serve_start "$guest_image"
guest_run 200 -smbios type=1,serial=platter.test=poweroff \
	-drive "file=$serve_uri,if=virtio,format=raw,snapshot=on"
guest_said "platter guest: up, root is /dev/vda2"
guest_said "platter guest: sums OK, $(wc -l <"$guest_folder/guest.sums") files,\
 list $(guest_list_sum)"
serve_stop
