#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Called when an interface is up, and again and again: systemd-networkd tells dracut
# of none. Before there is a route, there is nothing to try.

# shellcheck disable=SC1091
. /lib/platter-attach-root
[ -s /sys/block/nbd0/pid ] ||
	[ -z "$(ip route; ip -6 route show default)" ] || platter_attach
