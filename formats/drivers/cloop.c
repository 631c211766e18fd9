/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cloop, the compressed loop device of live CDs, format 2.0. Big endian.
 *
 *	a shell script of 128 bytes | block size, number of blocks
 *	the blocks' places, one more than there are blocks | zlib streams
 *
 * A block's stream ends where the next one begins; the first begins behind the
 * places, which tells whether there are as many as the header says. The disk is
 * whole blocks.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"

#define CLOOP_MAGIC	 "#!/bin/sh\n#V2.0 Format\n"
#define CLOOP_BLOCK_MAX	 (64U << 20)
#define CLOOP_BLOCKS_MAX (64U << 20)

enum {
	CLOOP_BLOCK_BYTES_AT = 128,
	CLOOP_BLOCKS_AT = 132,
	CLOOP_HEADER_BYTES = 136, /* here the places begin */
};

struct cloop_header {
	uint32_t block_bytes;
	uint32_t blocks;
	uint64_t first_off; /* of the first block's stream */
};

static uint64_t places_end(const struct cloop_header *h)
{
	return CLOOP_HEADER_BYTES + (h->blocks + 1ULL) * 8;
}

static int check_header(const struct cloop_header *h, uint64_t file_bytes,
			struct error *err)
{
	if (!h->block_bytes || h->block_bytes % 512 ||
	    h->block_bytes > CLOOP_BLOCK_MAX)
		return error_set(err, -EBADMSG, CLOOP_BLOCK_BYTES_AT,
				 "block size %" PRIu32
				 " is not a multiple of 512 up to %u",
				 h->block_bytes, CLOOP_BLOCK_MAX);
	if (h->blocks > CLOOP_BLOCKS_MAX)
		return error_set(err, -EFBIG, CLOOP_BLOCKS_AT,
				 "%" PRIu32 " blocks are over the limit of %u",
				 h->blocks, CLOOP_BLOCKS_MAX);
	if (!range_inside(CLOOP_HEADER_BYTES, (h->blocks + 1ULL) * 8,
			  file_bytes))
		return error_set(err, -EBADMSG, CLOOP_BLOCKS_AT,
				 "places of %" PRIu32
				 " blocks end past the file's %" PRIu64
				 " bytes",
				 h->blocks, file_bytes);
	if (h->blocks && h->first_off != places_end(h))
		return error_set(err, -EBADMSG, CLOOP_BLOCKS_AT,
				 "first block is at %" PRIu64
				 ", the places of %" PRIu32
				 " blocks end at %" PRIu64,
				 h->first_off, h->blocks, places_end(h));
	return 0;
}

static int cloop_open(struct layer *l, struct error *err)
{
	struct cloop_header *h = l->state;
	uint8_t buf[CLOOP_HEADER_BYTES + 8];
	struct cursor c = { .buf = buf };
	int r;

	c.len = (size_t)min_u64(sizeof(buf), l->src->bytes);
	r = source_read(l->src, buf, c.len, 0, err);
	if (r < 0)
		return r;
	h->block_bytes = cursor_be32_at(&c, CLOOP_BLOCK_BYTES_AT);
	h->blocks = cursor_be32_at(&c, CLOOP_BLOCKS_AT);
	if (c.short_read)
		return error_set(err, -EBADMSG, c.len,
				 "cloop header is cut off after %zu bytes",
				 c.len);
	h->first_off = cursor_be64_at(&c, CLOOP_HEADER_BYTES);
	r = check_header(h, l->src->bytes, err);
	if (r < 0)
		return r;
	l->bytes = (uint64_t)h->blocks * h->block_bytes;
	if (is_power_of_2(h->block_bytes))
		l->unit_bytes = h->block_bytes;
	return 0;
}

/* Where block @idx's stream is. */
static int find_block(struct layer *l, uint64_t idx, uint64_t *ret_at,
		      uint64_t *ret_end, struct error *err)
{
	const struct cloop_header *h = l->state;
	uint8_t buf[16];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	uint64_t at, end;
	int r;

	r = layer_read_meta(l, l->src, buf, sizeof(buf),
			    CLOOP_HEADER_BYTES + idx * 8, err);
	if (r < 0)
		return r;
	at = cursor_be64_at(&c, 0);
	end = cursor_be64_at(&c, 8);
	/* What does not compress grows, but not to twice its size. */
	if (at < places_end(h) || end <= at || end > l->src->bytes ||
	    end - at > 2ULL * h->block_bytes)
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64 " to %" PRIu64
				 " is not in the file, or too long",
				 at, end);
	*ret_at = at;
	*ret_end = end;
	return 0;
}

static int cloop_map(struct layer *l, uint64_t guest_off, uint64_t len,
		     struct extent *ret, struct error *err)
{
	const struct cloop_header *h = l->state;
	uint64_t in_block = guest_off % h->block_bytes, at, end;
	int r;

	r = find_block(l, guest_off / h->block_bytes, &at, &end, err);
	if (r < 0)
		return r;
	*ret = (struct extent){
		.kind = EXTENT_COMPRESSED,
		.len = min_u64(len, h->block_bytes - in_block),
		.src = l->src,
		.host_off = at,
		.comp_bytes = (uint32_t)(end - at),
		.unit_bytes = h->block_bytes,
		.unit_off = (uint32_t)in_block,
		.codec = CODEC_ZLIB,
	};
	return 0;
}

static void cloop_info(struct layer *l, struct info_sink *s)
{
	const struct cloop_header *h = l->state;

	s->number(s, "block-bytes", h->block_bytes);
	s->number(s, "blocks", h->blocks);
}

static int cloop_check(struct layer *l, struct check_report *r,
		       struct error *err)
{
	const struct cloop_header *h = l->state;
	uint64_t idx, at, end;

	r->total_units = h->blocks;
	for (idx = 0; idx < h->blocks; idx++) {
		struct error found = { 0 };

		if (find_block(l, idx, &at, &end, &found) < 0) {
			report_corrupt(r, "block %" PRIu64 ": %.200s", idx,
				       found.msg);
			continue;
		}
		r->allocated_units++;
		r->compressed_units++;
		r->image_end_off = end;
	}
	return 0;
}

const struct format_ops cloop_format = {
	.name = "cloop",
	.magic = { { 0, sizeof(CLOOP_MAGIC) - 1, CLOOP_MAGIC } },
	.state_bytes = sizeof(struct cloop_header),
	.open = cloop_open,
	.map = cloop_map,
	.info = cloop_info,
	.check = cloop_check,
};
