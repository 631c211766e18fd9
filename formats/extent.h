/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An extent: a run of guest bytes with one answer to "where are they?".
 */
#ifndef FORMATS_EXTENT_H
#define FORMATS_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/codec/cipher.h"
#include "formats/codec/codec.h"
#include "iouring/source.h"

enum extent_kind {
	EXTENT_HOLE, /* this layer has nothing: ask the next one */
	EXTENT_ZERO, /* reads as zeroes, and hides the next layer */
	EXTENT_DATA, /* at host_off in src */
	EXTENT_COMPRESSED, /* decode comp_bytes at host_off in src */
	EXTENT_DAMAGED, /* the format's tables are wrong here: EIO */
};

/*
 * Sources, ciphers and names are the layer's, which outlives the extent.
 * Fields that the kind does not use are 0.
 */
struct extent {
	uint64_t len; /* guest bytes, > 0 */
	uint64_t host_off; /* DATA, COMPRESSED: bytes from src's start */
	struct source *src; /* DATA, COMPRESSED */
	struct cipher *cipher; /* DATA: how it is encrypted; NULL: it is not */
	uint64_t iv_sector; /* DATA, cipher: the 512-byte sector number of
				  the IV that host_off's sector is under;
				  host_off is 512-aligned where the guest
				  offset is */
	uint32_t comp_bytes; /* COMPRESSED: at most this many input bytes */
	uint32_t unit_bytes; /* COMPRESSED: decoded size of the whole unit */
	uint32_t unit_off; /* COMPRESSED: where the extent begins in it */
	uint8_t kind; /* enum extent_kind */
	uint8_t codec; /* COMPRESSED: enum codec */
	uint16_t depth; /* by chain_map(): which layer answered */
	bool absent; /* by chain_map(): no layer has it; reads as 0 */
};

/* The IV sector of the byte @bytes behind the first of @e, which is DATA. */
static inline uint64_t extent_iv_sector(const struct extent *e, uint64_t bytes)
{
	return e->iv_sector + (e->host_off % CIPHER_SECTOR_BYTES + bytes) /
				      CIPHER_SECTOR_BYTES;
}

#endif
