#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What only some kernels have: the command serves a guest's own loopback of
# AF_VSOCK, and TLS whose records the kernel makes, and libnbd reads it. The guest
# has the modules for both on its disk.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img qemu-nbd nbdcopy nbdinfo openssl \
	/bin/busybox gzip

make_initramfs()
{
	local stage=$work/initramfs library program

	guest_stage "$stage"
	mkdir -p "$stage/tmp"
	cp "$PLATTER" "$stage/bin/platter"
	cp "$(command -v nbdcopy)" "$(command -v nbdinfo)" \
		"$(command -v qemu-nbd)" "$stage/bin/"
	for program in platter nbdcopy nbdinfo qemu-nbd; do
		ldd "$stage/bin/$program" | grep -o '/[^ ]*' |
			while read -r library; do
				install -D "$library" "$stage$library"
			done
	done
	# What the command loads only when it is needed.
	for library in libz.so.1 libzstd.so.1 libssl.so.3 libcrypto.so.3; do
		library=$(find /usr/lib /lib -name "$library" -print -quit)
		[ -z "$library" ] || install -D "$library" "$stage$library"
	done
	openssl rand 8388608 >"$stage/disk.raw"
	echo "alice:$(openssl rand -hex 32)" >"$stage/psk"
	chmod 600 "$stage/psk"
	cat >"$stage/init" <<'END'
#!/bin/sh
. /begin
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mkdir -p /var/lock
ifconfig lo 127.0.0.1 up
said()
{
	echo "sockets: $*"
}
# same NAME URI
same()
{
	rm -f /tmp/out
	nbdcopy "$2" /tmp/out && cmp /disk.raw /tmp/out && said "$1: same bytes"
}
platter serve --listen vsock:10809 /disk.raw 2>&1 | grep -qi vsock &&
	said "no vsock told"
while ! mount -t ext4 -o ro,noload /dev/vda2 /mnt 2>/dev/null; do
	usleep 100000
done
# What modprobe would find.
for name in net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common \
	net/vmw_vsock/vsock_loopback crypto/gf128mul crypto/ghash-generic \
	crypto/ctr crypto/gcm net/tls/tls; do
	insmod /mnt/lib/modules/*/kernel/$name.ko || said "no $name"
done
platter serve --fork --listen vsock:10809 --listen 127.0.0.1:10810 \
	--pid-file /tmp/pid /disk.raw >/tmp/ready
said "$(grep -o 'serving at .*vsock.*' /tmp/ready)"
insmod /modules/nbd.ko
# As it is told, but that the host is this machine itself.
line=$(grep -o 'qemu-nbd -c .*' /tmp/ready | sed 's/cid=2/cid=1/')
$line &
tries=0
while [ "$(cat /sys/block/nbd0/size)" = 0 ] && [ $tries -lt 200 ]; do
	tries=$((tries + 1))
	usleep 100000
done
cmp /disk.raw /dev/nbd0 && said "attached by vsock: same bytes"
qemu-nbd -d /dev/nbd0 >/dev/null
same vsock nbd+vsock://1:10809/
same "TCP beside it" nbd://127.0.0.1:10810/
kill "$(cat /tmp/pid)"
platter serve --fork -p 10811 --tls-psk /psk /disk.raw >/dev/null
records()
{
	awk '$1 == "TlsTxSw" { print $2 }' /proc/net/tls_stat
}
said "TLS by the kernel before: $(records)"
same TLS 'nbds://alice@127.0.0.1:10811/?tls-psk-file=/psk'
said "TLS by the kernel after: $(records)"
nbdinfo nbd://127.0.0.1:10811/ >/dev/null 2>&1 || said "in the clear: refused"
poweroff -f
END
	guest_pack "$stage"
}

make_initramfs
guest_run 200 -m 512 -cpu max -kernel "$guest_folder/vmlinuz" \
	-initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1" \
	-drive "file=$guest_image,if=virtio,format=qcow2,readonly=on"
guest_said "sockets: no vsock told"
guest_said "sockets: serving at nbd+vsock://2:10809"
guest_said "sockets: attached by vsock: same bytes"
guest_said "sockets: vsock: same bytes"
guest_said "sockets: TCP beside it: same bytes"
guest_said "sockets: TLS by the kernel before: 0"
guest_said "sockets: TLS: same bytes"
guest_said "sockets: TLS by the kernel after: 1"
guest_said "sockets: in the clear: refused"
