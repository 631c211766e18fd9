/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams as sources: which form, and the pieces that are read of them. */
#include <errno.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/format.h"
#include "formats/streams/kept.h"
#include "formats/streams/pass.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

static const struct stream_ops *const forms[] = {
	&stream_gzip, &stream_xz, &stream_zstd, &stream_lz4, &stream_bzip2,
};

#define HEAD_BYTES	 4096U
/* Who reads so much at once is a copier; where each piece can be decoded for itself
 * it costs little if he is none. */
#define BULK_BYTES	 (512U << 10)
#define BULK_TABLE_BYTES (256U << 10)

const struct stream_ops *stream_probe(const uint8_t *head, size_t bytes)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i]->probe(head, bytes))
			return forms[i];
	return NULL;
}

/* ---- the source ---- */

static struct stream *stream_of(const struct source *s)
{
	return container_of(s, struct stream, base);
}

static void stream_free(struct stream *s)
{
	if (!s)
		return;
	pass_end(s);
	stream_forget(s);
	if (atomic_load(&s->index.wrong))
		kept_drop(s);
	stream_index_done(&s->index);
	source_unref(s->src);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s->form);
	free(s);
}

static void stream_freep(struct stream **s)
{
	stream_free(*s);
}

static void free_source(struct source *s)
{
	stream_free(stream_of(s));
}

/* Of a range that is being decoded waits for that. */
static int decode(struct stream *s, uint64_t at, void *buf, size_t len)
{
	int r = pass_await(s, at, buf, len);

	if (!r)
		r = stream_decode(s, at, buf, len, NULL);
	return r == -EBADMSG ? -EIO : r;
}

/* A piece that this thread has claimed. */
static int fill(struct stream *s, struct cache_blob *b, uint64_t at, size_t len)
{
	uint8_t *block = cache_block(len);
	int r = block ? decode(s, at, block, len) : -EAGAIN;

	if (r >= 0) {
		cache_fill_block(b, block, len);
		return 0;
	}
	/* That nobody waits here does not concern those who wait elsewhere. */
	cache_fail(b, r == -ECANCELED ? -EAGAIN : r);
	cache_block_free(block, len);
	return r;
}

/* There is no room for the piece: what is wanted of it alone. */
static ssize_t read_unkept(struct stream *s, void *buf, size_t len,
			   uint64_t off)
{
	int r = decode(s, off, buf, len);

	return r < 0 ? r : (ssize_t)len;
}

static bool is_hole(struct stream *s, uint64_t off, uint64_t len)
{
	uint64_t here;
	bool hole;

	return s->ops->find_hole &&
	       !s->ops->find_hole(s, off, len, &hole, &here) && hole &&
	       here == len;
}

/* Has the piece kept, or waits for who does. Returns 0, its blob held, or a
 * negative errno: -EAGAIN: there is no room for it. */
static int keep(struct stream *s, const struct cache_key *key, uint64_t at,
		size_t bytes, struct cache_blob **ret)
{
	int r = 0;

	switch (cache_get(key, ret)) {
	case CACHE_HIT:
		break;
	case CACHE_CLAIMED:
		r = fill(s, *ret, at, bytes);
		break;
	case CACHE_BUSY:
		r = cache_wait(*ret);
		break;
	}
	if (r >= 0 && (*ret)->bytes != bytes)
		r = -EAGAIN;
	if (r < 0)
		cache_put(*ret);
	return r;
}

/*
 * Who reads so much copies the disk, and is done with it: nothing is kept, and
 * what others keep stays.
 */
static ssize_t read_bulk(struct stream *s, void *buf, size_t len, uint64_t off)
{
	if (off + len < s->base.bytes)
		len = (size_t)round_down(len, s->piece_bytes);
	return read_unkept(s, buf, len, off);
}

/* As much of the piece as is wanted of it, or of many. */
static ssize_t read_some(struct source *src, void *buf, size_t len,
			 uint64_t off)
{
	struct stream *s = stream_of(src);
	uint64_t at = round_down(off, s->piece_bytes);
	uint64_t readable = pass_readable(s);
	size_t bytes = (size_t)min_u64(s->piece_bytes,
				       readable - min_u64(at, readable));
	struct cache_key key = { .owner = src->id, .at = at / s->piece_bytes };
	struct cache_blob *b;
	size_t n;
	int r = 0;

	if (off - at >= bytes)
		return -EIO;
	n = min_size(len, bytes - (size_t)(off - at));
	if (!cache_peek(&key, &b)) {
		if (is_hole(s, off, n)) {
			memset(buf, 0, n);
			return (ssize_t)n;
		}
		if (off == at &&
		    len >= (s->ops->find ? BULK_TABLE_BYTES : BULK_BYTES))
			return read_bulk(s, buf, len, off);
		r = keep(s, &key, at, bytes, &b);
		/* What is wrong may be wrong with the rest of the piece. */
		if (r == -EAGAIN || (r == -EIO && s->pass))
			return read_unkept(s, buf, n, off);
	}
	if (r < 0)
		return r;
	memcpy(buf, (uint8_t *)b->data + (off - at), n);
	cache_put(b);
	return (ssize_t)n;
}

/* Of what the cache has, all or nothing. */
static int read_now(struct source *src, void *buf, size_t len, uint64_t off)
{
	struct stream *s = stream_of(src);
	struct cache_blob *b;
	size_t in, n, done;

	if (pass_look(s, off, len, NULL) < 0)
		return -EAGAIN;
	for (done = 0; done < len; done += n) {
		struct cache_key key = { .owner = src->id,
					 .at = (off + done) / s->piece_bytes };

		in = (size_t)((off + done) % s->piece_bytes);
		n = min_size(len - done, s->piece_bytes - in);
		if (!cache_peek(&key, &b))
			return -EAGAIN;
		memcpy((uint8_t *)buf + done, (uint8_t *)b->data + in, n);
		cache_put(b);
	}
	return 0;
}

static int find_hole(struct source *src, uint64_t off, uint64_t len,
		     bool *ret_hole, uint64_t *ret_len)
{
	struct stream *s = stream_of(src);

	if (s->ops->find_hole)
		return s->ops->find_hole(s, off, len, ret_hole, ret_len);
	*ret_hole = false;
	*ret_len = len;
	return 0;
}

/* Decodes once more, as who reads has no place for words. */
static void explain(struct source *src, uint64_t off, uint64_t len,
		    struct error *err)
{
	struct stream *s = stream_of(src);
	CLEANUP(freep) uint8_t *piece = malloc(s->piece_bytes);
	uint64_t at = round_down(off, s->piece_bytes);
	int r = piece ? pass_look(s, off, len, err) : -ENOMEM;

	for (; r >= 0 && at < off + len; at += s->piece_bytes)
		r = stream_decode(
			s, at, piece,
			(size_t)min_u64(s->piece_bytes, pass_readable(s) - at),
			err);
	if (r == -EBADMSG)
		err->code = -EIO;
}

/* What is decoded for it, where a table tells. */
static void prefetch(struct source *src, uint64_t off, uint64_t len)
{
	struct stream *s = stream_of(src);
	struct checkpoint from, to;
	uint64_t end;

	len = min_u64(len, src->bytes - min_u64(off, src->bytes));
	if (!len || !s->ops->find || s->ops->find(s, off, &from, NULL) < 0 ||
	    s->ops->find(s, off + len - 1, &to, NULL) < 0)
		return;
	/* The last one is about as long as what comes of it. */
	end = min_u64(to.in + s->piece_bytes, s->src->bytes);
	if (from.in < end)
		source_prefetch(s->src, from.in, end - from.in);
}

static const struct source_ops stream_source_ops = {
	.name = "stream",
	.pread = read_some,
	.nested = true,
	.read_now = read_now,
	.find_hole = find_hole,
	.explain = explain,
	.prefetch = prefetch,
	.free = free_source,
};

bool source_is_stream(const struct source *src)
{
	return src->root->ops == &stream_source_ops;
}

const struct source *stream_bottom(const struct source *src)
{
	while (source_is_stream(src))
		src = stream_of(src->root)->src;
	return src;
}

/* ---- opening ---- */

/* What something that it begins with tells of its size; 0: nothing. */
static uint64_t told_bytes(struct stream *s, const struct stream_options *o)
{
	CLEANUP(freep) uint8_t *head = malloc(STREAM_HEAD_BYTES);
	unsigned int bits = 0;
	uint64_t hint = 0;
	size_t n = pass_head(s);

	if (!head || !n || stream_decode(s, 0, head, n, NULL) < 0)
		return 0;
	if (s->ops->hint && !s->ops->hint(s, &hint, &bits))
		bits = 0;
	return o->told(o->opaque, head, n, hint, bits);
}

/* By a pass, which goes on behind who reads it where its size is told. */
static int make_by_pass(struct stream *s, const struct stream_options *o,
			const struct kept_key *key, struct error *err)
{
	bool may_go_on = o->told && s->src->bytes >= STREAM_LATER_BYTES;
	int r = pass_begin(s, key, err);
	uint64_t told = 0;

	if (r >= 0 && may_go_on)
		told = told_bytes(s, o);
	if (r < 0 || !told || told > STREAM_BYTES_MAX)
		return r < 0 ? r : pass_finish(s, err);
	s->base.bytes = told;
	s->base.end_unknown = true;
	pass_go_on(s, o->sure);
	return 0;
}

/* As it was kept, by the form's tables, or by a pass. */
static int make_index(struct stream *s, const struct stream_options *o,
		      struct error *err)
{
	struct kept_key key;
	bool keep = kept_key(s, &key);
	int r;

	if (keep && kept_load(s, &key))
		return 0;
	r = s->ops->look ? s->ops->look(s, err) : 0;
	if (!r)
		return make_by_pass(s, o, keep ? &key : NULL, err);
	if (r >= 0 && keep && s->was_dear)
		kept_save(s, &key, s->base.bytes);
	return r;
}

static struct stream *stream_new(struct source *src,
				 const struct stream_ops *ops,
				 const struct stream_options *o)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	source_init(&s->base, &stream_source_ops, 0);
	pthread_mutex_init(&s->lock, NULL);
	s->ops = ops;
	s->src = source_ref(src);
	s->level = source_is_stream(src) ? stream_of(src->root)->level + 1 : 0;
	s->piece_bytes = STREAM_PIECE_BYTES;
	s->ratio_max = o->ratio_max;
	s->path = o->path ? strdup(o->path) : NULL;
	return s;
}

int stream_open(struct source *src, const struct stream_ops *ops,
		const struct stream_options *o, struct source **ret,
		struct error *err)
{
	CLEANUP(stream_freep) struct stream *s = NULL;
	int r = ops->need(err);

	if (r < 0)
		return r;
	s = stream_new(src, ops, o);
	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (s->level > STREAM_DEPTH_MAX)
		return error_set(err, -EFBIG, 0,
				 "over %u streams in each other, which is the "
				 "limit",
				 STREAM_DEPTH_MAX);
	r = make_index(s, o, err);
	if (r >= 0)
		r = stream_check_bytes(s->base.bytes, err);
	if (r < 0)
		return r;
	*ret = &TAKE_PTR(s)->base;
	return 0;
}

/* A disk could begin so, too: a guest writes what it likes into its own. Returns 1:
 * it is a disk that begins with data, and no stream. */
static int check_no_disk(const struct stream_ops *ops, struct source *src,
			 bool sure, const uint8_t *head, size_t bytes,
			 struct error *err)
{
	const struct format_ops *format = NULL;
	const char *other = NULL;
	int r = format_probe(src, &format, sure ? NULL : err);

	if (r >= 0 && format->told_behind)
		return 1;
	if (sure)
		return 0;
	if (bytes >= 512 && head[510] == 0x55 && head[511] == 0xaa)
		other = "a disk with a boot sector";
	else if (bytes >= 520 && !memcmp(head + 512, "EFI PART", 8))
		other = "a disk with a GPT";
	else if (r < 0)
		return r;
	else if (strcmp(format->name, "raw") != 0)
		other = format->name;
	return other ? error_set(err, -EBADMSG, 0,
				 "looks like %s and like %s: give %s",
				 ops->what, other,
				 AS_GIVEN("format=", "--format"))
		     : 0;
}

int stream_peel(struct source **src, const struct stream_options *o,
		unsigned int *depth, struct error *err)
{
	CLEANUP(freep) uint8_t *head = malloc(HEAD_BYTES);
	const struct stream_ops *ops = NULL;
	struct source *inner;
	size_t bytes;
	int r = head ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	while (r >= 0) {
		bytes = (size_t)min_u64((*src)->bytes, HEAD_BYTES);
		r = source_read(*src, head, bytes, 0, err);
		ops = r < 0 ? NULL : stream_probe(head, bytes);
		if (!ops)
			break;
		r = check_no_disk(ops, *src, o->sure, head, bytes, err);
		if (r == 1)
			return 0;
		if (r >= 0 && ++*depth > STREAM_DEPTH_MAX)
			return error_set(err, -EFBIG, 0,
					 "over %u streams and containers in "
					 "each other, which is the limit",
					 STREAM_DEPTH_MAX);
		if (r >= 0)
			r = stream_open(*src, ops, o, &inner, err);
		if (r < 0)
			break;
		source_unref(*src);
		*src = inner;
	}
	return r;
}
