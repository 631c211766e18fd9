/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an image is, and where its bytes lie: a chain's answers, remembered for a
 * region at a time. extents-read.c reads what they tell of.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/cache.h"
#include "formats/image.h"
#include "iouring/nowait.h"

/*
 * A chain's answers are remembered for a region at a time, so that what a
 * read costs does not depend on how many layers had to be asked.
 */
#define REGION_BYTES (1U << 20)

/* A walk may end early after this long; looked at every so many steps. */
#define WALK_NSEC	   500000000ULL
#define WALK_STEPS_A_LOOK  1024U
#define WALK_STEPS_AT_ONCE 256U /* of who may not wait; others wait for him */

int image_from_chain(struct chain *chain, struct image **ret, struct error *err)
{
	struct image *img = calloc(1, sizeof(*img));

	if (!img) {
		chain_done(chain);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	img->chain = *chain;
	*chain = (struct chain){ 0 };
	img->bytes = img->chain.bytes;
	img->id = source_new_id();
	atomic_init(&img->refs, 1);
	*ret = img;
	return 0;
}

int image_open(const char *path, const struct open_options *options,
	       struct image **ret, struct error *err)
{
	struct chain chain;
	int r = chain_open(path, options, &chain, err);

	return r < 0 ? r : image_from_chain(&chain, ret, err);
}

struct image *image_ref(struct image *img)
{
	atomic_fetch_add_explicit(&img->refs, 1, memory_order_relaxed);
	return img;
}

void image_unref(struct image *img)
{
	if (!img ||
	    atomic_fetch_sub_explicit(&img->refs, 1, memory_order_acq_rel) > 1)
		return;
	chain_done(&img->chain);
	free(img);
}

void image_unrefp(struct image **img)
{
	image_unref(*img);
}

/* May @b be told as one extent with @a, which ends where it begins? */
static bool joins(const struct extent *a, const struct extent *b)
{
	if (a->kind != b->kind || a->depth != b->depth ||
	    a->absent != b->absent || a->src != b->src ||
	    a->cipher != b->cipher)
		return false;
	switch (a->kind) {
	case EXTENT_DATA:
		return a->host_off + a->len == b->host_off &&
		       (!a->cipher ||
			extent_iv_sector(a, a->len) == b->iv_sector);
	case EXTENT_ZERO:
		return !a->src || a->host_off + a->len == b->host_off;
	case EXTENT_COMPRESSED:
		return false;
	default:
		return true;
	}
}

/* A region's extents, as they lie in the cache. */
struct region {
	size_t n;
	struct extent extents[];
};

/* @len: of the region, which the end of the image may cut. */
static int region_resolve(const struct image *img, uint64_t off, uint64_t len,
			  struct region **ret, struct error *err)
{
	size_t room = 4, n = 0;
	CLEANUP(freep)
	struct region *g = malloc(sizeof(*g) + room * sizeof(struct extent));
	struct region *grown;
	struct extent e;
	int r;

	if (!g)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (len) {
		r = chain_map(&img->chain, off, len, &e, err);
		if (r < 0)
			return r;
		/* Damage is told when it is read; see complain(). */
		error_clear(err);
		off += e.len;
		len -= e.len;
		if (n && joins(&g->extents[n - 1], &e)) {
			g->extents[n - 1].len += e.len;
			continue;
		}
		if (n == room) {
			room *= 2;
			grown = realloc(
				g, sizeof(*g) + room * sizeof(struct extent));
			if (!grown)
				return error_set(err, -ENOMEM, 0,
						 "out of memory");
			g = grown;
		}
		g->extents[n++] = e;
	}
	g->n = n;
	*ret = TAKE_PTR(g);
	return 0;
}

/*
 * The cached region at @idx, held until cache_put(). -EAGAIN: who was resolving it
 * may not wait, or we may not.
 */
static int try_region(struct image *img, uint64_t idx, struct cache_blob **ret,
		      struct error *err)
{
	struct cache_key key = { .owner = img->id, .at = idx };
	uint64_t off = idx * REGION_BYTES;
	struct region *g = NULL;
	struct cache_blob *b;
	int r = 0;

	switch (cache_get(&key, &b)) {
	case CACHE_HIT:
		break;
	case CACHE_BUSY:
		r = cache_wait(b);
		if (r < 0 && r != -EAGAIN)
			error_set(err, r, 0,
				  "%s: the chain's tables cannot be read",
				  img->chain.layers[0]->path);
		break;
	case CACHE_CLAIMED:
		r = region_resolve(img, off,
				   min_u64(REGION_BYTES, img->bytes - off), &g,
				   err);
		if (r < 0)
			cache_fail(b, r);
		else
			cache_fill(b, g,
				   sizeof(*g) + g->n * sizeof(struct extent));
		break;
	}
	if (r < 0) {
		cache_put(b);
		return r;
	}
	*ret = b;
	return 0;
}

static int region_get(struct image *img, uint64_t idx, struct cache_blob **ret,
		      struct error *err)
{
	int r;

	do {
		r = try_region(img, idx, ret, err);
	} while (r == -EAGAIN && may_wait());
	return r;
}

/* The part of @e, which begins at @e_off, that lies in [@off, @off + @len). */
static struct extent extent_part(const struct extent *e, uint64_t e_off,
				 uint64_t off, uint64_t len)
{
	uint64_t skip = off > e_off ? off - e_off : 0;
	struct extent part = *e;

	part.len = min_u64(e->len - skip, len);
	if (e->kind == EXTENT_DATA) {
		part.iv_sector = extent_iv_sector(e, skip);
		part.host_off += skip;
	} else if (e->kind == EXTENT_COMPRESSED) {
		part.unit_off += (uint32_t)skip;
	}
	return part;
}

/* As many of the region's extents as there is room for. */
static int resolve_region(struct image *img, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	uint64_t idx = off / REGION_BYTES, at = idx * REGION_BYTES;
	struct cache_blob *b;
	const struct region *g;
	uint64_t end;
	size_t i, n = 0;
	int r;

	r = region_get(img, idx, &b, err);
	if (r < 0)
		return r;
	g = b->data;
	end = min_u64(off + len, at + REGION_BYTES);
	for (i = 0; i < g->n && n < max && off < end; i++) {
		if (at + g->extents[i].len > off) {
			ret[n] =
				extent_part(&g->extents[i], at, off, end - off);
			off += ret[n++].len;
		}
		at += g->extents[i].len;
	}
	cache_put(b);
	*ret_n = n;
	return 0;
}

/*
 * Extents of [@off, @off + @len), or of as much of it as @max hold. One layer
 * answers as fast as memory does; more are remembered.
 */
int image_resolve(struct image *img, uint64_t off, uint64_t len,
		  struct extent *ret, size_t max, size_t *ret_n,
		  struct error *err)
{
	size_t n = 0, more;
	int r;

	while (n < max && len) {
		if (img->chain.depth == 1) {
			r = chain_map(&img->chain, off, len, &ret[n], err);
			more = 1;
		} else {
			r = resolve_region(img, off, len, ret + n, max - n,
					   &more, err);
		}
		if (r < 0)
			return r;
		while (more--) {
			off += ret[n].len;
			len -= ret[n].len;
			n++;
		}
	}
	*ret_n = n;
	return 0;
}

static int reader_resolve(struct extent_reader *x, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	struct image_reader *r = container_of(x, struct image_reader, x);

	return image_resolve(r->img, off, len, ret, max, ret_n, err);
}

static int reader_map(struct extent_reader *x, uint64_t off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	struct image_reader *r = container_of(x, struct image_reader, x);

	return chain_map(&r->img->chain, off, len, ret, err);
}

static void reader_blame(struct extent_reader *x, const struct extent *e,
			 uint64_t off, struct error *err)
{
	struct image_reader *r = container_of(x, struct image_reader, x);

	layer_blame(r->img->chain.layers[e->depth], e->src, off, err);
}

struct image_reader image_reader(struct image *img)
{
	return (struct image_reader){ .x = { .resolve = reader_resolve,
					     .map = reader_map,
					     .blame = reader_blame },
				      .img = img };
}

int image_read(struct image *img, void *buf, size_t len, uint64_t off,
	       struct error *err)
{
	return image_read_sparse(img, buf, len, off, NULL, err);
}

int image_read_sparse(struct image *img, void *buf, size_t len, uint64_t off,
		      struct zero_runs *zeroes, struct error *err)
{
	struct image_reader r = image_reader(img);

	r.x.zeroes = zeroes;
	if (!range_inside(off, len, img->bytes))
		return error_set(err, -EINVAL, off,
				 "%zu bytes at %" PRIu64
				 " are not inside the disk's %" PRIu64,
				 len, off, img->bytes);
	return extents_read(&r.x, buf, len, off, err);
}

/* Data that take no room in their file are zeroes that a client may skip. */
static int look_for_hole(struct extent *e)
{
	uint64_t len = e->len;
	bool hole = false;
	int r;

	if (e->kind != EXTENT_DATA || e->cipher)
		return 0;
	r = source_find_hole(e->src, e->host_off, e->len, &hole, &len);
	if (r < 0) /* who cannot tell has none */
		return may_wait() ? 0 : r;
	e->len = len;
	if (hole)
		e->kind = EXTENT_ZERO;
	return 0;
}

int extents_walk(struct extent_reader *x, uint64_t off, uint64_t len,
		 int (*each)(void *opaque, uint64_t off,
			     const struct extent *e),
		 void *opaque, uint64_t *ret_end, struct error *err)
{
	uint64_t end = off + len, deadline = now_nsec() + WALK_NSEC;
	struct extent run = { 0 }, e;
	unsigned int steps = 0;
	int r;

	*ret_end = off;
	while (off < end) {
		if (++steps % WALK_STEPS_A_LOOK == 0 && now_nsec() > deadline)
			break;
		if (!may_wait() && steps > WALK_STEPS_AT_ONCE)
			return -EAGAIN;
		r = x->map(x, off, end - off, &e, err);
		if (r < 0)
			return r;
		error_clear(err);
		r = look_for_hole(&e);
		if (r < 0)
			return r;
		if (run.len && joins(&run, &e)) {
			run.len += e.len;
		} else {
			if (run.len) {
				*ret_end = off;
				r = each(opaque, off - run.len, &run);
				if (r)
					return r;
			}
			run = e;
		}
		off += e.len;
	}
	*ret_end = off;
	return run.len ? each(opaque, off - run.len, &run) : 0;
}

int image_walk(struct image *img, uint64_t off, uint64_t len,
	       int (*each)(void *opaque, uint64_t off, const struct extent *e),
	       void *opaque, uint64_t *ret_end, struct error *err)
{
	struct image_reader r = image_reader(img);

	return extents_walk(&r.x, off, len, each, opaque, ret_end, err);
}

static int prefetch_extent(void *opaque, uint64_t off, const struct extent *e)
{
	if (e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED)
		source_prefetch(e->src, e->host_off,
				e->kind == EXTENT_DATA ? e->len
						       : e->comp_bytes);
	return 0;
}

int image_prefetch(struct image *img, uint64_t off, uint64_t len,
		   struct error *err)
{
	uint64_t end;

	return image_walk(img, off, len, prefetch_extent, NULL, &end, err);
}
