#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# For /usr/lib/dracut/modules.d/95platter, with attach-root beside it.
# shellcheck disable=SC2154 # moddir is dracut's

check()
{
	require_binaries qemu-nbd nbd-client || return 1
	return 255 # where it is asked for: dracut --add platter
}

depends()
{
	echo network
}

installkernel()
{
	instmods nbd
}

install()
{
	inst_multiple qemu-nbd nbd-client ip dd sed sleep ln mkdir cat modprobe
	inst_simple "$moddir/attach-root" /lib/platter-attach-root
	inst_hook cmdline 95 "$moddir/parse-platter.sh"
	inst_hook initqueue/online 95 "$moddir/platter-root.sh"
	inst_hook initqueue/settled 95 "$moddir/platter-root.sh"
}
