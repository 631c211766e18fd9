#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# qemu-nbd opens the export as its image and serves it again; what a client
# copies from that is the disk.
set -euo pipefail
# shellcheck source=tests/guest/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
need_commands qemu-nbd qemu-img nbdcopy cmp

serve_start "$guest_image"
qemu-nbd -r -t -e 4 -f raw -k "$work/again.sock" "$serve_uri" &
cleanup_pids+=("$!")
wait_for 20 test -S "$work/again.sock" || fail "qemu-nbd does not listen"
guest_raw "$work/expected.raw"
nbdcopy "nbd+unix:///?socket=$work/again.sock" "$work/copy.raw"
cmp "$work/expected.raw" "$work/copy.raw"
echo "equal: $(stat -c %s "$work/copy.raw") bytes through qemu-nbd"
serve_stop
