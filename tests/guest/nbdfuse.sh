#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Without a guest: nbdfuse makes the export a file, a loop device makes its
# second partition a device, and this machine's kernel mounts the file system.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands nbdfuse fusermount3 losetup mount
[ "$(id -u)" -eq 0 ] || skip "only root may mount"
[ -c /dev/fuse ] || skip "no /dev/fuse"
losetup -f >/dev/null 2>&1 || skip "no free loop device"

fuse_unmount()
{
	fusermount3 -u "$work/fuse"
}

loop_detach()
{
	losetup -d "$loop"
}

disk_unmount()
{
	umount "$work/mnt"
}

serve_start "$guest_image"
mkdir "$work/fuse" "$work/mnt"
nbdfuse -r "$work/fuse/disk.raw" "$serve_uri" 2>"$work/nbdfuse.err" &
nbdfuse_pid=$!
at_end fuse_unmount
if ! wait_for 20 test -f "$work/fuse/disk.raw"; then
	cat "$work/nbdfuse.err" >&2
	# Containers that show /dev/fuse and forbid its use say so.
	! grep -q 'not permitted' "$work/nbdfuse.err" ||
		skip "FUSE mounts are not permitted here"
	fail "nbdfuse does not mount"
fi

loop=$(losetup -r -f --show -o "$guest_root_offset" "$work/fuse/disk.raw")
at_end loop_detach
mount -t ext4 -o ro,noload "$loop" "$work/mnt"
at_end disk_unmount

cmp "$guest_folder/guest.sums" "$work/mnt/etc/platter.sums"
(cd "$work/mnt" && sha256sum --quiet -c etc/platter.sums)
echo "$(wc -l <"$guest_folder/guest.sums") files have the right sums"

disk_unmount
loop_detach
fuse_unmount
wait "$nbdfuse_pid" || fail "nbdfuse failed"
serve_stop
