/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LZ4: "LZ4 Frame Format Description", 1.6.x. Frames one after the other,
 * skippable and legacy ones among them:
 *
 *	04 22 4d 18 | flags | block size | content size (0, 8) | dictionary (0,
 *	4) | header checksum | blocks: size (4), whose first bit says that the
 *	data are as they are, data, checksum (0, 4) | 0 (4) | checksum (0, 4)
 *	02 21 4c 18 | blocks of 8 MiB: size (4), data
 *	5? 2a 4d 18 | size (4) | anything
 *
 * Decoding can begin where a frame does, or a block; where blocks refer to those
 * before them, given the last 64 KiB. No block tells its size unpacked, so all is
 * decoded once. Dictionaries are refused.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/cursor.h"
#include "formats/streams/packed.h"
#include "formats/streams/xxh.h"
#include "iouring/util.h"

#define MAGIC	     0x184d2204U
#define LEGACY	     0x184c2102U
#define HEADER_MAX   19U /* bytes */
#define WINDOW_BYTES (64U << 10)
#define LEGACY_BLOCK (8U << 20)
#define AS_IT_IS     (1U << 31)

/* Of a legacy block that cannot be made smaller: LZ4_compressBound(). */
#define GROWN(bytes) ((bytes) + (bytes) / 255 + 16)

/* Of a decoder: a block of 4 MiB, and one packed. */
#define DECODER_BYTES	     ((8U << 20) + (192U << 10))
#define LEGACY_DECODER_BYTES (2 * LEGACY_BLOCK + (256U << 10))

/* Of checkpoints, and of the frame that is read; 0: between frames. */
enum {
	IN_FRAME = 1,
	IN_LEGACY = 2,
	LINKED = 4, /* blocks refer to those before */
	BLOCK_SUM = 8,
	CONTENT_SUM = 16,
	SIZE_SHIFT = 8, /* of block sizes: 1 << 8 + 2 * (4 .. 7) */
};

struct lz4 {
	uint32_t state; /* of the above */
	uint32_t block_max;
	bool summed; /* from the frame's beginning on */
	struct xxh32 sum;
	uint64_t want_at;
	uint8_t *buf; /* 64 KiB that were before the block, then it */
	uint32_t room; /* for the block */
	uint32_t window; /* so many of the 64 KiB are there, at their end */
	uint32_t made, given; /* bytes of the block */
};

static bool probe(const uint8_t *head, size_t bytes)
{
	size_t skipped = stream_skippable(head, bytes);
	struct cursor c = { .buf = head + skipped, .len = bytes - skipped };
	uint32_t magic = cursor_le32_at(&c, 0);

	if (c.len < 11)
		return false;
	if (magic == LEGACY)
		return cursor_le32_at(&c, 4) <= GROWN(LEGACY_BLOCK);
	return magic == MAGIC && c.buf[4] >> 6 == 1 && !(c.buf[4] & 2);
}

static int need(struct error *err)
{
	return codec_lib_load(LIB_LZ4)
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "liblz4 is needed to read this, and not "
				   "installed");
}

static int look(struct stream *s, struct error *err)
{
	uint32_t magic = 0;
	int r = packed_look(s, PACKED_LZ4, err);

	if (r)
		return r;
	r = source_read(s->src, &magic, sizeof(magic), 0, err);
	if (r < 0)
		return r;
	s->decoder_bytes =
		le32toh(magic) == LEGACY ? LEGACY_DECODER_BYTES : DECODER_BYTES;
	return stream_check_memory(s, s->decoder_bytes, "an lz4 stream", err);
}

/* Of the first frame. */
static bool hint(struct stream *s, uint64_t *ret, unsigned int *ret_bits)
{
	uint8_t head[14];
	struct cursor c = { .buf = head, .len = sizeof(head) };

	if (source_read(s->src, head, sizeof(head), 0, NULL) < 0 ||
	    cursor_le32_at(&c, 0) != MAGIC || !(head[4] & 8))
		return false;
	*ret = cursor_le64_at(&c, 6);
	*ret_bits = 64;
	return true;
}

/* ---- decoding ---- */

/* For blocks of @bytes. */
static int make_room(struct decoder *d, struct lz4 *l, uint32_t bytes,
		     struct error *err)
{
	uint8_t *buf;

	if (2ULL * bytes > d->s->decoder_bytes)
		return error_set(err, -EFBIG, d->in.off,
				 "an lz4 stream: a frame of larger blocks than "
				 "the first has");
	l->block_max = bytes;
	if (l->room >= bytes)
		return 0;
	buf = realloc(l->buf, WINDOW_BYTES + (size_t)bytes);
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	l->buf = buf;
	l->room = bytes;
	return 0;
}

static uint32_t state_block_bytes(uint32_t state)
{
	return state & IN_LEGACY ? LEGACY_BLOCK
				 : 1U << (8 + 2 * (state >> SIZE_SHIFT & 7));
}

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	struct lz4 *l = d->state;
	uint32_t n = 0;
	int r = 0;

	if (!l)
		l = d->state = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	l->state = from->state & ~CHECKPOINT_STAYS;
	l->made = l->given = l->window = 0;
	l->summed = false;
	l->want_at = 0;
	stream_in_seek(&d->in, from->in);
	if (l->state)
		r = make_room(d, l, state_block_bytes(l->state), err);
	if (r < 0 || !(l->state & LINKED) || !from->window)
		return r;
	r = checkpoint_window(from, l->buf, WINDOW_BYTES, &n, err);
	if (r < 0)
		return r;
	memmove(l->buf + WINDOW_BYTES - n, l->buf, n);
	l->window = n;
	return 0;
}

/* The header at d->in, whose magic was seen. */
static int begin_frame(struct decoder *d, struct lz4 *l, struct error *err)
{
	const uint8_t *p = stream_in_at(&d->in);
	uint8_t flags = p[4], size = p[5];
	uint32_t bytes = 7 + (flags & 8 ? 8 : 0);

	if (stream_in_have(&d->in) < bytes)
		return decoder_cut(d, err);
	if (flags >> 6 != 1 || flags & 2 || size & 0x8f || size >> 4 < 4)
		return decoder_damaged(d, "a frame of an unknown kind", err);
	if (flags & 1)
		return decoder_damaged(
			d, "it needs a dictionary, which is not given", err);
	if ((xxh32(p + 4, bytes - 5) >> 8 & 0xff) != p[bytes - 1])
		return decoder_damaged(d, "a frame's header has a wrong sum",
				       err);
	l->state = IN_FRAME | (flags & 0x20 ? 0 : LINKED) |
		   (flags & 0x10 ? BLOCK_SUM : 0) |
		   (flags & 4 ? CONTENT_SUM : 0) |
		   (uint32_t)(size >> 4) << SIZE_SHIFT;
	stream_in_take(&d->in, bytes);
	return make_room(d, l, state_block_bytes(l->state), err);
}

/* Between frames. *ret_end: there is none more. */
static int next_frame(struct decoder *d, struct lz4 *l, bool *ret_end,
		      struct error *err)
{
	struct cursor c;
	uint32_t magic;
	int r = stream_in_need(&d->in, HEADER_MAX, err);

	*ret_end = stream_in_ended(&d->in);
	if (r < 0 || *ret_end)
		return r;
	c = (struct cursor){ .buf = stream_in_at(&d->in),
			     .len = stream_in_have(&d->in) };
	magic = cursor_le32_at(&c, 0);
	if (stream_is_skippable(magic)) {
		if (8ULL + cursor_le32_at(&c, 4) > d->in.end - d->in.off)
			return decoder_cut(d, err);
		stream_in_seek(&d->in, d->in.off + 8 + cursor_le32_at(&c, 4));
		return 0;
	}
	if ((magic != MAGIC && magic != LEGACY) || c.len < 7)
		return decoder_damaged(d, "no frame is there", err);
	r = decoder_pass(d, d->in.off, 0, err);
	if (r < 0)
		return r;
	l->window = 0;
	l->summed = true;
	xxh32_begin(&l->sum);
	if (magic == MAGIC)
		return begin_frame(d, l, err);
	l->state = IN_LEGACY;
	stream_in_take(&d->in, 4);
	return make_room(d, l, LEGACY_BLOCK, err);
}

static int end_frame(struct decoder *d, struct lz4 *l, struct error *err)
{
	struct cursor c;
	int r = 0;

	if (l->state & CONTENT_SUM) {
		r = stream_in_need(&d->in, 4, err);
		c = (struct cursor){ .buf = stream_in_at(&d->in),
				     .len = stream_in_have(&d->in) };
		if (r >= 0 && c.len < 4)
			return decoder_cut(d, err);
		if (r >= 0 && d->whole && l->summed &&
		    xxh32_end(&l->sum) != cursor_le32_at(&c, 0))
			return decoder_damaged(d, "its content has another sum",
					       err);
		if (r >= 0)
			stream_in_take(&d->in, 4);
	}
	l->state = 0;
	return r;
}

/* What comes next in a frame. *ret_bytes, packed; 0: its end. */
static int take_size(struct decoder *d, struct lz4 *l, uint32_t *ret_bytes,
		     bool *ret_packed, struct error *err)
{
	struct cursor c;
	uint32_t size;
	int r = stream_in_need(&d->in, 4, err);

	*ret_bytes = 0;
	if (r < 0 || (l->state & IN_LEGACY && stream_in_ended(&d->in)))
		return r;
	c = (struct cursor){ .buf = stream_in_at(&d->in),
			     .len = stream_in_have(&d->in) };
	size = cursor_le32_at(&c, 0);
	if (c.short_read)
		return decoder_cut(d, err);
	/* A legacy frame ends where another begins. */
	if (l->state & IN_LEGACY &&
	    (size == MAGIC || size == LEGACY || stream_is_skippable(size)))
		return 0;
	*ret_packed = l->state & IN_LEGACY || !(size & AS_IT_IS);
	size &= l->state & IN_LEGACY ? UINT32_MAX : ~AS_IT_IS;
	if (size > (l->state & IN_LEGACY ? GROWN(LEGACY_BLOCK)
					 : l->block_max) ||
	    (l->state & IN_LEGACY && !size))
		return decoder_damaged(d, "a block is too long", err);
	stream_in_take(&d->in, 4);
	*ret_bytes = size;
	return 0;
}

/* What was made before moves to in front of what is made next. */
static void keep_window(struct lz4 *l)
{
	uint8_t *block = l->buf + WINDOW_BYTES;
	uint32_t have = (uint32_t)min_u64(WINDOW_BYTES, l->window + l->made);

	if (l->state & LINKED && l->made)
		memmove(block - have, block + l->made - have, have);
	if (l->state & LINKED)
		l->window = have;
	l->made = l->given = 0;
}

static int unpack(struct decoder *d, struct lz4 *l, const uint8_t *in,
		  uint32_t bytes, bool packed, uint8_t *out, struct error *err)
{
	int n = (int)bytes;

	if (!packed)
		memcpy(out, in, bytes);
	else if (l->state & LINKED)
		n = lz4.decompress_safe_usingDict(
			(const char *)in, (char *)out, n, (int)l->block_max,
			(const char *)l->buf + WINDOW_BYTES - l->window,
			(int)l->window);
	else
		n = lz4.decompress_safe((const char *)in, (char *)out, n,
					(int)l->block_max);
	if (n < 0)
		return decoder_damaged(d, "a block is damaged", err);
	l->made = (uint32_t)n;
	if (d->whole && l->state & CONTENT_SUM)
		xxh32_add(&l->sum, out, l->made);
	return 0;
}

/* A block of @bytes at d->in to @out, which has room for the longest. */
static int take_block(struct decoder *d, struct lz4 *l, uint32_t bytes,
		      bool packed, uint8_t *out, struct error *err)
{
	uint32_t sum = l->state & BLOCK_SUM ? 4 : 0;
	struct cursor c;
	int r = stream_in_need(&d->in, bytes + sum, err);

	if (r < 0)
		return r;
	if (stream_in_have(&d->in) < bytes + sum)
		return decoder_cut(d, err);
	c = (struct cursor){ .buf = stream_in_at(&d->in), .len = bytes + sum };
	if (sum && xxh32(c.buf, bytes) != cursor_le32_at(&c, bytes))
		return decoder_damaged(d, "a block has another sum", err);
	r = unpack(d, l, c.buf, bytes, packed, out, err);
	if (r >= 0)
		stream_in_take(&d->in, bytes + sum);
	return r;
}

/* At a block's beginning decoding can begin. */
static int pass_block(struct decoder *d, struct lz4 *l, struct error *err)
{
	if (!(l->state & LINKED))
		return decoder_pass(d, d->in.off, l->state, err);
	return decoder_pass_window(d, d->in.off, l->state,
				   l->buf + WINDOW_BYTES - l->window, l->window,
				   &l->want_at, err);
}

/* The next block, to @out if it is sure to fit, and nobody will refer to it. */
static int next_block(struct decoder *d, struct lz4 *l, uint8_t *out,
		      size_t len, size_t *ret, struct error *err)
{
	bool direct = len >= l->block_max && !(l->state & LINKED);
	bool packed = false;
	uint32_t bytes;
	int r;

	keep_window(l);
	r = pass_block(d, l, err);
	if (r >= 0)
		r = take_size(d, l, &bytes, &packed, err);
	if (r < 0)
		return r;
	if (!bytes)
		return end_frame(d, l, err);
	r = take_block(d, l, bytes, packed,
		       direct ? out : l->buf + WINDOW_BYTES, err);
	if (r >= 0 && direct) {
		*ret = l->made;
		l->given = l->made;
	}
	return r;
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	struct lz4 *l = d->state;
	bool end = false;
	size_t n;
	int r = 0;

	*ret = 0;
	while (r >= 0 && !*ret && !end) {
		n = min_size(len, l->made - l->given);
		memcpy(out, l->buf ? l->buf + WINDOW_BYTES + l->given : out, n);
		l->given += (uint32_t)n;
		*ret = n;
		if (n)
			break;
		r = l->state ? next_block(d, l, out, len, ret, err)
			     : next_frame(d, l, &end, err);
	}
	return r;
}

static void stop(struct decoder *d)
{
	struct lz4 *l = d->state;

	if (l)
		free(l->buf);
	free(l);
}

const struct stream_ops stream_lz4 = {
	.name = "lz4",
	.what = "an lz4 stream",
	.probe = probe,
	.need = need,
	.look = look,
	.hint = hint,
	.start = start,
	.step = step,
	.stop = stop,
};
