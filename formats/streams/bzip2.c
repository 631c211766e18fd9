/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bzip2. Streams one after the other, each of blocks that begin at any bit:
 *
 *	"BZh" | level '1' to '9' | blocks: 31 41 59 26 53 59, CRC (4), data |
 *	17 72 45 38 50 90 | combined CRC (4) | up to a whole byte
 *
 * Decoding can begin where a block does. A block is found by the 48 bits with
 * which the next one begins; data that have them by chance are decoded with what
 * follows. A block is handed to libbz2 as a stream of its own, whose combined CRC
 * is the block's. Offsets of checkpoints are in bits. No block tells its size
 * unpacked, so all is decoded once.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/codec/codec-scratch.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

#define BLOCK_MAGIC 0x314159265359ULL
#define END_MAGIC   0x177245385090ULL
#define MAGIC_BITS  48U
#define MAGIC_MASK  ((1ULL << MAGIC_BITS) - 1)
#define CRC_BITS    32U
#define HEADER	    4U /* bytes */
#define END_BYTES   11U /* of what ends a stream, from any bit on */

/* Of 900,000 symbols, each of at most 20 bits, with their tables. */
#define BLOCK_MAX (2500U << 10)

/* A decoder's own, and what is read and handed to it. */
#define DECODER_BYTES ((4U << 20) + 3 * BLOCK_MAX)

#define STATE_BLOCK 1U /* of checkpoints: a block begins, else a stream */

struct bzip2 {
	bz_stream z;
	struct codec_scratch scratch;
	bool active; /* z is unpacking a block */
	bool in_stream;
	unsigned int bit; /* of the byte at d->in */
	uint32_t crc; /* combined, of the stream's blocks so far */
	bool summed; /* from the stream's beginning on */
	uint8_t *block; /* BLOCK_MAX and more */
};

static bool probe(const uint8_t *head, size_t bytes)
{
	return bytes >= 14 && !memcmp(head, "BZh", 3) && head[3] >= '1' &&
	       head[3] <= '9' &&
	       (!memcmp(head + 4, "\x31\x41\x59\x26\x53\x59", 6) ||
		!memcmp(head + 4, "\x17\x72\x45\x38\x50\x90", 6));
}

static int need(struct error *err)
{
	return codec_lib_load(LIB_BZIP2)
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "libbz2 is needed to read this, and not "
				   "installed");
}

static int look(struct stream *s, struct error *err)
{
	s->decoder_bytes = DECODER_BYTES;
	return stream_check_memory(s, DECODER_BYTES, "a bzip2 stream", err);
}

static void *take_memory(void *scratch, int items, int bytes)
{
	return scratch_alloc(scratch, (size_t)items, (size_t)bytes);
}

static void give_memory(void *scratch, void *p)
{
	scratch_free(scratch, p);
}

/* ---- bits ---- */

/* @n <= 48 bits from @at on, the first bit the highest. */
static uint64_t get_bits(const uint8_t *p, uint64_t at, unsigned int n)
{
	uint64_t v = 0;
	unsigned int i;

	for (i = 0; i < n; i++, at++)
		v = v << 1 | (p[at / 8] >> (7 - at % 8) & 1);
	return v;
}

static void put_bits(uint8_t *p, uint64_t at, uint64_t v, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++, at++) {
		uint8_t bit = (uint8_t)(1U << (7 - at % 8));

		p[at / 8] = (uint8_t)(v >> (n - 1 - i) & 1 ? p[at / 8] | bit
							   : p[at / 8] & ~bit);
	}
}

/* @n bits of @from at bit @shift < 8, to whole bytes; the last byte's rest may be
 * anything. */
static void copy_bits(uint8_t *to, const uint8_t *from, unsigned int shift,
		      uint64_t n)
{
	uint64_t i, bytes = (n + 7) / 8;

	if (!shift) {
		memcpy(to, from, (size_t)bytes);
		return;
	}
	for (i = 0; i < bytes; i++)
		to[i] = (uint8_t)(from[i] << shift |
				  from[i + 1] >> (8 - shift));
}

/* The first of the two magics that begins at bit @from or behind; UINT64_MAX:
 * there is none in the @bytes. */
static uint64_t find_magic(const uint8_t *p, size_t bytes, uint64_t from)
{
	uint64_t v = 0, word;
	size_t i = (size_t)(from / 8), first = i + MAGIC_BITS / 8 - 1;
	unsigned int s;

	for (; i < bytes; i++) {
		v = v << 8 | p[i];
		if (i < first)
			continue;
		for (s = 8; s--;) {
			word = v >> s & MAGIC_MASK;
			if ((word == BLOCK_MAGIC || word == END_MAGIC) &&
			    8 * (i + 1) - s >= from + MAGIC_BITS)
				return 8 * (i + 1) - s - MAGIC_BITS;
		}
	}
	return UINT64_MAX;
}

/* ---- blocks ---- */

/* Where the block at d->in ends, in bits from there; from bit @from on. */
static int find_end(struct decoder *d, uint64_t from, uint64_t *ret,
		    struct error *err)
{
	size_t want = STREAM_IN_BYTES, have;
	int r;

	for (;;) {
		r = stream_in_need(&d->in, want, err);
		if (r < 0)
			return r;
		have = min_size(stream_in_have(&d->in), BLOCK_MAX);
		*ret = find_magic(stream_in_at(&d->in), have, from);
		if (*ret != UINT64_MAX)
			return 0;
		if (have == BLOCK_MAX || have < want)
			return decoder_damaged(
				d, "a block has no end, or it ends early", err);
		from = max_u64(from, 8 * (uint64_t)have - 2 * MAGIC_BITS);
		want = min_size(2 * want, BLOCK_MAX);
	}
}

/* The block in @end bits at d->in as a stream of its own. Returns its bytes. */
static unsigned int wrap(struct bzip2 *b, const uint8_t *p, uint64_t end)
{
	uint64_t bits = end - b->bit, at = 8 * HEADER + bits;
	uint64_t crc = get_bits(p, b->bit + MAGIC_BITS, CRC_BITS);

	memcpy(b->block, "BZh9", HEADER);
	copy_bits(b->block + HEADER, p + b->bit / 8, b->bit, bits);
	put_bits(b->block, at, END_MAGIC, MAGIC_BITS);
	put_bits(b->block, at + MAGIC_BITS, crc, CRC_BITS);
	at += MAGIC_BITS + CRC_BITS;
	put_bits(b->block, at, 0, 7);
	return (unsigned int)((at + 7) / 8);
}

static int unpack_some(struct bzip2 *b, uint8_t *out, size_t len, size_t *ret)
{
	int code;

	b->z.next_out = (char *)out;
	b->z.avail_out = (unsigned int)len;
	code = bzip2.Decompress(&b->z);
	*ret = len - b->z.avail_out;
	return code;
}

static void end_block(struct bzip2 *b)
{
	if (b->active)
		bzip2.DecompressEnd(&b->z);
	b->active = false;
}

/* Begins to unpack what ends at bit @end. *ret_ok: there is a block so. */
static int try_block(struct decoder *d, struct bzip2 *b, uint64_t end,
		     uint8_t *out, size_t len, size_t *ret, bool *ret_ok,
		     struct error *err)
{
	int code;

	b->z = (bz_stream){ .bzalloc = take_memory,
			    .bzfree = give_memory,
			    .opaque = scratch_begin(&b->scratch) };
	if (bzip2.DecompressInit(&b->z, 0, 0) != BZ_OK)
		return error_set(err, -ENOMEM, 0, "out of memory");
	b->active = true;
	b->z.next_in = (char *)b->block;
	b->z.avail_in = wrap(b, stream_in_at(&d->in), end);
	code = unpack_some(b, out, len, ret);
	/* What comes out comes when all of the block was read. */
	*ret_ok = *ret && (code == BZ_OK || code == BZ_STREAM_END);
	if (!*ret_ok || code == BZ_STREAM_END)
		end_block(b);
	return code == BZ_MEM_ERROR
		       ? error_set(err, -ENOMEM, 0, "out of memory")
		       : 0;
}

static void advance(struct decoder *d, struct bzip2 *b, uint64_t to_bit)
{
	stream_in_take(&d->in, (size_t)(to_bit / 8));
	b->bit = to_bit % 8;
}

static int begin_block(struct decoder *d, struct bzip2 *b, uint8_t *out,
		       size_t len, size_t *ret, struct error *err)
{
	uint64_t crc =
		get_bits(stream_in_at(&d->in), b->bit + MAGIC_BITS, CRC_BITS);
	uint64_t end = b->bit + MAGIC_BITS;
	bool ok = false;
	int r = decoder_pass(d, 8 * d->in.off + b->bit, STATE_BLOCK, err);

	while (r >= 0 && !ok) {
		r = find_end(d, end + 1, &end, err);
		if (r >= 0)
			r = try_block(d, b, end, out, len, ret, &ok, err);
	}
	if (r < 0)
		return r;
	b->crc = (b->crc << 1 | b->crc >> 31) ^ (uint32_t)crc;
	advance(d, b, end);
	return 0;
}

/* ---- streams ---- */

static int next_stream(struct decoder *d, struct bzip2 *b, bool *ret_end,
		       struct error *err)
{
	int r = stream_in_need(&d->in, HEADER + END_BYTES, err);

	*ret_end = stream_in_ended(&d->in);
	if (r < 0 || *ret_end)
		return r;
	if (!probe(stream_in_at(&d->in), stream_in_have(&d->in)))
		return decoder_damaged(d, "no bzip2 stream is there", err);
	r = decoder_pass(d, 8 * d->in.off, 0, err);
	stream_in_take(&d->in, HEADER);
	b->in_stream = b->summed = true;
	b->crc = 0;
	return r;
}

static int end_stream(struct decoder *d, struct bzip2 *b, struct error *err)
{
	uint64_t crc =
		get_bits(stream_in_at(&d->in), b->bit + MAGIC_BITS, CRC_BITS);

	if (b->summed && crc != b->crc)
		return decoder_damaged(d, "its content has another sum", err);
	advance(d, b, round_up(b->bit + MAGIC_BITS + CRC_BITS, 8));
	b->in_stream = false;
	return 0;
}

/* In a stream, where a block begins, or what ends it. */
static int next_block(struct decoder *d, struct bzip2 *b, uint8_t *out,
		      size_t len, size_t *ret, struct error *err)
{
	uint64_t magic;
	int r = stream_in_need(&d->in, END_BYTES, err);

	if (r < 0)
		return r;
	if (8 * stream_in_have(&d->in) < b->bit + MAGIC_BITS + CRC_BITS)
		return decoder_cut(d, err);
	magic = get_bits(stream_in_at(&d->in), b->bit, MAGIC_BITS);
	if (magic == END_MAGIC)
		return end_stream(d, b, err);
	return magic == BLOCK_MAGIC
		       ? begin_block(d, b, out, len, ret, err)
		       : decoder_damaged(d, "no block is there", err);
}

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	struct bzip2 *b = d->state;

	if (!b) {
		b = d->state = calloc(1, sizeof(*b));
		if (b)
			b->block = malloc(BLOCK_MAX + 64);
		if (!b || !b->block)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	end_block(b);
	b->in_stream = from->state & STATE_BLOCK;
	b->summed = false;
	b->bit = from->in % 8;
	stream_in_seek(&d->in, from->in / 8);
	return 0;
}

static int go_on(struct decoder *d, struct bzip2 *b, uint8_t *out, size_t len,
		 size_t *ret, struct error *err)
{
	int code = unpack_some(b, out, len, ret);

	if (code == BZ_OK && *ret)
		return 0;
	end_block(b);
	return code == BZ_STREAM_END
		       ? 0
		       : decoder_damaged(d, "a block is damaged", err);
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	struct bzip2 *b = d->state;
	bool end = false;
	int r = 0;

	*ret = 0;
	while (r >= 0 && !*ret && !end) {
		if (b->active)
			r = go_on(d, b, out, len, ret, err);
		else if (b->in_stream)
			r = next_block(d, b, out, len, ret, err);
		else
			r = next_stream(d, b, &end, err);
	}
	return r;
}

static void stop(struct decoder *d)
{
	struct bzip2 *b = d->state;

	if (!b)
		return;
	end_block(b);
	scratch_done(&b->scratch);
	free(b->block);
	free(b);
}

const struct stream_ops stream_bzip2 = {
	.name = "bzip2",
	.what = "a bzip2 stream",
	.probe = probe,
	.need = need,
	.look = look,
	.start = start,
	.step = step,
	.stop = stop,
};
