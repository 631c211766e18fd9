#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# contrib/boot's hook for initramfs-tools, in an initramfs that Debian's tools make:
# a guest's root is an export, the server is killed under it and comes back, and
# every file is found as it was written.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-nbd mkinitramfs depmod modinfo unshare

boot=$here/../../contrib/boot
version=$(modinfo -F vermagic "$guest_folder/modules/nbd.ko" | cut -d ' ' -f 1)

# A kernel's folder with the modules that the guest disk's maker has kept.
make_modules()
{
	mkdir -p "$work/modules/$version/kernel"
	cp "$guest_folder"/modules/*.ko "$work/modules/$version/kernel/"
	touch "$work/modules/$version/modules.order" \
		"$work/modules/$version/modules.builtin"
	mkdir -p "$work/root/lib"
	ln -s "$work/modules" "$work/root/lib/modules"
	depmod -b "$work/root" "$version"
}

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
	echo CONFIG_RD_GZIP=y >"$work/boot/config-$version"
	if [ ! -d /lib/modules ]; then
		mkdir /lib/modules
		at_end forget_modules
	fi
	unshare --mount sh -c "
		set -e
		mount --bind $work/modules /lib/modules
		mount --bind $work/boot /boot
		mkinitramfs -d $conf -o $work/initrd.gz $version" \
		2>"$work/mkinitramfs.err" || {
		cat "$work/mkinitramfs.err" >&2
		fail "mkinitramfs failed"
	}
}

# Kills the server when the guest reads its files, and brings it back.
interrupt()
{
	local end=$((SECONDS + 200))

	until grep -q "platter guest: up" "$work/console" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return
		sleep 0.05
	done
	kill -KILL "$serve_child" && echo killed >"$work/interrupted"
}

[ "$(id -u)" = 0 ] || skip "mounts need root"
make_modules
make_initramfs
serve_start_tcp "$guest_image"
serve_child=$(pgrep -P "$serve_pid" | head -n 1)
interrupt &
cleanup_pids+=("$!")
guest_run 200 -kernel "$guest_folder/vmlinuz" -initrd "$work/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1 ip=dhcp root=/dev/nbd0p2 ro \
platter.test=poweroff platter.ro platter.root=nbd://10.0.2.2:$serve_port/" \
	-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=
guest_said "platter: nbd://10.0.2.2:$serve_port/ is /dev/nbd0"
guest_said "platter guest: up, root is /dev/nbd0p2"
guest_said "platter guest: sums OK, $(wc -l <"$guest_folder/guest.sums") files,\
 list $(guest_list_sum)"
[ -s "$work/interrupted" ] || fail "the server was never killed"
serve_stop
