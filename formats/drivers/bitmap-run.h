/* SPDX-License-Identifier: BSD-3-Clause */
/* Bitmaps of sectors, as VHD's and VHDX's differencing disks have them. */
#ifndef FORMATS_DRIVERS_BITMAP_RUN_H
#define FORMATS_DRIVERS_BITMAP_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layer.h"

enum bit_order { FIRST_BIT_LOWEST, FIRST_BIT_HIGHEST };

/*
 * The run of sectors like @first in the bitmap at @bitmap_off of @src: *ret_bit
 * is what their bit is, *ret_run how many they are, 1 to @max (> 0). What of the
 * bitmap cannot be read ends the run; if that is its beginning, it fails.
 */
int bitmap_run(struct layer *l, struct source *src, enum bit_order order,
	       uint64_t bitmap_off, uint64_t first, uint64_t max, bool *ret_bit,
	       uint64_t *ret_run, struct error *err);

#endif
