#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The packages as an administrator has them: installed in a Debian with systemd,
# which a guest boots. Each unit is begun, used, killed and stopped in there, with
# all that confines it, and what is purged leaves nothing behind.
# PLATTER_PACKAGES: the folder of the packages.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
[ -n "${PLATTER_PACKAGES-}" ] || skip "PLATTER_PACKAGES names no folder"
need_commands qemu-system-x86_64 mmdebstrap mke2fs /bin/busybox gzip tar

# make_root FOLDER: apt has its lists while the hooks are run.
make_root()
{
	local root=$1 packages=() package release

	for package in "$PLATTER_PACKAGES"/*.deb; do
		[[ $package == *dbgsym* ]] || packages+=("$package")
	done
	release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	cat >"$work/install" <<'END'
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y install --no-install-recommends /packages/*.deb \
	systemd systemd-sysv curl libnbd-bin qemu-utils e2fsprogs
END
	# shellcheck disable=SC2016 # the hooks' shell has it
	mmdebstrap --variant=apt --mode=root --format=tar \
		--customize-hook='mkdir "$1"/packages' \
		--customize-hook="copy-in ${packages[*]} $work/install /packages" \
		--customize-hook='chroot "$1" sh -eu /packages/install' \
		--customize-hook='rm -rf "$1"/packages "$1"/var/cache/apt' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		"$release" "$work/root.tar" >"$work/mmdebstrap.log" 2>&1 || {
		tail -n 20 "$work/mmdebstrap.log" >&2
		fail "no Debian can be made"
	}
	mkdir "$root"
	tar -C "$root" --exclude='./dev/*' -xf "$work/root.tar"
	rm "$work/root.tar"
}

# add_test ROOT: which systemd begins, and with whose end it ends.
add_test()
{
	local units=$1/etc/systemd/system unit

	install -m 755 "$here/in-units" "$1/in-units"
	cp "$here/../../contrib/boot/platter-boot.service" "$units/"
	: >"$1/etc/fstab"
	echo guest >"$1/etc/hostname"
	# Nobody waits for these.
	for unit in systemd-timesyncd.service apt-daily.timer fstrim.timer \
		apt-daily-upgrade.timer e2scrub_all.timer dpkg-db-backup.timer \
		e2scrub_reap.service getty@tty1.service \
		serial-getty@ttyS0.service; do
		ln -sf /dev/null "$units/$unit"
	done
	cat >"$units/in-units.service" <<'END'
[Service]
Type=oneshot
ExecStart=/in-units
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
ExecStopPost=systemctl --no-block poweroff
END
	mkdir -p "$units/multi-user.target.wants"
	ln -s ../in-units.service "$units/multi-user.target.wants/"
}

make_initramfs()
{
	local stage=$work/initramfs

	guest_stage "$stage"
	cat - "$stage/begin" >"$stage/init" <<'END'
#!/bin/sh
END
	cat >>"$stage/init" <<'END'
insmod /modules/nbd.ko
until mount -t ext4 /dev/vda /mnt; do
	usleep 100000
done
umount /proc
mount --move /dev /mnt/dev
exec switch_root /mnt /sbin/init
END
	guest_pack "$stage"
}

make_root "$work/root"
add_test "$work/root"
make_initramfs
truncate -s 1G "$work/disk.raw"
mke2fs -q -t ext4 -d "$work/root" "$work/disk.raw"
rm -rf "$work/root"
guest_run 280 -m 768 -smp 2 -kernel "$guest_folder/vmlinuz" \
	-initrd "$work/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1 systemd.show_status=false" \
	-drive "file=$work/disk.raw,if=virtio,format=raw,cache=unsafe"
! grep -F "units: NOT" "$work/console" || {
	guest_console
	fail "not all is as it should be"
}
guest_said "units: all is well"
