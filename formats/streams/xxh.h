/* SPDX-License-Identifier: BSD-3-Clause */
/* XXH32 and XXH64, which LZ4 and zstd frames are checked by: "xxHash fast digest
 * algorithm", 0.1.1. Seeds are 0. */
#ifndef FORMATS_STREAMS_XXH_H
#define FORMATS_STREAMS_XXH_H

#include <stddef.h>
#include <stdint.h>

struct xxh32 {
	uint32_t lanes[4];
	uint64_t bytes;
	uint8_t rest[16];
};

void xxh32_begin(struct xxh32 *x);
void xxh32_add(struct xxh32 *x, const void *data, size_t len);
uint32_t xxh32_end(const struct xxh32 *x);

uint32_t xxh32(const void *data, size_t len);
uint64_t xxh64(const void *data, size_t len);

#endif
