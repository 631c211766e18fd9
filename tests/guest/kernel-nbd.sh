#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Linux's own NBD client: a guest attaches the export to /dev/nbd0 over its
# network, finds the partitions, reads the first one whole, and mounts the
# second one's file system.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img nbd-client /bin/busybox gzip

# Debian's nbd-client does the handshake and hands the socket to the kernel.
# The order of the modules is that of contrib/guest-image.
make_initramfs()
{
	local stage=$work/initramfs library

	guest_stage "$stage"
	cp "$(command -v nbd-client)" "$stage/bin/nbd-client"
	ldd "$stage/bin/nbd-client" | grep -o '/[^ ]*' | while read -r library; do
		install -D "$library" "$stage$library"
	done
	sed "s/@PORT@/$serve_port/" >"$stage/init" <<'END'
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev \
	virtio_pci failover net_failover virtio_net nbd; do
	[ ! -e /modules/$name.ko ] || insmod /modules/$name.ko
done
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
nbd-client 10.0.2.2 @PORT@ /dev/nbd0 -readonly
tries=0
while [ ! -b /dev/nbd0p2 ] && [ $tries -lt 100 ]; do
	# The kernel looks for partitions when the device is opened.
	dd if=/dev/nbd0 of=/dev/null count=1 2>/dev/null
	tries=$((tries + 1))
	usleep 100000
done
echo "kernel nbd: $(cat /sys/block/nbd0/size) sectors," \
	"read-only $(cat /sys/block/nbd0/ro)"
sum=$(sha256sum </dev/nbd0p1)
echo "kernel nbd: partition 1 ${sum%% *}"
if mount -t ext4 -o ro,noload /dev/nbd0p2 /mnt && cd /mnt; then
	list=$(sha256sum <etc/platter.sums)
	if sha256sum -c etc/platter.sums >/sums 2>&1; then
		echo "kernel nbd: sums OK, list ${list%% *}"
	else
		grep -v ': OK$' /sums | head -n 5
	fi
	cd /
	umount /mnt
fi
nbd-client -d /dev/nbd0
poweroff -f
END
	guest_pack "$stage"
}

guest_raw "$work/disk.raw"
sectors=$(($(stat -c %s "$work/disk.raw") / 512))
boot_sum=$(dd if="$work/disk.raw" bs=1M skip=1 count=40 status=none |
	sha256sum | cut -d ' ' -f 1)

serve_start_tcp "$guest_image"
make_initramfs
guest_run 200 -kernel "$guest_folder/vmlinuz" -initrd "$work/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1" -netdev user,id=net \
	-device virtio-net-pci,netdev=net,romfile=
guest_said "kernel nbd: $sectors sectors, read-only 1"
guest_said "kernel nbd: partition 1 $boot_sum"
guest_said "kernel nbd: sums OK, list $(guest_list_sum)"
serve_stop
