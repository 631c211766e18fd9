/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of packed disks, which docs/packed.md describes: where each block is,
 * and its sum. It is in a skippable frame, which tools that unpack pass by.
 *
 *	pages of 4096 bytes: entries of 24 bytes, zeroes, XXH64 (8)
 *	footer of 128 bytes
 *
 * An entry: offset of the packed block (8), its bytes (4), its kind (4), XXH64 of
 * what it unpacks to (8). All numbers are little endian.
 */
#ifndef FORMATS_STREAMS_PACKED_H
#define FORMATS_STREAMS_PACKED_H

#include <stdint.h>

#include "formats/streams/stream.h"
#include "iouring/error.h"

enum {
	PACKED_OFF_AT = 0,
	PACKED_BYTES_AT = 8,
	PACKED_KIND_AT = 12,
	PACKED_SUM_AT = 16,
	PACKED_ENTRY_BYTES = 24,

	PACKED_PAGE_BYTES = 4096,
	PACKED_PAGE_SUM_AT = 4088,
	PACKED_PAGE_ENTRIES = 170,
};

enum packed_kind {
	PACKED_ZEROES, /* where it is nobody need read */
	PACKED_PACKED,
	PACKED_AS_IT_IS, /* LZ4: it was no smaller */
};

enum {
	FOOTER_MAGIC_AT = 0, /* "PLATTERK" */
	FOOTER_VERSION_AT = 8, /* 1 */
	FOOTER_CODEC_AT = 12, /* enum packed_codec */
	FOOTER_BLOCK_AT = 16, /* bytes of a block, unpacked */
	FOOTER_FLAGS_AT = 20, /* 0 */
	FOOTER_DISK_AT = 24, /* bytes of the disk */
	FOOTER_BLOCKS_AT = 32,
	FOOTER_TABLE_AT = 40, /* offset of the first page */
	FOOTER_DIGEST_AT = 48, /* of the disk */
	FOOTER_DIGEST_BYTES = 32,
	FOOTER_SUM_AT = 120, /* XXH64 of what is before */
	FOOTER_BYTES = 128,
};

#define PACKED_MAGIC	 0x4b52455454414c50ULL /* "PLATTERK" */
#define PACKED_VERSION	 1U
#define PACKED_FRAME	 0x184d2a5dU /* magic of the skippable frame */
#define PACKED_BLOCK_MIN (4U << 10)
#define PACKED_BLOCK_MAX (4U << 20)

enum packed_codec { PACKED_LZ4, PACKED_ZSTD };

/* zstd's seekable format, 0.1.0: a skippable frame at the file's end. */
#define SEEK_FRAME	  0x184d2a5eU
#define SEEK_MAGIC	  0x8f92eab1U
#define SEEK_ENTRY_BYTES  12U /* with a checksum */
#define SEEK_FOOTER_BYTES 9U
#define SEEK_HAS_SUMS	  0x80U
#define SEEK_FRAMES_MAX	  0x8000000U

/*
 * For forms, in look(): is @s packed so, by the same codec? Then it is read by
 * its table from now on. Returns 1, 0 or a negative errno.
 */
int packed_look(struct stream *s, enum packed_codec codec, struct error *err);

/* FOOTER_DIGEST_BYTES of @s, as the table tells them; NULL: it is not packed so. */
const uint8_t *packed_digest(const struct stream *s);

#endif
