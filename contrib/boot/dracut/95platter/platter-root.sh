#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Called when an interface is up, perhaps more than once.

# shellcheck disable=SC1091
. /lib/platter-attach-root
[ -s /sys/block/nbd0/pid ] || platter_attach
