#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# contrib/boot's hook for initramfs-tools, in an initramfs that Debian's tools make:
# a guest's root is an export, the server is killed under it and comes back, and
# every file is found as it was written. The guest has no disk: its firmware, iPXE,
# is told by DHCP of contrib/boot's script and gets all else by HTTP; its root is an
# overlay called as its MAC address is. With PLATTER_FULL, also by qemu's -kernel.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-nbd nbd-client mkinitramfs depmod modinfo unshare \
	python3

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

http_answers()
{
	http_port=$(sed -n 's/^Serving HTTP on .* port \([0-9]*\) .*/\1/p' \
		"$work/http.out")
	[ -n "$http_port" ]
}

# The three lines of the script are changed as it says, and the guest's console and
# task are added.
ipxe_boot()
{
	local mac=52:54:00:ab:cd:ef

	mkdir "$work/http" "$work/overlays"
	cp "$guest_folder/vmlinuz" "$work/http/"
	cp "$work/initrd.gz" "$work/http/initrd.img"
	python3 -u -m http.server --bind 127.0.0.1 --directory "$work/http" 0 \
		>"$work/http.out" 2>"$work/http.err" &
	cleanup_pids+=("$!")
	wait_for 60 http_answers || fail "the web server does not listen"
	guest_root_serve --overlays "$work/overlays"
	sed -e "s|http://10.0.0.1/|http://10.0.2.2:$http_port/|" \
		-e "s|10.0.0.1:10809|10.0.2.2:$serve_port|" \
		-e '/^kernel/s/$/ console=ttyS0 quiet panic=-1 platter.test=poweroff/' \
		-e "s|/boot\$||" "$boot/boot.ipxe" >"$work/http/boot.ipxe"
	guest_run 200 -m 512 -boot n -device "virtio-net-pci,netdev=net,mac=$mac" \
		-netdev "user,id=net,bootfile=http://10.0.2.2:$http_port/boot.ipxe"
	guest_root_said "+${mac//:/-}"
}

[ "$(id -u)" = 0 ] || skip "mounts need root"
[ -e /usr/lib/ipxe/qemu/efi-virtio.rom ] || skip "no ipxe-qemu on this machine"
guest_modules "$work/root"
make_initramfs
ipxe_boot
[ -z "${PLATTER_FULL-}" ] || guest_root_boot "$work/initrd.gz"
