/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zstd: RFC 8878. Frames one after the other, and skippable ones among them:
 *
 *	28 b5 2f fd | descriptor | window descriptor (0, 1), dictionary (0 to 4),
 *	content size (0 to 8), as the descriptor says | blocks: last 1 bit,
 *	type 2 bits, size 21 bits, data | checksum (0, 4)
 *	5? 2a 4d 18 | size (4) | anything
 *
 * Decoding can begin where a frame does. Headers of frames and blocks lead
 * through the file; what all frames tell of their content is believed until they
 * are decoded. Where one does not, all is decoded once. Dictionaries are refused.
 *
 * A file of one frame, as zstd makes them, is decoded in its order.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/cursor.h"
#include "formats/streams/packed.h"
#include "iouring/util.h"

#define MAGIC	       0xfd2fb528U
#define HEADER_MAX     18U /* bytes */
#define BLOCK_HEADER   3U
#define BLOCK_MAX      (128U << 10)
#define CHECKSUM_BYTES 4U

/* A decoder's own, and two blocks. */
#define DECODER_BYTES (512U << 10)

struct frame {
	uint32_t bytes; /* of its header */
	bool has_content, has_checksum;
	uint64_t content; /* bytes that come out */
	uint64_t window; /* bytes */
};

struct zstd {
	ZSTD_DCtx *z;
	bool between; /* frames */
};

static bool probe(const uint8_t *head, size_t bytes)
{
	size_t skipped = stream_skippable(head, bytes);
	struct cursor c = { .buf = head + skipped, .len = bytes - skipped };

	/* A reserved bit is 0. */
	return cursor_le32_at(&c, 0) == MAGIC && !(cursor_u8_at(&c, 4) & 8) &&
	       !c.short_read;
}

static int need(struct error *err)
{
	return codec_lib_load(LIB_ZSTD)
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "libzstd is needed to read this, and not "
				   "installed");
}

/* ---- headers ---- */

/* The field of content sizes, of @n bytes. */
static uint64_t content_size(struct cursor *c, size_t at, unsigned int n)
{
	switch (n) {
	case 1:
		return cursor_u8_at(c, at);
	case 2:
		return cursor_le16_at(c, at) + 256U;
	case 4:
		return cursor_le32_at(c, at);
	default:
		return cursor_le64_at(c, at);
	}
}

/* RFC 8878, 3.1.1.1. NULL, or what is wrong. */
static const char *take_frame(const uint8_t *p, size_t have, struct frame *ret)
{
	static const unsigned int sizes[] = { 0, 2, 4, 8 },
				  ids[] = { 0, 1, 2, 4 };
	struct cursor c = { .buf = p, .len = have };
	uint8_t d = cursor_u8_at(&c, 4), w;
	bool single = d & 0x20;
	unsigned int n = d >> 6 ? sizes[d >> 6] : single;
	struct frame f = { .bytes = 5 + !single + ids[d & 3] + n,
			   .has_content = n,
			   .has_checksum = d & 4 };

	if (d & 8)
		return "a frame of an unknown kind";
	if (d & 3)
		return "it needs a dictionary, which is not given";
	if (n)
		f.content = content_size(&c, 5 + !single, n);
	f.window = f.content;
	if (!single) {
		w = cursor_u8_at(&c, 5);
		f.window = 1ULL << (10 + (w >> 3));
		f.window += f.window / 8 * (w & 7);
	}
	if (c.short_read || have < f.bytes)
		return "it ends early";
	*ret = f;
	return NULL;
}

struct walk {
	struct stream *s;
	struct decoder d; /* for messages, and its input */
	uint64_t window; /* the longest */
	bool known; /* what has come out so far */
};

static int skip(struct walk *w, uint64_t bytes, struct error *err)
{
	struct stream_in *in = &w->d.in;

	if (bytes > in->end - in->off)
		return decoder_cut(&w->d, err);
	stream_in_seek(in, in->off + bytes);
	return 0;
}

/* Past the blocks of a frame, and its checksum. */
static int skip_blocks(struct walk *w, const struct frame *f, struct error *err)
{
	struct stream_in *in = &w->d.in;
	bool last = false;
	uint32_t head;
	int r = 0;

	while (!last && r >= 0) {
		r = stream_in_need(in, BLOCK_HEADER, err);
		if (r < 0)
			break;
		if (stream_in_have(in) < BLOCK_HEADER)
			return decoder_cut(&w->d, err);
		head = stream_in_at(in)[0] |
		       (uint32_t)stream_in_at(in)[1] << 8 |
		       (uint32_t)stream_in_at(in)[2] << 16;
		last = head & 1;
		if ((head >> 1 & 3) == 3 || head >> 3 > BLOCK_MAX)
			return decoder_damaged(&w->d, "a block's header", err);
		/* Of one byte that is repeated there is one. */
		r = skip(w,
			 BLOCK_HEADER + ((head >> 1 & 3) == 1 ? 1 : head >> 3),
			 err);
	}
	return r < 0 || !f->has_checksum ? r : skip(w, CHECKSUM_BYTES, err);
}

static int walk_frame(struct walk *w, struct error *err)
{
	struct stream_in *in = &w->d.in;
	struct checkpoint ck = { .in = in->off, .out = w->d.out };
	struct frame f = { 0 };
	const char *wrong =
		take_frame(stream_in_at(in), stream_in_have(in), &f);
	int r;

	if (wrong)
		return decoder_damaged(&w->d, wrong, err);
	r = stream_check_memory(w->s, f.window + DECODER_BYTES, "a zstd stream",
				err);
	if (r >= 0)
		r = stream_check_bytes(f.content, err);
	w->window = max_u64(w->window, f.window);
	w->known = w->known && f.has_content;
	if (r >= 0 && w->known && f.content)
		r = stream_index_add(&w->s->index, &ck, err);
	if (r >= 0)
		r = stream_check_bytes(w->d.out + f.content, err);
	w->d.out += f.content;
	if (r >= 0)
		r = skip(w, f.bytes, err);
	return r < 0 ? r : skip_blocks(w, &f, err);
}

/* A frame of either kind. */
static int walk_any(struct walk *w, struct error *err)
{
	struct stream_in *in = &w->d.in;
	struct cursor c;
	int r = stream_in_need(in, HEADER_MAX, err);

	if (r < 0)
		return r;
	c = (struct cursor){ .buf = stream_in_at(in),
			     .len = stream_in_have(in) };
	if (stream_is_skippable(cursor_le32_at(&c, 0)))
		return skip(w, 8ULL + cursor_le32_at(&c, 4), err);
	if (c.short_read || cursor_le32_at(&c, 0) != MAGIC)
		return decoder_damaged(&w->d, "no frame is there", err);
	return walk_frame(w, err);
}

static int look(struct stream *s, struct error *err)
{
	struct walk w = {
		.s = s,
		.d = { .s = s, .in = { .src = s->src, .end = s->src->bytes } },
		.known = true
	};
	int r = packed_look(s, PACKED_ZSTD, err);

	if (r)
		return r;
	while (r >= 0 && !stream_in_ended(&w.d.in))
		r = walk_any(&w, err);
	stream_in_done(&w.d.in);
	s->decoder_bytes = w.window + DECODER_BYTES;
	s->base.bytes = w.d.out;
	s->was_dear = true;
	if (r >= 0 && !w.known)
		stream_index_done(&s->index);
	return r < 0 ? r : w.known;
}

/* ---- decoding ---- */

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	struct zstd *z = d->state;

	if (!z) {
		z = calloc(1, sizeof(*z));
		if (z)
			z->z = zstd.createDCtx();
		if (!z || !z->z) {
			free(z);
			return error_set(err, -ENOMEM, 0, "out of memory");
		}
		/* What was looked at is no larger. */
		zstd.DCtx_setParameter(z->z, ZSTD_d_windowLogMax, 27);
		d->state = z;
	}
	zstd.DCtx_reset(z->z, ZSTD_reset_session_only);
	z->between = true;
	stream_in_seek(&d->in, from->in);
	return 0;
}

/* Past skippable frames. *ret_end: nothing follows. */
static int next_frame(struct decoder *d, struct zstd *z, bool *ret_end,
		      struct error *err)
{
	struct cursor c;
	int r;

	for (;;) {
		r = stream_in_need(&d->in, 8, err);
		if (r < 0)
			return r;
		*ret_end = stream_in_ended(&d->in);
		if (*ret_end)
			return 0;
		c = (struct cursor){ .buf = stream_in_at(&d->in),
				     .len = stream_in_have(&d->in) };
		if (!stream_is_skippable(cursor_le32_at(&c, 0)))
			break;
		if (8ULL + cursor_le32_at(&c, 4) > d->in.end - d->in.off)
			return decoder_cut(d, err);
		stream_in_seek(&d->in, d->in.off + 8 + cursor_le32_at(&c, 4));
	}
	z->between = false;
	return decoder_pass(d, d->in.off, 0, err);
}

static int decode_some(struct decoder *d, struct zstd *z, uint8_t *out,
		       size_t len, size_t *ret, struct error *err)
{
	ZSTD_outBuffer dst = { out, len, 0 };
	ZSTD_inBuffer src = { 0 };
	size_t left;
	int r = stream_in_need(&d->in, 1, err);

	if (r < 0)
		return r;
	src.src = stream_in_at(&d->in);
	src.size = stream_in_have(&d->in);
	left = zstd.decompressStream(z->z, &dst, &src);
	if (zstd.isError(left))
		return decoder_damaged(d, "its data are damaged", err);
	stream_in_take(&d->in, src.pos);
	*ret = dst.pos;
	z->between = !left;
	if (left && !src.size && !dst.pos)
		return decoder_cut(d, err);
	return 0;
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	struct zstd *z = d->state;
	bool end = false;
	int r = 0;

	*ret = 0;
	while (r >= 0 && !*ret && !end) {
		if (z->between)
			r = next_frame(d, z, &end, err);
		if (r >= 0 && !end)
			r = decode_some(d, z, out, len, ret, err);
	}
	return r;
}

static void stop(struct decoder *d)
{
	struct zstd *z = d->state;

	if (z)
		zstd.freeDCtx(z->z);
	free(z);
}

const struct stream_ops stream_zstd = {
	.name = "zstd",
	.what = "a zstd stream",
	.probe = probe,
	.need = need,
	.look = look,
	.start = start,
	.step = step,
	.stop = stop,
};
