/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/codec/encoder.h"
#include "formats/overlay/qcow2-sink.h"

/* A cluster of a chunk. */
struct cluster {
	struct qcow2_piece piece;
	const uint8_t *data; /* NULL: zeroes, nothing to write */
};

/* What one thread has. */
struct thread {
	struct encoder *encoder; /* NULL: nothing is compressed */
	uint8_t *packed; /* a chunk's clusters, compressed */
	size_t n; /* of clusters */
	struct cluster clusters[];
};

static void thread_free(void *thread)
{
	struct thread *t = thread;

	if (!t)
		return;
	encoder_free(t->encoder);
	free(t->packed);
	free(t);
}

static int thread_new(struct copy_sink *sink, void **ret, struct error *err)
{
	struct qcow2_sink *s = container_of(sink, struct qcow2_sink, sink);
	size_t n = COPY_CHUNK_BYTES >> s->cluster_bits;
	struct thread *t = calloc(1, sizeof(*t) + n * sizeof(*t->clusters));
	int r = 0;

	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (s->compress) {
		t->packed = malloc(COPY_CHUNK_BYTES);
		r = t->packed
			    ? encoder_new(s->codec, s->level, &t->encoder, err)
			    : error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r < 0)
		thread_free(t);
	else
		*ret = t;
	return r;
}

/*
 * Compresses a cluster to @out, as large as one, and fills that up to what can be
 * written. 0: that is not worth it.
 */
static size_t pack(const struct qcow2_sink *s, struct thread *t,
		   const uint8_t *data, uint8_t *out)
{
	size_t unit = s->sink.unit_bytes, bytes, whole;

	bytes = encoder_run(t->encoder, data, unit, out, unit - 1);
	whole = (size_t)round_up(bytes, s->dst->align);
	if (whole >= unit)
		return 0;
	memset(out + bytes, 0, whole - bytes);
	return whole;
}

/* Compresses what is worth it; the last cluster of the disk is a whole one. */
static int prepare(struct copy_sink *sink, struct copy_chunk *c,
		   struct error *err)
{
	struct qcow2_sink *s = container_of(sink, struct qcow2_sink, sink);
	size_t unit = sink->unit_bytes, at, used = 0;
	struct thread *t = c->thread;

	t->n = 0;
	for (at = 0; at < c->len; at += unit) {
		struct cluster *k = &t->clusters[t->n++];
		const uint8_t *data = c->buf + at;
		size_t bytes = 0;

		*k = (struct cluster){ 0 };
		k->piece.zero = is_all_zero(data, unit);
		if (k->piece.zero)
			continue;
		if (t->encoder)
			bytes = pack(s, t, data, t->packed + used);
		k->piece.bytes = (uint32_t)bytes;
		k->data = bytes ? t->packed + used : data;
		used += bytes;
	}
	return 0;
}

static int place(struct copy_sink *sink, struct copy_chunk *c,
		 struct error *err)
{
	struct qcow2_sink *s = container_of(sink, struct qcow2_sink, sink);
	struct thread *t = c->thread;
	size_t i;
	int r = 0;

	for (i = 0; i < t->n && r >= 0; i++)
		if (t->clusters[i].data || s->has_base)
			r = qcow2_create_place(s->file,
					       c->off + i * sink->unit_bytes,
					       &t->clusters[i].piece, err);
	return r;
}

/* What lies side by side, here and in the file, is one write. */
static int write_clusters(struct copy_sink *sink, struct copy_chunk *c,
			  struct error *err)
{
	struct qcow2_sink *s = container_of(sink, struct qcow2_sink, sink);
	struct thread *t = c->thread;
	const uint8_t *data = NULL;
	uint64_t off = 0;
	size_t len = 0, i;
	int r = 0;

	for (i = 0; i < t->n && r >= 0; i++) {
		const struct cluster *k = &t->clusters[i];
		size_t bytes =
			k->piece.bytes ? k->piece.bytes : sink->unit_bytes;

		if (!k->data)
			continue;
		if (len &&
		    (k->data != data + len || k->piece.host_off != off + len)) {
			r = s->dst->write(s->dst, data, len, off, err);
			len = 0;
		}
		if (!len) {
			data = k->data;
			off = k->piece.host_off;
		}
		len += bytes;
	}
	return r < 0 || !len ? r : s->dst->write(s->dst, data, len, off, err);
}

int qcow2_sink_init(struct qcow2_sink *s, struct qcow2_dst *dst, uint64_t bytes,
		    uint32_t cluster_bits, bool compress, enum codec codec,
		    int level, struct error *err)
{
	*s = (struct qcow2_sink){
		.sink = { .unit_bytes = (size_t)1 << cluster_bits,
			  .thread_new = thread_new,
			  .thread_free = thread_free,
			  .prepare = prepare,
			  .place = place,
			  .write = write_clusters },
		.dst = dst,
		.cluster_bits = cluster_bits,
		.compress = compress,
		.codec = codec,
		.level = level,
	};
	return qcow2_create_new(dst, bytes, cluster_bits, codec, &s->file, err);
}

int qcow2_sink_set_base(struct qcow2_sink *s, const char *name,
			const char *format, struct error *err)
{
	s->has_base = true;
	return qcow2_create_set_base(s->file, name, format, err);
}

void qcow2_sink_done(struct qcow2_sink *s)
{
	qcow2_create_free(s->file);
}
