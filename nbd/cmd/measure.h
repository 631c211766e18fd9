/* SPDX-License-Identifier: BSD-3-Clause */
/* How large a qcow2 file of a disk gets at most. */
#ifndef NBD_CMD_MEASURE_H
#define NBD_CMD_MEASURE_H

#include <stdint.h>

#include "formats/image.h"

/*
 * Of a disk of @bytes in clusters of 1 << @cluster_bits: *ret_full: when each of
 * them has data; *ret_data: those of @img that have some, bytes (NULL: none has).
 * Reads tables, not data. Returns 0 or a negative errno.
 */
int measure_qcow2(uint64_t bytes, uint32_t cluster_bits, struct image *img,
		  uint64_t *ret_full, uint64_t *ret_data, struct error *err);

#endif
