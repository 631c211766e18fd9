/* SPDX-License-Identifier: BSD-3-Clause */
/* Where what an overlay's guest sees lies: in its file, or below. */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-guest.h"
#include "iouring/nowait.h"

static bool continues(const struct qcow2_file *o,
		      const struct qcow2_answer *first,
		      const struct qcow2_answer *next, uint64_t clusters)
{
	if (next->kind != first->kind || first->kind == EXTENT_COMPRESSED)
		return false;
	return first->kind != EXTENT_DATA ||
	       next->host_off ==
		       first->host_off + (clusters << o->cluster_bits);
}

/* The entry of @off, which table @t maps. */
static const uint8_t *raw_entry(const struct qcow2_file *o,
				const struct page_set *t, uint64_t off)
{
	uint64_t mask = (1ULL << o->l2_bits) - 1;

	return t->buf + (off >> o->cluster_bits & mask) * o->s->l2_entry_bytes;
}

int lookup_answer(const struct qcow2_file *o, const struct page_set *t,
		  uint64_t off, struct qcow2_answer *ret, struct error *err)
{
	int r = qcow2_decode_entry(o->s, raw_entry(o, t, off), off, ret, err);

	if (r >= 0 && ret->kind == EXTENT_DATA &&
	    ret->host_off >> o->cluster_bits >= o->end)
		r = error_set(err, -EBADMSG, 0,
			      "cluster at %" PRIu64
			      " lies behind the file's end",
			      ret->host_off);
	return r;
}

static void fill_extent(const struct qcow2_file *o,
			const struct qcow2_answer *a, uint64_t off,
			uint64_t run, struct extent *ret)
{
	struct extent e = { .kind = (uint8_t)a->kind, .len = run };

	if (a->kind == EXTENT_DATA) {
		e.src = o->src;
		e.host_off = a->host_off + in_cluster(o, off);
	} else if (a->kind == EXTENT_COMPRESSED) {
		e.src = o->src;
		e.host_off = a->host_off;
		e.comp_bytes = a->comp_bytes;
		e.unit_bytes = (uint32_t)o->cluster_bytes;
		e.unit_off = (uint32_t)in_cluster(o, off);
		e.codec = (uint8_t)o->s->codec;
	}
	*ret = e;
}

/* How much of [@off, @off + @len) the table of @off maps. */
static uint64_t to_table_end(const struct qcow2_file *o, uint64_t off,
			     uint64_t len)
{
	unsigned int table_bits = o->cluster_bits + o->l2_bits;

	return min_u64(len, (((off >> table_bits) + 1) << table_bits) - off);
}

/* The overlay's own answer. Meta is held. */
static int own_extent_locked(struct qcow2_file *o, uint64_t off, uint64_t len,
			     struct extent *ret, struct error *err)
{
	uint64_t run, cluster = off >> o->cluster_bits;
	struct qcow2_answer first, next;
	struct page_set *t;
	int r;

	len = to_table_end(o, off, len);
	r = table_get(o, off, &t, err);
	if (r < 0)
		return r;
	if (!t) {
		*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
		return 0;
	}
	r = lookup_answer(o, t, off, &first, err);
	if (r < 0) {
		*ret = (struct extent){
			.kind = EXTENT_DAMAGED,
			.len = min_u64(len, o->sub_bytes -
						    (off & (o->sub_bytes - 1)))
		};
		return 0;
	}
	for (run = qcow2_same_bytes(o->s, raw_entry(o, t, off), off); run < len;
	     run +=
	     qcow2_same_bytes(o->s, raw_entry(o, t, off + run), off + run))
		if (lookup_answer(o, t, off + run, &next, NULL) < 0 ||
		    !continues(o, &first, &next,
			       ((off + run) >> o->cluster_bits) - cluster))
			break;
	fill_extent(o, &first, off, min_u64(run, len), ret);
	return 0;
}

int lookup_own(struct qcow2_file *o, uint64_t off, uint64_t len,
	       struct extent *ret, struct error *err)
{
	int r;

	if (table_is_absent(o, off)) {
		*ret = (struct extent){ .kind = EXTENT_HOLE,
					.len = to_table_end(o, off, len) };
		return 0;
	}
	r = lock_or_again(&o->meta);
	if (r < 0)
		return r;
	r = own_extent_locked(o, off, len, ret, err);
	tables_trim(o);
	pthread_mutex_unlock(&o->meta);
	return r;
}

uint64_t lookup_base_has(const struct qcow2_file *o, uint64_t off, uint64_t len)
{
	if (!o->base || off >= o->base->bytes)
		return 0;
	return min_u64(len, o->base->bytes - off);
}

static struct extent nothing(uint64_t len)
{
	return (struct extent){ .kind = EXTENT_ZERO,
				.len = len,
				.absent = true };
}

struct overlay_reader {
	struct extent_reader x;
	struct qcow2_file *o;
};

/* Its file may have got another name since its reader opened it. */
static void blame_own(const struct qcow2_file *o, uint64_t off,
		      struct error *err)
{
	error_prefix(err, "%s: guest offset %" PRIu64, o->path, off);
}

/* With the overlay's file in what is said of its own tables. */
static int own_or_blame(struct qcow2_file *o, uint64_t off, uint64_t len,
			struct extent *ret, struct error *err)
{
	int r = lookup_own(o, off, len, ret, err);

	if (r < 0)
		blame_own(o, off, err);
	return r;
}

/* Extents' depth is as in the chain whose top the overlay is. */
static int reader_resolve(struct extent_reader *x, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	struct qcow2_file *o = container_of(x, struct overlay_reader, x)->o;
	size_t n = 0, more, i;
	uint64_t below;
	bool is_below;
	int r;

	while (n < max && len) {
		r = own_or_blame(o, off, len, &ret[n], err);
		if (r < 0)
			return r;
		more = 1;
		is_below = false;
		if (ret[n].kind == EXTENT_HOLE) {
			below = lookup_base_has(o, off, ret[n].len);
			is_below = below > 0;
			if (!below)
				ret[n] = nothing(ret[n].len);
			else
				r = image_resolve(o->base, off, below, ret + n,
						  max - n, &more, err);
		}
		if (r < 0)
			return r;
		for (i = 0; i < more; i++) {
			ret[n].depth += is_below;
			off += ret[n].len;
			len -= ret[n++].len;
		}
	}
	*ret_n = n;
	return 0;
}

static int reader_map(struct extent_reader *x, uint64_t off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	struct qcow2_file *o = container_of(x, struct overlay_reader, x)->o;
	uint64_t below;
	int r = own_or_blame(o, off, len, ret, err);

	if (r < 0 || ret->kind != EXTENT_HOLE)
		return r;
	below = lookup_base_has(o, off, ret->len);
	if (!below) {
		*ret = nothing(ret->len);
		return 0;
	}
	r = chain_map(&o->base->chain, off, below, ret, err);
	if (r >= 0)
		ret->depth++;
	return r;
}

static void reader_blame(struct extent_reader *x, const struct extent *e,
			 uint64_t off, struct error *err)
{
	struct qcow2_file *o = container_of(x, struct overlay_reader, x)->o;

	if (e->depth)
		layer_blame(o->base->chain.layers[e->depth - 1], e->src, off,
			    err);
	else
		blame_own(o, off, err);
}

static struct overlay_reader overlay_reader(struct qcow2_file *o)
{
	return (struct overlay_reader){
		.x = { .resolve = reader_resolve,
		       .map = reader_map,
		       .blame = reader_blame },
		.o = o,
	};
}

int lookup_read(struct qcow2_file *o, uint8_t *buf, size_t len, uint64_t off,
		struct zero_runs *zeroes, struct error *err)
{
	struct overlay_reader r = overlay_reader(o);
	size_t n = off < o->bytes ? (size_t)min_u64(len, o->bytes - off) : 0;

	r.x.zeroes = zeroes;
	if (zeroes)
		zeroes->n = 0;
	memset(buf + n, 0, len - n);
	return n ? extents_read(&r.x, buf, n, off, err) : 0;
}

int lookup_walk(struct qcow2_file *o, uint64_t off, uint64_t len,
		int (*each)(void *opaque, uint64_t off, const struct extent *e),
		void *opaque, uint64_t *ret_end, struct error *err)
{
	struct overlay_reader x = overlay_reader(o);

	return extents_walk(&x.x, off, len, each, opaque, ret_end, err);
}

int lookup_walk_changes(struct qcow2_file *o, struct image *from, uint64_t off,
			uint64_t len,
			int (*each)(void *opaque, uint64_t off, uint64_t len,
				    enum change change),
			void *opaque, uint64_t *ret_end, struct error *err)
{
	struct overlay_reader x = overlay_reader(o);
	struct difference d = { .from = from,
				.reader = &x.x,
				.bytes = o->bytes };

	return difference_walk(&d, off, len, each, opaque, ret_end, err);
}
