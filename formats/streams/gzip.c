/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gzip: RFC 1952 members one after the other, each a deflate stream (RFC 1951).
 *
 *	1f 8b 08 | flags 3 | time 4 (4) | extra flags 8 | system 9 | what the
 *	flags say | deflate | CRC-32 (4), size modulo 2^32 (4)
 *
 * Decoding can begin where a member does, or a block of deflate, given what was
 * decoded before. BGZF (SAM/BAM specification, 4.1) has members of at most
 * 64 KiB, each of which tells its size in an extra field: "BC", 2, size - 1 (2);
 * so nothing need be decoded to know where they are.
 *
 * Zeroes behind the last member are padding, as tapes have; all else is refused.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/cursor.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

#define WINDOW_BYTES  32768U
#define HEAD_MIN      18U /* of a member with BGZF's field */
#define TAIL_BYTES    8U
#define MEMBER_BITS   (16 + MAX_WBITS) /* zlib's: with the header of gzip */
#define DECODER_BYTES (64U << 10)

/* Of checkpoints: bits of the byte before that belong to the block; ... */
#define STATE_BITS  7U
#define STATE_BLOCK 8U /* inside a member, between two blocks */

struct gzip {
	z_stream z;
	bool raw; /* z began inside a member */
	bool between; /* members */
	bool at_block; /* all of one block has been made, and told of */
	uint64_t want_at;
	uint8_t window[WINDOW_BYTES];
};

static bool probe(const uint8_t *head, size_t bytes)
{
	return bytes >= HEAD_MIN && !memcmp(head, "\x1f\x8b\x08", 3) &&
	       !(head[3] & 0xe0);
}

static int need(struct error *err)
{
	return codec_lib_load(LIB_ZLIB)
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "zlib is needed to read this, and not "
				   "installed");
}

/* ---- BGZF ---- */

/* The size of the member that begins so; 0: it does not say. */
static uint32_t bgzf_bytes(const uint8_t *head)
{
	struct cursor c = { .buf = head, .len = HEAD_MIN };

	if (memcmp(head, "\x1f\x8b\x08\x04", 4) ||
	    cursor_le16_at(&c, 10) != 6 || head[12] != 'B' || head[13] != 'C' ||
	    cursor_le16_at(&c, 14) != 2)
		return 0;
	return cursor_le16_at(&c, 16) + 1U;
}

/* All members of @s, if each says its size. As look(). */
static int look_bgzf(struct stream *s, struct stream_in *in, struct error *err)
{
	struct checkpoint ck = { 0 };
	struct cursor tail = { .len = 4 };
	uint32_t bytes;
	int r;

	for (;;) {
		r = stream_in_need(in, HEAD_MIN, err);
		if (r < 0)
			return r;
		if (stream_in_ended(in))
			break;
		if (stream_in_have(in) < HEAD_MIN)
			return 0;
		bytes = bgzf_bytes(stream_in_at(in));
		r = bytes < HEAD_MIN + TAIL_BYTES
			    ? 0
			    : stream_in_need(in, bytes, err);
		if (r < 0)
			return r;
		if (bytes < HEAD_MIN + TAIL_BYTES || stream_in_have(in) < bytes)
			return 0;
		tail.buf = stream_in_at(in) + bytes - 4;
		ck.in = in->off;
		r = stream_index_add(&s->index, &ck, err);
		if (r < 0)
			return r;
		ck.out += cursor_le32_at(&tail, 0);
		stream_in_take(in, bytes);
	}
	s->base.bytes = ck.out;
	s->was_dear = true;
	return 1;
}

static int look(struct stream *s, struct error *err)
{
	struct stream_in in = { .src = s->src, .end = s->src->bytes };
	int r;

	s->decoder_bytes = DECODER_BYTES + sizeof(struct gzip);
	r = look_bgzf(s, &in, err);
	stream_in_done(&in);
	if (!r)
		stream_index_done(&s->index);
	return r;
}

/* Of the last member, if nothing follows it. */
static bool hint(struct stream *s, uint64_t *ret, unsigned int *ret_bits)
{
	uint32_t size = 0;

	if (source_read(s->src, &size, sizeof(size),
			s->src->bytes - sizeof(size), NULL) < 0)
		return false;
	*ret = le32toh(size);
	*ret_bits = 32;
	return true;
}

/* ---- decoding ---- */

static int begin_block(struct decoder *d, struct gzip *g,
		       const struct checkpoint *from, struct error *err)
{
	uint32_t bits = from->state & STATE_BITS, n = 0;
	int r;

	stream_in_seek(&d->in, from->in - (bits ? 1 : 0));
	r = checkpoint_window(from, g->window, WINDOW_BYTES, &n, err);
	if (r >= 0 && bits)
		r = stream_in_need(&d->in, 1, err);
	if (r < 0)
		return r;
	if (zlib.inflateReset2(&g->z, -MAX_WBITS) != Z_OK ||
	    (bits && !stream_in_have(&d->in)))
		return decoder_cut(d, err);
	if (bits) {
		zlib.inflatePrime(&g->z, (int)bits,
				  *stream_in_at(&d->in) >> (8 - bits));
		stream_in_take(&d->in, 1);
	}
	if (n && zlib.inflateSetDictionary(&g->z, g->window, n) != Z_OK)
		return error_set(err, -ENOMEM, 0, "out of memory");
	g->raw = true;
	g->between = false;
	return 0;
}

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	struct gzip *g = d->state;

	if (!g) {
		g = calloc(1, sizeof(*g));
		if (!g || zlib.inflateInit2_(&g->z, MEMBER_BITS, ZLIB_VERSION,
					     sizeof(g->z)) != Z_OK) {
			free(g);
			return error_set(err, -ENOMEM, 0, "out of memory");
		}
		d->state = g;
	}
	g->at_block = true;
	g->want_at = 0;
	if (from->state & STATE_BLOCK)
		return begin_block(d, g, from, err);
	g->between = true;
	stream_in_seek(&d->in, from->in);
	return 0;
}

/* Zeroes up to the end. *ret: is it so? */
static int is_padding(struct decoder *d, bool *ret, struct error *err)
{
	int r = 0;

	*ret = true;
	while (*ret && r >= 0 && !stream_in_ended(&d->in)) {
		r = stream_in_need(&d->in, 1, err);
		if (r < 0)
			return r;
		*ret = is_all_zero(stream_in_at(&d->in),
				   stream_in_have(&d->in));
		if (*ret)
			stream_in_take(&d->in, stream_in_have(&d->in));
	}
	return r;
}

/* Between two members. Sets *ret_end where there is none more. */
static int next_member(struct decoder *d, struct gzip *g, bool *ret_end,
		       struct error *err)
{
	int r = stream_in_need(&d->in, HEAD_MIN, err);

	*ret_end = false;
	if (r < 0)
		return r;
	if (!probe(stream_in_at(&d->in), stream_in_have(&d->in))) {
		r = is_padding(d, ret_end, err);
		return r < 0 || *ret_end
			       ? r
			       : decoder_damaged(d, "no gzip member", err);
	}
	r = decoder_pass(d, d->in.off, 0, err);
	if (r >= 0 && zlib.inflateReset2(&g->z, MEMBER_BITS) != Z_OK)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	g->raw = g->between = false;
	return r;
}

/* The member has ended. One begun in its middle has a tail that is unread. */
static int end_member(struct decoder *d, struct gzip *g, struct error *err)
{
	int r = 0;

	g->between = true;
	if (!g->raw)
		return 0;
	r = stream_in_need(&d->in, TAIL_BYTES, err);
	if (r >= 0 && stream_in_have(&d->in) < TAIL_BYTES)
		return decoder_cut(d, err);
	if (r >= 0)
		stream_in_take(&d->in, TAIL_BYTES);
	return r;
}

/* Between two blocks, of which nothing is left in the decoder. */
static int pass_block(struct decoder *d, struct gzip *g, struct error *err)
{
	uint32_t bits = (uint32_t)g->z.data_type & STATE_BITS;
	uint32_t state = STATE_BLOCK | bits;
	uInt n = 0;

	g->at_block = true;
	if (!d->noting || d->out < g->want_at)
		return d->noting ? 0 : decoder_pass(d, d->in.off, state, err);
	if (zlib.inflateGetDictionary(&g->z, g->window, &n) != Z_OK)
		return 0;
	return decoder_pass_window(d, d->in.off, state, g->window, n,
				   &g->want_at, err);
}

/* One call of zlib. */
static int inflate_some(struct decoder *d, struct gzip *g, uint8_t *out,
			size_t len, size_t *ret, struct error *err)
{
	size_t have;
	int r = stream_in_need(&d->in, 1, err), code;

	if (r < 0)
		return r;
	have = stream_in_have(&d->in);
	g->z.next_in = (Bytef *)(uintptr_t)stream_in_at(&d->in);
	g->z.avail_in = (uInt)have;
	g->z.next_out = out;
	g->z.avail_out = (uInt)len;
	code = zlib.inflate(&g->z, Z_BLOCK);
	stream_in_take(&d->in, have - g->z.avail_in);
	*ret = len - g->z.avail_out;
	g->at_block = false;
	if (code == Z_STREAM_END)
		return end_member(d, g, err);
	if (code == Z_MEM_ERROR)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (code != Z_OK && code != Z_BUF_ERROR)
		return decoder_damaged(d, g->z.msg ? g->z.msg : "damaged", err);
	if (have == g->z.avail_in && !*ret && !have)
		return decoder_cut(d, err);
	return 0;
}

/* Is zlib between two blocks, neither of which is the last one's end? */
static bool is_between_blocks(const struct gzip *g)
{
	return !g->between && !g->at_block && (g->z.data_type & 128) &&
	       !(g->z.data_type & 64);
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	struct gzip *g = d->state;
	bool end = false;
	int r = 0;

	*ret = 0;
	while (r >= 0 && !*ret && !end) {
		if (g->between)
			r = next_member(d, g, &end, err);
		else if (is_between_blocks(g))
			r = pass_block(d, g, err);
		if (r >= 0 && !end)
			r = inflate_some(d, g, out, len, ret, err);
	}
	return r;
}

static void stop(struct decoder *d)
{
	struct gzip *g = d->state;

	if (g)
		zlib.inflateEnd(&g->z);
	free(g);
}

const struct stream_ops stream_gzip = {
	.name = "gzip",
	.what = "a gzip stream",
	.probe = probe,
	.need = need,
	.look = look,
	.hint = hint,
	.start = start,
	.step = step,
	.stop = stop,
};
