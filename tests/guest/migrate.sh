#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A guest's disk moves, and the guest with it, while the guest writes to it and
# checks what it wrote: migrate.py. $1: verified-writes, which the guest runs.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-system-x86_64 qemu-img /bin/busybox gzip python3 stdbuf

stage=$work/initramfs
guest_stage "$stage"
cp "$1" "$stage/bin/verified-writes"
cat >"$stage/init" <<'END'
#!/bin/sh
. /begin
until [ -b /dev/vda ]; do usleep 50000; done
for word in $(cat /proc/cmdline); do
	case $word in
	blocks=*) verified-writes /dev/vda ${word#blocks=} ;;
	esac
done
poweroff -f
END
guest_pack "$stage"
TMPDIR=$work python3 "$here/migrate.py" "$guest_folder/vmlinuz" \
	"$work/initrd.gz"
