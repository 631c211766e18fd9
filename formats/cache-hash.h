/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef FORMATS_CACHE_HASH_H
#define FORMATS_CACHE_HASH_H

#include <stdint.h>

/* Spreads keys: a multiplication by an odd constant, high bits folded in. */
static inline uint64_t cache_hash(uint64_t owner, uint64_t at)
{
	uint64_t h =
		(owner ^ (at * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL;

	return h ^ h >> 32;
}

#endif
