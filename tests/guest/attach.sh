#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# platter attach in a guest: an image becomes a block device with its partition,
# which is mounted and written. The server is killed under it and brought back,
# nothing is lost, and detach leaves nothing behind.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img qemu-nbd mke2fs sfdisk \
	/bin/busybox gzip openssl python3

# A disk of 32 MiB whose partition, from 1 MiB on, has an ext4 file system.
make_disk()
{
	truncate -s 31M "$work/part"
	mke2fs -q -t ext4 "$work/part"
	truncate -s 1M "$work/disk.raw"
	cat "$work/part" >>"$work/disk.raw"
	echo "start=2048, type=83" | sfdisk -q "$work/disk.raw" >/dev/null
	qemu-img convert -O qcow2 "$work/disk.raw" "$1"
}

# A server's and a client's, signed by one authority, for the guest's clock.
make_keys()
{
	python3 - "$here/../lib" "$work/ca" "$1" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
from authority import Authority
ca = Authority(sys.argv[2])
ca.sign("server", "/CN=localhost", sys.argv[3], "serverAuth")
ca.sign("client", "/CN=guest", sys.argv[3], "clientAuth")
END
}

make_initramfs()
{
	local stage=$work/initramfs library applet program

	mkdir -p "$stage"/{bin,dev,proc,run,sys,tmp,mnt,modules,var/lock}
	cp /bin/busybox "$stage/bin/"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$stage/bin/$applet"
	done
	cp "$guest_folder"/modules/*.ko "$stage/modules/"
	cp "$PLATTER" "$stage/bin/platter"
	cp "$(command -v qemu-nbd)" "$stage/bin/qemu-nbd"
	for program in platter qemu-nbd; do
		ldd "$stage/bin/$program" | grep -o '/[^ ]*' |
			while read -r library; do
				install -D "$library" "$stage$library"
			done
	done
	# What the command loads only when it is needed.
	for library in libnbd.so.0 libz.so.1 libzstd.so.1 \
		libssl.so.3 libcrypto.so.3; do
		library=$(find /usr/lib /lib -name "$library" -print -quit)
		[ -z "$library" ] || install -D "$library" "$stage$library"
	done
	make_disk "$stage/disk.qcow2"
	make_keys "$stage/keys"
	cat >"$stage/init" <<'END'
#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
ifconfig lo 127.0.0.1 up
said()
{
	echo "attach: $*"
}
platter attach /disk.qcow2 2>&1 | grep -q 'modprobe nbd' && said "no module told"
insmod /modules/nbd.ko
device=$(platter attach --overlay /tmp/over.qcow2 /disk.qcow2)
said "device $device, $(cat /sys/block/nbd0/size) sectors"
platter attach /disk.qcow2 /dev/nbd0 2>&1 | grep -q 'in use' && said "taken told"
for i in 1 2 3 4; do platter attach --read-only /disk.qcow2 >>/tmp/many & done
wait
said "at once $(sort /tmp/many | uniq | wc -l)"
for device in $(cat /tmp/many); do platter detach $device; done
mount -t ext4 /dev/nbd0p1 /mnt && said "file system mounted"
dd if=/dev/urandom of=/mnt/before bs=64k count=64 2>/dev/null
sync
sum=$(cat /mnt/before | sha256sum)
server=$(cat /run/platter-attach/nbd0.pid)
child=
for stat in /proc/[0-9]*/stat; do
	read -r pid name state parent rest <$stat
	[ "$parent" = "$server" ] && child=$pid
done
[ -n "$child" ] && kill -9 "$child" && said "killed"
dd if=/dev/urandom of=/mnt/after bs=64k count=64 2>/dev/null && sync &&
	said "written with the server gone"
after=$(cat /mnt/after | sha256sum)
platter detach /dev/nbd0 2>&1 | grep -q 'in use: mounted' && said "mounted told"
umount /mnt
platter detach /dev/nbd0 && said "detached"
[ ! -e /sys/block/nbd0/pid ] && [ ! -e /run/platter-attach/nbd0.sock ] &&
	! kill -0 "$server" 2>/dev/null && said "nothing left"
device=$(platter attach --overlay /tmp/over.qcow2 --read-only /disk.qcow2 /dev/nbd3)
said "again $device, read-only $(cat /sys/block/nbd3/ro)"
mount -t ext4 -o ro,noload /dev/nbd3p1 /mnt
[ "$(cat /mnt/before | sha256sum)" = "$sum" ] &&
	[ "$(cat /mnt/after | sha256sum)" = "$after" ] && said "all is there"
umount /mnt
platter detach /dev/nbd3
platter serve --fork -U '/tmp/a,b' --export 'x y=/disk.qcow2' >/dev/null
device=$(platter attach --read-only 'nbd+unix:///x%20y?socket=/tmp/a%2Cb')
mount -t ext4 -o ro,noload /dev/nbd0p1 /mnt && said "by URI $device"
umount /mnt
platter detach /dev/nbd0 && said "URI detached"
platter serve --fork -U /tmp/tls --tls require --tls-certificates /keys \
	--tls-verify-peer /disk.qcow2 >/dev/null
platter attach 'nbds+unix:///?socket=/tmp/tls' 2>&1 |
	grep -q 'QEMU needs keys' && said "no keys told"
device=$(platter attach --read-only --tls-certificates /keys 'nbds+unix:///?socket=/tmp/tls')
mount -t ext4 -o ro,noload ${device}p1 /mnt && said "by TLS $device"
umount /mnt
platter detach $device && said "TLS detached"
poweroff -f
END
	guest_pack "$stage"
}

make_initramfs
guest_run 250 -m 512 -kernel "$guest_folder/vmlinuz" \
	-initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1"
guest_said "attach: no module told"
guest_said "attach: device /dev/nbd0, 65536 sectors"
guest_said "attach: taken told"
guest_said "attach: at once 4"
guest_said "attach: file system mounted"
guest_said "attach: killed"
guest_said "attach: written with the server gone"
guest_said "attach: mounted told"
guest_said "attach: detached"
guest_said "attach: nothing left"
guest_said "attach: again /dev/nbd3, read-only 1"
guest_said "attach: all is there"
guest_said "attach: by URI /dev/nbd0"
guest_said "attach: URI detached"
guest_said "attach: no keys told"
guest_said "attach: by TLS /dev/nbd0"
guest_said "attach: TLS detached"
