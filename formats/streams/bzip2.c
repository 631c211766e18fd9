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
 * unpacked, so all is decoded once: by several threads, each of which has a block
 * that lies behind the one that is read.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

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

#define HELPERS	     2U
#define HELPER_OUT   (1U << 20) /* more than most blocks unpack to */
#define HELPER_BYTES ((4U << 20) + BLOCK_MAX + HELPER_OUT)

/* How far behind a block the end of the next one is looked for: most are shorter. */
#define AHEAD_BYTES (1U << 20)

#define STATE_BLOCK 1U /* of checkpoints: a block begins, else a stream */

/* What unpacks a block. */
struct unpacking {
	bz_stream z;
	struct codec_scratch scratch;
	bool active; /* z is at it */
	uint8_t *block; /* BLOCK_MAX and more: as a stream of its own */
	unsigned int bytes; /* of it */
};

/* A thread that unpacks a block which nobody has read yet. */
struct helper {
	struct unpacking u;
	pthread_t thread;
	bool running; /* it is to be joined */
	uint64_t begin, end; /* of the block, in bits of the stream's bytes */
	uint8_t *out; /* HELPER_OUT */
	size_t made, given;
	int code; /* libbz2's */
};

struct bzip2 {
	struct unpacking own;
	struct unpacking *now; /* whose block is read; NULL: none */
	struct helper helpers[HELPERS];
	unsigned int n_helpers, helper; /* those from helper on are ahead */
	struct helper *giving; /* what it has made; NULL: none */
	bool in_stream;
	unsigned int bit; /* of the byte at d->in */
	uint32_t crc; /* combined, of the stream's blocks so far */
	bool summed; /* from the stream's beginning on */
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
	if (!s->level && sysconf(_SC_NPROCESSORS_ONLN) > 1)
		s->pass_bytes = HELPERS * HELPER_BYTES;
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

/* The block in bits @begin to @end at @p as a stream of its own. */
static void wrap(struct unpacking *u, const uint8_t *p, uint64_t begin,
		 uint64_t end)
{
	uint64_t bits = end - begin, at = 8 * HEADER + bits;
	uint64_t crc = get_bits(p, begin + MAGIC_BITS, CRC_BITS);

	memcpy(u->block, "BZh9", HEADER);
	copy_bits(u->block + HEADER, p + begin / 8, begin % 8, bits);
	put_bits(u->block, at, END_MAGIC, MAGIC_BITS);
	put_bits(u->block, at + MAGIC_BITS, crc, CRC_BITS);
	at += MAGIC_BITS + CRC_BITS;
	put_bits(u->block, at, 0, 7);
	u->bytes = (unsigned int)((at + 7) / 8);
}

static bool unpacking_init(struct unpacking *u)
{
	if (!u->block)
		u->block = malloc(BLOCK_MAX + 64);
	return u->block;
}

static void unpacking_end(struct unpacking *u)
{
	if (u->active)
		bzip2.DecompressEnd(&u->z);
	u->active = false;
}

static void unpacking_done(struct unpacking *u)
{
	unpacking_end(u);
	scratch_done(&u->scratch);
	free(u->block);
}

/* What wrap() has made. BZ_OK, or BZ_MEM_ERROR. */
static int unpacking_begin(struct unpacking *u)
{
	u->z = (bz_stream){ .bzalloc = take_memory,
			    .bzfree = give_memory,
			    .opaque = scratch_begin(&u->scratch) };
	if (bzip2.DecompressInit(&u->z, 0, 0) != BZ_OK)
		return BZ_MEM_ERROR;
	u->active = true;
	u->z.next_in = (char *)u->block;
	u->z.avail_in = u->bytes;
	return BZ_OK;
}

static int unpack_some(struct unpacking *u, uint8_t *out, size_t len,
		       size_t *ret)
{
	int code;

	u->z.next_out = (char *)out;
	u->z.avail_out = (unsigned int)len;
	code = bzip2.Decompress(&u->z);
	*ret = len - u->z.avail_out;
	return code;
}

/* ---- blocks ahead ---- */

/* In a thread of its own; libbz2 is all that it has with others. */
static void *help(void *opaque)
{
	struct helper *h = opaque;
	size_t n = 1;

	h->code = unpacking_begin(&h->u);
	while (h->code == BZ_OK && n && h->made < HELPER_OUT) {
		h->code = unpack_some(&h->u, h->out + h->made,
				      HELPER_OUT - h->made, &n);
		h->made += n;
	}
	return NULL;
}

static bool helper_start(struct helper *h, const uint8_t *p, uint64_t begin,
			 uint64_t end)
{
	if (!h->out)
		h->out = malloc(HELPER_OUT);
	if (!h->out || !unpacking_init(&h->u))
		return false;
	wrap(&h->u, p, begin, end);
	h->made = h->given = 0;
	h->running = !pthread_create(&h->thread, NULL, help, h);
	return h->running;
}

static void helper_join(struct helper *h)
{
	if (h->running)
		pthread_join(h->thread, NULL);
	h->running = false;
}

static void drop_helpers(struct bzip2 *b)
{
	for (; b->helper < b->n_helpers; b->helper++) {
		helper_join(&b->helpers[b->helper]);
		unpacking_end(&b->helpers[b->helper].u);
	}
	b->helper = b->n_helpers = 0;
}

/* Where the block begins that follows one which ends at bit @end of the @bytes;
 * UINT64_MAX: none does, as far as it can be seen. */
static uint64_t begin_behind(const uint8_t *p, size_t bytes, uint64_t end)
{
	uint64_t at = round_up(end + MAGIC_BITS + CRC_BITS, 8);

	if (at / 8 + HEADER + MAGIC_BITS / 8 > bytes)
		return UINT64_MAX;
	if (get_bits(p, end, MAGIC_BITS) == BLOCK_MAGIC)
		return end;
	return !memcmp(p + at / 8, "BZh", 3) &&
			       get_bits(p, at + 8 * HEADER, MAGIC_BITS) ==
				       BLOCK_MAGIC
		       ? at + 8 * HEADER
		       : UINT64_MAX;
}

/* Those behind the block that ends at bit @end from d->in on. What is wrong with
 * them will be found by who comes there. */
static void look_ahead(struct decoder *d, struct bzip2 *b, uint64_t end)
{
	uint64_t base = 8 * d->in.off, begin;
	size_t want, have;

	for (; b->n_helpers < HELPERS; b->n_helpers++) {
		struct helper *h = &b->helpers[b->n_helpers];

		want = (size_t)(end / 8) + AHEAD_BYTES;
		if (stream_in_need(&d->in, want, NULL) < 0)
			return;
		have = min_size(stream_in_have(&d->in), want);
		begin = begin_behind(stream_in_at(&d->in), have, end);
		end = begin == UINT64_MAX
			      ? UINT64_MAX
			      : find_magic(stream_in_at(&d->in), have,
					   begin + MAGIC_BITS + 1);
		if (end == UINT64_MAX ||
		    !helper_start(h, stream_in_at(&d->in), begin, end))
			return;
		h->begin = base + begin;
		h->end = base + end;
	}
}

/* The helper whose block is that at d->in, and has been unpacked; NULL: there is
 * none. */
static struct helper *take_ahead(struct decoder *d, struct bzip2 *b)
{
	struct helper *h = &b->helpers[min_size(b->helper, HELPERS - 1)];

	if (b->helper < b->n_helpers)
		helper_join(h);
	if (b->helper < b->n_helpers && h->begin == 8 * d->in.off + b->bit &&
	    h->made && (h->code == BZ_OK || h->code == BZ_STREAM_END)) {
		b->helper++;
		return h;
	}
	drop_helpers(b);
	return NULL;
}

/* ---- the block that is read ---- */

static void end_block(struct bzip2 *b)
{
	if (b->now)
		unpacking_end(b->now);
	b->now = NULL;
	b->giving = NULL;
}

/* Begins to unpack what ends at bit @end. *ret_ok: there is a block so. */
static int try_block(struct decoder *d, struct bzip2 *b, uint64_t end,
		     uint8_t *out, size_t len, size_t *ret, bool *ret_ok,
		     struct error *err)
{
	int code;

	wrap(&b->own, stream_in_at(&d->in), b->bit, end);
	code = unpacking_begin(&b->own);
	if (code == BZ_OK) {
		b->now = &b->own;
		code = unpack_some(b->now, out, len, ret);
	}
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

/* By this thread. *ret_end: where it ends, in bits from d->in on. */
static int begin_here(struct decoder *d, struct bzip2 *b, uint8_t *out,
		      size_t len, size_t *ret, uint64_t *ret_end,
		      struct error *err)
{
	uint64_t end = b->bit + MAGIC_BITS;
	bool ok = false;
	int r = 0;

	while (r >= 0 && !ok) {
		r = find_end(d, end + 1, &end, err);
		if (r >= 0 && d->whole && d->s->pass_bytes && !b->n_helpers)
			look_ahead(d, b, end);
		if (r >= 0)
			r = try_block(d, b, end, out, len, ret, &ok, err);
	}
	*ret_end = end;
	return r;
}

static int begin_block(struct decoder *d, struct bzip2 *b, uint8_t *out,
		       size_t len, size_t *ret, struct error *err)
{
	uint64_t crc =
		get_bits(stream_in_at(&d->in), b->bit + MAGIC_BITS, CRC_BITS);
	int r = decoder_pass(d, 8 * d->in.off + b->bit, STATE_BLOCK, err);
	struct helper *h = r < 0 ? NULL : take_ahead(d, b);
	uint64_t end = 0;

	if (h) {
		b->now = &h->u;
		b->giving = h;
		end = h->end - 8 * d->in.off;
	} else if (r >= 0) {
		r = begin_here(d, b, out, len, ret, &end, err);
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
		if (!b || !unpacking_init(&b->own))
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	end_block(b);
	drop_helpers(b);
	b->in_stream = from->state & STATE_BLOCK;
	b->summed = false;
	b->bit = from->in % 8;
	stream_in_seek(&d->in, from->in / 8);
	return 0;
}

static int go_on(struct decoder *d, struct bzip2 *b, uint8_t *out, size_t len,
		 size_t *ret, struct error *err)
{
	struct helper *h = b->giving;
	int code;

	if (h && h->given < h->made) {
		*ret = min_size(len, h->made - h->given);
		memcpy(out, h->out + h->given, *ret);
		h->given += *ret;
		return 0;
	}
	code = h && h->code == BZ_STREAM_END
		       ? h->code
		       : unpack_some(b->now, out, len, ret);
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
		if (b->now)
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
	unsigned int i;

	if (!b)
		return;
	end_block(b);
	drop_helpers(b);
	unpacking_done(&b->own);
	for (i = 0; i < HELPERS; i++) {
		unpacking_done(&b->helpers[i].u);
		free(b->helpers[i].out);
	}
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
