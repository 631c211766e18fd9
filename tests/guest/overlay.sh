#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A guest writes its file system, which lies in an overlay over a vmdk image,
# and is killed in the middle, its server with it. The next one finds every file
# that the first had synced; the file system is clean, the image as it was.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img /bin/busybox gzip e2fsck

make_initramfs()
{
	local stage=$work/initramfs

	guest_stage "$stage"
	cat >"$stage/init" <<'END'
#!/bin/sh
. /begin
until [ -b /dev/vda2 ]; do usleep 50000; done
mount -t ext4 /dev/vda2 /mnt || poweroff -f
mkdir -p /mnt/written
if ! grep -q platter.verify /proc/cmdline; then
	n=0
	while :; do
		n=$((n + 1))
		dd if=/dev/urandom of=/mnt/written/$n bs=1k count=$((n * 37 % 300)) \
			2>/dev/null
		sum=$(sha256sum </mnt/written/$n)
		[ $((n % 3)) != 0 ] || rm -f /mnt/written/$((n - 2))
		sync
		echo "wrote $n ${sum%% *}"
	done
fi
for file in /mnt/written/*; do
	sum=$(sha256sum <$file)
	echo "found ${file##*/} ${sum%% *}"
done
cd /mnt
if sha256sum -c etc/platter.sums >/sums 2>&1; then
	echo "the image's files are as they were"
fi
cd /
umount /mnt
poweroff -f
END
	guest_pack "$stage"
}

boot_options=(-kernel "$guest_folder/vmlinuz" -initrd "$work/initrd.gz")

# Until it has synced $1 files; then it is killed.
write_and_die()
{
	local pid

	qemu-system-x86_64 -accel tcg -m 256 -nodefaults -display none \
		-chardev "file,id=con,path=$work/console" -serial chardev:con \
		"${boot_options[@]}" -append "console=ttyS0 quiet panic=-1" \
		-drive "file=$serve_uri,if=virtio,format=raw,discard=unmap" \
		</dev/null 2>"$work/qemu.err" &
	pid=$!
	cleanup_pids+=("$pid")
	wait_for 200 grep -q "wrote $1 " "$work/console" || {
		guest_console
		fail "the guest did not write"
	}
	kill -KILL "$(pgrep -P "$serve_pid" | head -n 1)"
	kill -KILL "$pid" "$serve_pid"
	wait "$pid" "$serve_pid" 2>/dev/null || true
	tr -d '\r' <"$work/console" | sed -n 's/^wrote //p' >"$work/wrote"
	rm -f "$serve_socket"
}

check_found()
{
	local n sum last removed

	last=$(tail -n 1 "$work/wrote" | cut -d ' ' -f 1)
	tr -d '\r' <"$work/console" | sed -n 's/^found //p' >"$work/found"
	while read -r n sum; do
		removed=$(((n + 2) / 3 * 3))
		# What the last step may have removed is anybody's guess.
		if [ $((n % 3)) = 1 ] && [ "$removed" -le $((last + 1)) ]; then
			continue
		fi
		grep -qx "$n $sum" "$work/found" ||
			fail "file $n was synced and is lost or changed"
	done <"$work/wrote"
	echo "$last files were synced"
}

qemu-img convert -f qcow2 -O vmdk "$guest_image" "$work/golden.vmdk"
sum=$(sha256sum <"$work/golden.vmdk")
make_initramfs
serve_start "$work/golden.vmdk" --overlay "$work/vm.qcow2"
write_and_die 25

serve_start "$work/golden.vmdk" --overlay "$work/vm.qcow2"
guest_run 200 "${boot_options[@]}" \
	-append "console=ttyS0 quiet panic=-1 platter.verify" \
	-drive "file=$serve_uri,if=virtio,format=raw,discard=unmap"
check_found
guest_said "the image's files are as they were"
serve_stop

# By readers that are not platter: leaks are all that a crash may leave.
status=0
qemu-img check "$work/vm.qcow2" >"$work/check" 2>&1 || status=$?
[ "$status" = 0 ] || [ "$status" = 3 ] || {
	cat "$work/check"
	fail "qemu-img check: status $status"
}
qemu-img convert -O raw "$work/vm.qcow2" "$work/disk.raw"
dd if="$work/disk.raw" of="$work/root.ext4" bs=1M status=none \
	skip=$((guest_root_offset / 1024 / 1024))
e2fsck -fn "$work/root.ext4"
[ "$sum" = "$(sha256sum <"$work/golden.vmdk")" ] || fail "the image was written"
