#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC2154 # hookdir is dracut's
# With platter.root= the network is needed, and waited for.

if getarg platter.root= >/dev/null; then
	# shellcheck disable=SC2034 # dracut's
	rootok=1
	echo '[ -b /dev/nbd0 ] && [ -s /sys/block/nbd0/pid ]' \
		>"$hookdir/initqueue/finished/platter.sh"
	[ -n "$(getarg ip=)" ] || echo ip=dhcp >/etc/cmdline.d/95-platter.conf
	echo rd.neednet=1 >>/etc/cmdline.d/95-platter.conf
fi
