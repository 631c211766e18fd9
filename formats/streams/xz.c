/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xz: "The .xz File Format", version 1.2.0. Streams one after the other, with
 * padding between them, each of blocks and, at its end, an index of them: all is
 * known without a pass. Decoding can begin where a block does. liblzma checks
 * the checksums of what is decoded from there to the block's end.
 *
 * A file of one block, as xz makes them without -T and --block-size, is decoded
 * in its order: who reads on finds the decoder where it stands, who goes back
 * begins anew.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

#define INDEX_MEMORY_MAX (16ULL << 20) /* liblzma's own, while it is read */
#define STATE_CHECK	 0xfU /* of checkpoints: the stream's kind of check */

/* Of a raw decoder: its input buffer and the like. */
#define BLOCK_MEMORY_BYTES (128U << 10)

struct xz {
	lzma_stream z;
	lzma_block block;
	lzma_filter filters[LZMA_FILTERS_MAX + 1];
	uint32_t check; /* of the stream that is read */
	bool in_block;
};

static bool probe(const uint8_t *head, size_t bytes)
{
	return bytes >= 12 && !memcmp(head,
				      "\xfd"
				      "7zXZ\0",
				      6);
}

static int need(struct error *err)
{
	return codec_lib_load(LIB_XZ)
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "liblzma is needed to read this, and not "
				   "installed");
}

/* ---- the index ---- */

static int index_failed(lzma_ret code, uint64_t at, struct error *err)
{
	switch (code) {
	case LZMA_MEM_ERROR:
		return error_set(err, -ENOMEM, 0, "out of memory");
	case LZMA_MEMLIMIT_ERROR:
		return error_set(err, -EFBIG, at,
				 "an xz stream: its index takes more than "
				 "%llu bytes of memory, which is the limit",
				 INDEX_MEMORY_MAX);
	case LZMA_OPTIONS_ERROR:
		return error_set(err, -ENOTSUP, at,
				 "an xz stream: of an unknown version");
	default:
		return error_set(err, -EBADMSG, at,
				 "an xz stream: its index, near byte %llu, is "
				 "damaged or cut off",
				 (unsigned long long)at);
	}
}

/* All indexes of the file, as one. */
static int read_index(struct stream_in *in, lzma_stream *z, lzma_index **ret,
		      struct error *err)
{
	lzma_ret code = xz.file_info_decoder(z, ret, INDEX_MEMORY_MAX, in->end);
	size_t have;
	int r;

	while (code == LZMA_OK || code == LZMA_SEEK_NEEDED) {
		if (code == LZMA_SEEK_NEEDED)
			stream_in_seek(in, min_u64(z->seek_pos, in->end));
		r = stream_in_need(in, 1, err);
		if (r < 0)
			return r;
		have = stream_in_have(in);
		z->next_in = stream_in_at(in);
		z->avail_in = have;
		code = xz.code(z, stream_in_ended(in) ? LZMA_FINISH : LZMA_RUN);
		stream_in_take(in, have - z->avail_in);
	}
	return code == LZMA_STREAM_END ? 0 : index_failed(code, in->off, err);
}

static int take_blocks(struct stream *s, const lzma_index *index,
		       struct error *err)
{
	struct checkpoint ck = { 0 };
	lzma_vli stream = 0;
	lzma_index_iter i;
	int r = 0;

	s->base.bytes = xz.index_uncompressed_size(index);
	r = stream_check_bytes(s->base.bytes, err);
	xz.index_iter_init(&i, index);
	while (r >= 0 &&
	       !xz.index_iter_next(&i, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
		ck.in = i.block.compressed_file_offset;
		ck.out = i.block.uncompressed_file_offset;
		ck.state = (uint32_t)i.stream.flags->check & STATE_CHECK;
		if (i.stream.number != stream)
			ck.state |= CHECKPOINT_STAYS;
		stream = i.stream.number;
		r = stream_index_add(&s->index, &ck, err);
	}
	return r;
}

/* ---- blocks ---- */

/* The header at d->in, of @bytes. -EFBIG: it asks for too much memory. */
static int take_header(struct decoder *d, struct xz *x, uint64_t *ret_memory,
		       struct error *err)
{
	lzma_ret code;
	int r = stream_in_need(&d->in, LZMA_BLOCK_HEADER_SIZE_MAX, err);

	if (r < 0)
		return r;
	x->block = (lzma_block){ .version = 1,
				 .check = (lzma_check)x->check,
				 .filters = x->filters };
	x->filters[0].id = LZMA_VLI_UNKNOWN;
	if (!stream_in_have(&d->in) || !*stream_in_at(&d->in))
		return decoder_damaged(d, "no block is there", err);
	x->block.header_size =
		lzma_block_header_size_decode(*stream_in_at(&d->in));
	if (x->block.header_size > stream_in_have(&d->in))
		return decoder_damaged(d, "it ends early", err);
	code = xz.block_header_decode(&x->block, NULL, stream_in_at(&d->in));
	if (code != LZMA_OK)
		return decoder_damaged(d, "the header of a block", err);
	*ret_memory = xz.raw_decoder_memusage(x->filters);
	r = *ret_memory == UINT64_MAX
		    ? error_set(err, -ENOTSUP, d->in.off,
				"an xz stream: of unknown filters")
		    : stream_check_memory(d->s,
					  *ret_memory + BLOCK_MEMORY_BYTES,
					  "an xz stream", err);
	if (r < 0)
		xz.filters_free(x->filters, NULL);
	else
		stream_in_take(&d->in, x->block.header_size);
	return r;
}

/* What the first block wants; others may want as much and no more. */
static int look_at_block(struct stream *s, struct error *err)
{
	struct decoder d = { .s = s,
			     .in = { .src = s->src, .end = s->src->bytes } };
	struct xz x = { .check = s->index.list[0].state & STATE_CHECK };
	uint64_t memory = 0;
	int r;

	stream_in_seek(&d.in, s->index.list[0].in);
	r = take_header(&d, &x, &memory, err);
	stream_in_done(&d.in);
	if (r < 0)
		return r;
	xz.filters_free(x.filters, NULL);
	s->decoder_bytes = memory + BLOCK_MEMORY_BYTES;
	return 0;
}

static int look(struct stream *s, struct error *err)
{
	struct stream_in in = { .src = s->src, .end = s->src->bytes };
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_index *index = NULL;
	int r = read_index(&in, &z, &index, err);

	xz.end(&z);
	stream_in_done(&in);
	if (r >= 0)
		r = take_blocks(s, index, err);
	if (index)
		xz.index_end(index, NULL);
	if (r >= 0 && s->index.n)
		r = look_at_block(s, err);
	return r < 0 ? r : 1;
}

/* ---- decoding ---- */

static int begin_block(struct decoder *d, struct xz *x, struct error *err)
{
	uint64_t memory = 0;
	lzma_ret code;
	int r = decoder_pass(d, d->in.off, x->check, err);

	if (r >= 0)
		r = take_header(d, x, &memory, err);
	if (r < 0)
		return r;
	if (memory + BLOCK_MEMORY_BYTES > d->s->decoder_bytes)
		r = error_set(err, -EFBIG, d->in.off,
			      "an xz stream: a block wants more memory than "
			      "the first");
	code = r < 0 ? LZMA_OK : xz.block_decoder(&x->z, &x->block);
	xz.filters_free(x->filters, NULL);
	if (r < 0)
		return r;
	x->in_block = code == LZMA_OK;
	return x->in_block
		       ? 0
		       : error_set(err, -ENOMEM, 0, "an xz stream: no decoder");
}

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	static const lzma_stream fresh = LZMA_STREAM_INIT;
	struct xz *x = d->state;

	if (!x) {
		x = calloc(1, sizeof(*x));
		if (!x)
			return error_set(err, -ENOMEM, 0, "out of memory");
		x->z = fresh;
		d->state = x;
	}
	x->check = from->state & STATE_CHECK;
	x->in_block = false;
	stream_in_seek(&d->in, from->in);
	return 0;
}

/*
 * The stream's index is where a block could be: on to the first block of the next
 * one, which our index has. *ret_end: there is none.
 */
static int next_stream(struct decoder *d, struct xz *x, bool *ret_end,
		       struct error *err)
{
	const struct stream_index *index = &d->s->index;
	size_t i = stream_index_find(index, d->out);

	*ret_end = d->out == d->s->base.bytes;
	if (*ret_end)
		return 0;
	if (index->list[i].out != d->out || index->list[i].in <= d->in.off)
		return decoder_damaged(d, "its index tells of another block",
				       err);
	stream_in_seek(&d->in, index->list[i].in);
	x->check = index->list[i].state & STATE_CHECK;
	return 0;
}

static int next_block(struct decoder *d, struct xz *x, bool *ret_end,
		      struct error *err)
{
	int r = stream_in_need(&d->in, 1, err);

	*ret_end = false;
	if (r >= 0 && (stream_in_ended(&d->in) || !*stream_in_at(&d->in)))
		r = next_stream(d, x, ret_end, err);
	return r < 0 || *ret_end ? r : begin_block(d, x, err);
}

static int decode_some(struct decoder *d, struct xz *x, uint8_t *out,
		       size_t len, size_t *ret, struct error *err)
{
	size_t have;
	lzma_ret code;
	int r = stream_in_need(&d->in, 1, err);

	if (r < 0)
		return r;
	have = stream_in_have(&d->in);
	x->z.next_in = stream_in_at(&d->in);
	x->z.avail_in = have;
	x->z.next_out = out;
	x->z.avail_out = len;
	code = xz.code(&x->z, LZMA_RUN);
	stream_in_take(&d->in, have - x->z.avail_in);
	*ret = len - x->z.avail_out;
	x->in_block = code != LZMA_STREAM_END;
	if (code == LZMA_MEM_ERROR)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (code != LZMA_OK && code != LZMA_STREAM_END)
		return decoder_damaged(
			d, have ? "its data are damaged" : "it ends early",
			err);
	return 0;
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	struct xz *x = d->state;
	bool end = false;
	int r = 0;

	*ret = 0;
	while (r >= 0 && !*ret && !end) {
		if (!x->in_block)
			r = next_block(d, x, &end, err);
		if (r >= 0 && !end)
			r = decode_some(d, x, out, len, ret, err);
	}
	return r;
}

static void stop(struct decoder *d)
{
	struct xz *x = d->state;

	if (x)
		xz.end(&x->z);
	free(x);
}

const struct stream_ops stream_xz = {
	.name = "xz",
	.what = "an xz stream",
	.probe = probe,
	.need = need,
	.look = look,
	.start = start,
	.step = step,
	.stop = stop,
};
