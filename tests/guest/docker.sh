#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A docker image as a guest's disk: umoci makes it, of two layers, skopeo turns it
# into what "docker save" writes, and a kernel mounts it. Each file there is what umoci
# unpacks, and the image's own init runs on an overlay that takes its writes.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 umoci skopeo /bin/busybox gzip

umask 022

# Every kind of entry that a layer may have, and a first process.
make_rootfs()
{
	local root=$1 applet

	mkdir -p "$root"/{bin,sbin,dev,proc,sys,etc,gone/deep,old,var}
	cp /bin/busybox "$root/bin/"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	echo first >"$root/etc/changed"
	echo out >"$root/gone/deep/file"
	echo out >"$root/old/below"
	head -c 3000000 /dev/urandom >"$root/var/data"
	ln "$root/var/data" "$root/var/link"
	truncate -s 300M "$root/var/sparse"
	echo end >>"$root/var/sparse"
	mkfifo -m 600 "$root/var/fifo"
	mknod "$root/dev/null" c 1 3
	install -m 4755 /bin/busybox "$root/bin/su"
	chown 1000:50 "$root/etc/changed"
	cat >"$root/sbin/init" <<'END'
#!/bin/sh
mount -t proc proc /proc
echo "the image's init runs"
echo written >/etc/changed && sync && cat /etc/changed
dd if=/var/data of=/var/copy bs=64k 2>/dev/null && cmp /var/data /var/copy &&
	echo "its disk takes writes"
poweroff -f
END
	chmod 755 "$root/sbin/init"
}

change_rootfs()
{
	local root=$1

	rm -r "$root/gone" "$root/old"
	mkdir "$root/old"
	echo above >"$root/old/above"
	echo second >"$root/etc/changed"
	printf 'x%.0s' {1..5000} >"$root/var/small"
}

make_image()
{
	local layout=$work/oci

	umoci init --layout "$layout"
	umoci new --image "$layout:x"
	umoci unpack --image "$layout:x" "$work/one" >/dev/null 2>&1
	make_rootfs "$work/one/rootfs"
	umoci repack --image "$layout:x" "$work/one" >/dev/null 2>&1
	umoci unpack --image "$layout:x" "$work/two" >/dev/null 2>&1
	change_rootfs "$work/two/rootfs"
	umoci repack --image "$layout:x" "$work/two" >/dev/null 2>&1
	umoci unpack --image "$layout:x" "$work/all" >/dev/null 2>&1
	skopeo copy -q --insecure-policy "oci:$layout:x" \
		"docker-archive:$work/image.tar"
}

# list FOLDER: each entry there, with all that is to be the same in the guest.
# Its own text, so that the guest runs the same.
# shellcheck disable=SC2016 # the guest's shell expands it
list_script='cd "$1" && find . -xdev ! -path ./lost+found | sort | while read -r f; do
	kind="$(stat -c "%F %a %u %g %Y" "$f")"
	case $kind in
	"regular file"* | "regular empty file"*)
		kind="$kind $(stat -c "%h %s" "$f") $(sha256sum <"$f")" ;;
	"symbolic link"*)
		kind="$kind $(readlink "$f")" ;;
	*special*)
		kind="$kind $(stat -c "%t:%T" "$f")" ;;
	esac
	echo "$f $kind"
done'

make_initramfs()
{
	local stage=$work/initramfs

	guest_stage "$stage"
	echo "$list_script" >"$stage/list"
	cp "$work/want" "$stage/want"
	cat >"$stage/init" <<'END'
#!/bin/sh
. /begin
until [ -b /dev/vda ]; do usleep 50000; done
mount -t ext4 /dev/vda /mnt || poweroff -f
sh /list /mnt >/have
if cmp /want /have; then
	echo "all $(wc -l </have) files are the image's"
else
	diff /want /have | head -n 20
fi
umount /proc
exec switch_root /mnt /sbin/init
END
	guest_pack "$stage"
}

make_image
PATH='' /bin/busybox sh -c "$list_script" list "$work/all/rootfs" >"$work/want"
make_initramfs
sum=$(sha256sum <"$work/image.tar")
serve_start --overlay temp "$work/image.tar"
guest_run 200 -kernel "$guest_folder/vmlinuz" -initrd "$work/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1" \
	-drive "file=$serve_uri,if=virtio,format=raw,discard=unmap"
guest_said "all $(wc -l <"$work/want") files are the image's"
guest_said "the image's init runs"
guest_said "its disk takes writes"
serve_stop
[ "$sum" = "$(sha256sum <"$work/image.tar")" ] || fail "the image was written"
