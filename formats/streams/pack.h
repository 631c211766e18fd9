/* SPDX-License-Identifier: BSD-3-Clause */
/* A copy's sink that packs a disk, with a table (packed.h, docs/packed.md). */
#ifndef FORMATS_STREAMS_PACK_H
#define FORMATS_STREAMS_PACK_H

#include <stdint.h>

#include "formats/copy.h"
#include "formats/streams/packed.h"

struct pack;

/*
 * Packs a disk of @bytes > 0 into @dst, which is empty and the caller's, in
 * blocks of @block_bytes, a power of two from PACKED_BLOCK_MIN to
 * COPY_CHUNK_BYTES. @level: 0: the codec's default. @folder: where a file
 * without a name may be meanwhile.
 */
int pack_new(struct source *dst, uint64_t bytes, enum packed_codec codec,
	     int level, uint32_t block_bytes, const char *folder,
	     struct pack **ret, struct error *err);
void pack_free(struct pack *p); /* NULL is fine */
struct copy_sink *pack_sink(struct pack *p);

/* When all is copied: writes what is behind it. *ret: the disk's digest. */
int pack_finish(struct pack *p, uint8_t ret[FOOTER_DIGEST_BYTES],
		struct error *err);

/* 0: the codec has no levels here. */
int pack_level_max(enum packed_codec codec);

#endif
