#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# contrib/boot's module for dracut, in an initramfs with systemd: a guest's root is
# an export, the server is killed under it and comes back, and every file is found
# as it was written. The network is systemd-networkd's; with PLATTER_FULL, also
# dhclient's, by dracut's own scripts.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-nbd nbd-client dracut depmod modinfo unshare

modules=/usr/lib/dracut/modules.d
boot=$here/../../contrib/boot

# make_initramfs NETWORK: dracut has modules where it is installed, and nowhere else.
make_initramfs()
{
	if ! unshare --mount sh -c "
		set -e
		mount --bind $work/modules.d $modules
		mkdir -p $work/tmp
		dracut --force --no-hostonly --no-hostonly-cmdline --gzip \
			--nofscks --no-early-microcode --nostrip \
			--tmpdir $work/tmp --kver $guest_version \
			--kmoddir $work/root/lib/modules/$guest_version \
			--add 'platter $1' \
			--omit 'nbd crypt dm btrfs ifcfg virtiofs nvdimm resume' \
			--add-drivers 'virtio_pci virtio_net' \
			$work/initrd-$1" >"$work/dracut.err" 2>&1; then
		tail -n 40 "$work/dracut.err" >&2
		fail "dracut failed"
	fi
}

[ "$(id -u)" = 0 ] || skip "mounts need root"
[ -x /lib/systemd/systemd-networkd ] || skip "no systemd-networkd"
[ -d "$modules/40network" ] || skip "no dracut-network on this machine"
guest_modules "$work/root"
cp -r "$modules" "$work/modules.d"
cp -r "$boot/dracut/95platter" "$work/modules.d/"
cp "$boot/attach-root" "$work/modules.d/95platter/"

networks=(systemd-networkd)
[ -z "${PLATTER_FULL-}" ] || networks+=(network-legacy)
for network in "${networks[@]}"; do
	make_initramfs "$network"
	guest_root_boot "$work/initrd-$network"
done
