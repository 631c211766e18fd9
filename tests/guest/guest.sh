# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# The guest disk, for the tests in this folder. Sets guest_folder (see
# contrib/guest-image for what is in it) and guest_image.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/lib/serve.sh
. "$here/../lib/serve.sh"

# PLATTER_GUEST_IMAGE may name a disk that is already there. Its folder must be
# the one that contrib/guest-image made it in.
guest_image=${PLATTER_GUEST_IMAGE-}
if [ -z "$guest_image" ]; then
	guest_image=$("$here/../../contrib/guest-image" 2>"$work/image.err") || {
		cat "$work/image.err" >&2
		skip "the guest disk cannot be made: $(tail -n 1 "$work/image.err")"
	}
fi
guest_folder=$(dirname "$guest_image")

# The file system of partition 2, as contrib/guest-image laid it out.
# shellcheck disable=SC2034 # for the scripts that source this file
guest_root_offset=$((41 * 1024 * 1024))

# guest_raw OUT: the disk's content by another reader than platter.
guest_raw()
{
	qemu-img convert -f qcow2 -O raw "$guest_image" "$1"
}

# guest_list_sum: of the list of checksums that the guest should find.
guest_list_sum()
{
	sha256sum <"$guest_folder/guest.sums" | cut -d ' ' -f 1
}

# guest_stage STAGE: what a test's initramfs begins with: busybox, the modules, in
# /order the order in which they are inserted, and /begin, with which its /init
# begins: it inserts them.
guest_stage()
{
	local stage=$1 applet

	mkdir -p "$stage"/{bin,dev,proc,sys,mnt,modules}
	cp /bin/busybox "$stage/bin/"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$stage/bin/$applet"
	done
	cp "$guest_folder"/modules/*.ko "$stage/modules/"
	sed -n '/^boot_modules=(/,/^)/p' "$here/../../contrib/guest-image" |
		grep -v '[()]' >"$stage/order"
	cat >"$stage/begin" <<'END'
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for name in $(cat /order); do
	[ ! -e /modules/$name.ko ] || insmod /modules/$name.ko
done
END
}

# guest_pack STAGE: with its /init, to $work/initrd.gz.
guest_pack()
{
	chmod 755 "$1/init"
	(cd "$1" && find . | /bin/busybox cpio -o -H newc 2>/dev/null) |
		gzip -1 >"$work/initrd.gz"
}

# guest_run SECONDS QEMU-OPTION...: runs a machine without hardware help until
# it powers itself off; its console goes to $work/console.
guest_run()
{
	local seconds=$1 pid end

	shift
	qemu-system-x86_64 -accel tcg -m 256 -nodefaults -display none \
		-no-reboot -chardev "file,id=con,path=$work/console" \
		-serial chardev:con "$@" </dev/null 2>"$work/qemu.err" &
	pid=$!
	cleanup_pids+=("$pid")
	end=$((SECONDS + seconds))
	while kill -0 "$pid" 2>/dev/null; do
		if [ "$SECONDS" -ge "$end" ]; then
			guest_console
			fail "the guest did not power off in $seconds s"
		fi
		sleep 0.2
	done
	wait "$pid" || {
		cat "$work/qemu.err" >&2
		guest_console
		fail "qemu failed"
	}
}

guest_console()
{
	tail -n 40 "$work/console" | tr -dc '[:print:]\n' >&2
}

# guest_said TEXT
guest_said()
{
	grep -F -- "$1" "$work/console" | tr -d '\r' || {
		guest_console
		fail "the guest did not say \"$1\""
	}
}

# guest_modules ROOT: makes ROOT/lib/modules, a kernel's folder with the modules
# that the guest disk's maker has kept. Sets guest_version, the kernel's.
guest_modules()
{
	local folder

	guest_version=$(modinfo -F vermagic "$guest_folder/modules/nbd.ko" |
		cut -d ' ' -f 1)
	folder=$1/lib/modules/$guest_version
	mkdir -p "$folder/kernel"
	cp "$guest_folder"/modules/*.ko "$folder/kernel/"
	touch "$folder"/modules.{order,builtin,builtin.modinfo}
	depmod -b "$1" "$guest_version"
}

# Kills the server when the guest reads its files, and brings it back.
guest_interrupt()
{
	local end=$((SECONDS + 200))

	until grep -q "platter guest: up" "$work/console" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return
		sleep 0.05
	done
	kill -KILL "$1" && echo killed >"$work/interrupted"
}

# guest_root_serve [OPTION...]: of the guest disk, to a guest whose root is to be an
# export of it; the server will be killed under that.
# shellcheck disable=SC2120
guest_root_serve()
{
	rm -f "$work/console" "$work/interrupted"
	serve_start_tcp "$guest_image" "$@"
	guest_interrupt "$(pgrep -P "$serve_pid" | head -n 1)" &
	cleanup_pids+=("$!")
}

# guest_root_said EXPORT: all that the guest says when all was as it should be.
guest_root_said()
{
	guest_said "platter: nbd://10.0.2.2:$serve_port/$1 is /dev/nbd0"
	guest_said "platter guest: up, root is /dev/nbd0p2"
	guest_said "platter guest: sums OK,\
 $(wc -l <"$guest_folder/guest.sums") files, list $(guest_list_sum)"
	[ -s "$work/interrupted" ] || fail "the server was never killed"
	serve_stop
}

# guest_root_boot INITRD: a guest whose root is an export, by contrib/boot's hook
# in INITRD.
guest_root_boot()
{
	# shellcheck disable=SC2119
	guest_root_serve
	guest_run 200 -m 512 -kernel "$guest_folder/vmlinuz" -initrd "$1" \
		-append "console=ttyS0 quiet panic=-1 ip=dhcp root=/dev/nbd0p2 ro \
platter.test=poweroff platter.ro platter.root=nbd://10.0.2.2:$serve_port/" \
		-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=
	guest_root_said ""
}
