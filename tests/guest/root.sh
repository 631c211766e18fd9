#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# contrib/boot's hook for initramfs-tools, in an initramfs that Debian's tools make:
# a guest's root is an export, the server is killed under it and comes back, and
# every file is found as it was written.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-nbd nbd-client mkinitramfs depmod modinfo unshare

boot=$here/../../contrib/boot

forget_modules()
{
	rmdir /lib/modules
}

# mkinitramfs looks for modules and a kernel's settings where they are installed, and
# for its own where it is told.
make_initramfs()
{
	local conf=$work/conf

	cp -r /etc/initramfs-tools "$conf"
	cp -r "$boot/initramfs-tools/." "$conf/"
	cp "$boot/attach-root" "$conf/"
	printf '%s\n' MODULES=list BUSYBOX=y COMPRESS=gzip RESUME=none \
		>"$conf/initramfs.conf"
	printf '%s\n' virtio_pci virtio_net nbd >"$conf/modules"
	mkdir "$work/boot"
	echo CONFIG_RD_GZIP=y >"$work/boot/config-$guest_version"
	if [ ! -d /lib/modules ]; then
		mkdir /lib/modules
		at_end forget_modules
	fi
	unshare --mount sh -c "
		set -e
		mount --bind $work/root/lib/modules /lib/modules
		mount --bind $work/boot /boot
		mkinitramfs -d $conf -o $work/initrd.gz $guest_version" \
		2>"$work/mkinitramfs.err" || {
		cat "$work/mkinitramfs.err" >&2
		fail "mkinitramfs failed"
	}
}

[ "$(id -u)" = 0 ] || skip "mounts need root"
guest_modules "$work/root"
make_initramfs
guest_root_boot "$work/initrd.gz" ip=dhcp
