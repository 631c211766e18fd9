/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts and allocation of a qcow2 file that is being written.
 *
 * Clusters are allocated ahead, at the file's end, some at a time, so that
 * most flushes have no refcounts to write. Blocks of refcounts and a longer
 * table for them come into being while a run is allocated, and are durable
 * before anything in it is used: that is rare.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/statvfs.h>

#include "formats/put-be.h"
#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

/* How much is allocated ahead: an eighth of the file, within these. */
#define AHEAD_BYTES_MIN (1ULL << 20)
#define AHEAD_BYTES_MAX (32ULL << 20)

/* ---- blocks ---- */

static int read_table(struct qcow2_file *o, struct error *err)
{
	const struct qcow2_header *h = &o->s->h;
	struct refcounts *rc = &o->rc;
	uint64_t i;
	int r;

	rc->order = h->refcount_order;
	rc->per_block = o->cluster_bytes * 8 >> rc->order;
	rc->table_off = h->reftable_off;
	rc->n = (uint64_t)h->reftable_clusters << o->cluster_bits >> 3;
	ANALYSER_ASSUME(rc->n > 0);
	rc->table = calloc(rc->n, sizeof(*rc->table));
	rc->blocks = calloc(rc->n, sizeof(*rc->blocks));
	if (!rc->table || !rc->blocks)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(o->src, rc->table, rc->n * 8, rc->table_off, err);
	for (i = 0; i < rc->n && r >= 0; i++) {
		rc->table[i] = be64toh(rc->table[i]) & QCOW2_REFTABLE_MASK;
		if (rc->table[i] % o->cluster_bytes ||
		    rc->table[i] >> o->cluster_bits >= o->end)
			r = error_set(err, -EBADMSG, rc->table_off + i * 8,
				      "refcount block %" PRIu64 " at %" PRIu64
				      " is not a cluster of the file",
				      i, rc->table[i]);
	}
	return r;
}

int refs_open(struct qcow2_file *o, struct error *err)
{
	if (!o->s->h.reftable_clusters)
		return error_set(err, -EBADMSG, QCOW2_REFTABLE_CLUSTERS_AT,
				 "has no refcount table");
	return read_table(o, err);
}

void refs_done(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; o->rc.blocks && i < o->rc.n; i++)
		page_set_free(o->rc.blocks[i]);
	free(o->rc.blocks);
	free(o->rc.table);
	free(o->pool.items);
	free(o->freed.items);
	free(o->punches.items);
}

/* *ret NULL: nothing there is counted. */
static int block_get(struct qcow2_file *o, uint64_t idx, struct page_set **ret,
		     struct error *err)
{
	struct refcounts *rc = &o->rc;
	struct page_set *p;
	int r;

	*ret = NULL;
	if (idx >= rc->n || !rc->table[idx])
		return 0;
	if (!rc->blocks[idx]) {
		p = page_set_new(o, rc->table[idx]);
		if (!p)
			return error_set(err, -ENOMEM, 0, "out of memory");
		r = source_read(o->src, p->buf, o->cluster_bytes, p->host_off,
				err);
		if (r < 0) {
			page_set_free(p);
			return r;
		}
		rc->blocks[idx] = p;
	}
	*ret = rc->blocks[idx];
	return 0;
}

static uint64_t refcount_max(const struct refcounts *rc)
{
	return rc->order == 6 ? UINT64_MAX : (1ULL << (1U << rc->order)) - 1;
}

/* Entries of less than a byte begin at its lowest bit. */
static uint64_t cell_get(const struct refcounts *rc, const uint8_t *buf,
			 uint64_t i)
{
	unsigned int bits = 1U << rc->order, bytes = bits / 8, k;
	uint64_t v = 0;

	if (bits < 8)
		return buf[i * bits / 8] >> (i * bits % 8) & ((1U << bits) - 1);
	for (k = 0; k < bytes; k++)
		v = v << 8 | buf[i * bytes + k];
	return v;
}

static void cell_set(const struct refcounts *rc, uint8_t *buf, uint64_t i,
		     uint64_t v)
{
	unsigned int bits = 1U << rc->order, bytes = bits / 8, k;
	unsigned int shift = (unsigned int)(i * bits % 8);
	uint8_t *b = &buf[i * bits / 8];

	if (bits < 8) {
		*b = (uint8_t)((*b & ~(((1U << bits) - 1) << shift)) |
			       (unsigned int)v << shift);
		return;
	}
	for (k = bytes; k--; v >>= 8)
		buf[i * bytes + k] = (uint8_t)v;
}

int refs_get(struct qcow2_file *o, uint64_t cluster, uint64_t *ret,
	     struct error *err)
{
	struct page_set *p;
	int r = block_get(o, cluster / o->rc.per_block, &p, err);

	if (r < 0)
		return r;
	*ret = p ? cell_get(&o->rc, p->buf, cluster % o->rc.per_block) : 0;
	return 0;
}

int refs_set(struct qcow2_file *o, uint64_t cluster, uint64_t refs,
	     struct error *err)
{
	uint64_t i = cluster % o->rc.per_block;
	struct page_set *p;
	int r = block_get(o, cluster / o->rc.per_block, &p, err);

	if (r < 0)
		return r;
	if (!p)
		return error_set(err, -EIO, 0,
				 "cluster %" PRIu64 " has no refcount block",
				 cluster);
	if (refs > refcount_max(&o->rc))
		return error_set(err, -EFBIG, 0,
				 "refcount %" PRIu64
				 " is over the limit of %" PRIu64,
				 refs, refcount_max(&o->rc));
	cell_set(&o->rc, p->buf, i, refs);
	page_dirty(o, p, (i << o->rc.order) / 8);
	return 0;
}

/* ---- growing ---- */

static int cover(struct qcow2_file *o, uint64_t first, uint64_t n,
		 struct error *err);

/* A longer table, at the file's end; the old one is freed. */
static int grow_table(struct qcow2_file *o, uint64_t need, struct error *err)
{
	struct refcounts *rc = &o->rc;
	uint64_t per_cluster = o->cluster_bytes / 8, old_n = rc->n, i, first;
	uint64_t n = div_round_up(need + need / 2, per_cluster) * per_cluster;
	uint64_t clusters = n / per_cluster, old = rc->table_off;
	struct page_set **blocks;
	uint64_t *table;
	int r;

	if (n * 8 > QCOW2_REFTABLE_BYTES_MAX)
		return error_set(err, -EFBIG, 0,
				 "refcount table of %" PRIu64
				 " bytes is over the limit of %u: the file is "
				 "as large as it can be",
				 n * 8, QCOW2_REFTABLE_BYTES_MAX);
	table = realloc(rc->table, n * sizeof(*table));
	if (table)
		rc->table = table;
	blocks = realloc(rc->blocks, n * sizeof(*blocks));
	if (blocks)
		rc->blocks = blocks;
	if (!table || !blocks)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = rc->n; i < n; i++) {
		rc->table[i] = 0;
		rc->blocks[i] = NULL;
	}
	rc->n = n;
	rc->table_moved = true;
	first = o->end;
	rc->table_off = first << o->cluster_bits;
	o->end += clusters;
	r = cover(o, first, clusters, err);
	for (i = 0; i < clusters && r >= 0; i++)
		r = refs_set(o, first + i, 1, err);
	for (i = 0; i < div_round_up(old_n, per_cluster) && r >= 0; i++)
		r = alloc_free_later(o, (old >> o->cluster_bits) + i, err);
	return r;
}

/* A new block, at the file's end, where it may have to count itself. */
static int add_block(struct qcow2_file *o, uint64_t idx, struct error *err)
{
	struct refcounts *rc = &o->rc;
	uint64_t place = o->end++;
	struct page_set *p;
	int r;

	p = page_set_new(o, place << o->cluster_bits);
	if (!p)
		return error_set(err, -ENOMEM, 0, "out of memory");
	p->fresh = true;
	page_dirty(o, p, 0);
	rc->blocks[idx] = p;
	rc->table[idx] = p->host_off;
	rc->first_dirty = rc->table_dirty ? min_u64(rc->first_dirty, idx) : idx;
	rc->last_dirty = rc->table_dirty ? max_u64(rc->last_dirty, idx) : idx;
	rc->table_dirty = true;
	r = cover(o, place, 1, err);
	return r < 0 ? r : refs_set(o, place, 1, err);
}

/* Sees to it that there are blocks for these clusters. */
static int cover(struct qcow2_file *o, uint64_t first, uint64_t n,
		 struct error *err)
{
	uint64_t last = (first + n - 1) / o->rc.per_block, i;
	int r = 0;

	if (last >= o->rc.n)
		r = grow_table(o, last + 1, err);
	for (i = first / o->rc.per_block; i <= last && r >= 0; i++)
		if (!o->rc.table[i])
			r = add_block(o, i, err);
	return r;
}

int refs_cover(struct qcow2_file *o, uint64_t cluster, struct error *err)
{
	return cover(o, cluster, 1, err);
}

/* ---- allocation ---- */

/* Clusters of the file that are in use, or could not be given back. */
static uint64_t used_bytes(const struct qcow2_file *o, uint64_t more)
{
	return (o->end - o->pool.n + more) << o->cluster_bits;
}

static int check_room(const struct qcow2_file *o, uint64_t more,
		      struct error *err)
{
	const struct overlay_options *opt = &o->options;
	struct statvfs st;
	uint64_t left;

	if (opt->bytes_max && used_bytes(o, more) > opt->bytes_max)
		return error_set(err, -ENOSPC, 0,
				 "is as large as it may be, %" PRIu64 " bytes",
				 opt->bytes_max);
	if (!opt->free_min || fstatvfs(source_file(o->src)->fd, &st) < 0)
		return 0;
	left = (uint64_t)st.f_bavail * st.f_frsize;
	if (left < opt->free_min + (more << o->cluster_bits))
		return error_set(err, -ENOSPC, 0,
				 "its file system has only %" PRIu64
				 " bytes left, of which %" PRIu64
				 " are to stay free",
				 left, opt->free_min);
	return 0;
}

/* How many to take from the file's end when @n are needed. */
static uint64_t how_many(const struct qcow2_file *o, uint64_t n)
{
	uint64_t bytes = (o->end << o->cluster_bits) / 8;

	bytes = max_u64(AHEAD_BYTES_MIN, min_u64(bytes, AHEAD_BYTES_MAX));
	return max_u64(n, bytes >> o->cluster_bits);
}

/* Blocks are reachable on the disk before what they count is used. */
static int settle(struct qcow2_file *o, struct error *err)
{
	return o->rc.table_dirty || o->rc.table_moved ? refs_write(o, err) : 0;
}

/* Makes ahead..ahead_end a run of at least @n; what was left is pooled. */
static int extend(struct qcow2_file *o, uint64_t n, struct error *err)
{
	uint64_t first, i;
	int r;

	if (check_room(o, how_many(o, n), NULL) >= 0)
		n = how_many(o, n);
	else if ((r = check_room(o, n, err)) < 0)
		return r;
	if ((r = dirty_mark(o, err)) < 0)
		return r;
	if (o->end + n > (uint64_t)INT64_MAX >> o->cluster_bits)
		return error_set(err, -EFBIG, 0,
				 "is as large as a file can be");
	for (r = 0; o->ahead < o->ahead_end && r >= 0; o->ahead++)
		r = list_add(&o->pool, o->ahead, err);
	if (r < 0)
		return r;
	first = o->end;
	o->end += n;
	r = cover(o, first, n, err);
	for (i = 0; i < n && r >= 0; i += r >= 0)
		r = refs_set(o, first + i, 1, err);
	if (r >= 0)
		r = source_truncate(o->src, o->end << o->cluster_bits, err);
	if (r >= 0)
		r = settle(o, err);
	if (r < 0) {
		while (i--)
			alloc_return(o, first + i);
		return r;
	}
	o->ahead = first;
	o->ahead_end = first + n;
	return 0;
}

int alloc_cluster(struct qcow2_file *o, uint64_t *ret, struct error *err)
{
	int r = settle(o, err);

	if (r < 0)
		return r;
	if (o->ahead == o->ahead_end && o->pool.n) {
		*ret = o->pool.items[--o->pool.n];
		return 0;
	}
	if (o->ahead == o->ahead_end && (r = extend(o, 1, err)) < 0)
		return r;
	*ret = o->ahead++;
	return 0;
}

int alloc_run(struct qcow2_file *o, uint64_t n, uint64_t *ret,
	      struct error *err)
{
	int r = settle(o, err);

	if (r < 0)
		return r;
	if (o->ahead_end - o->ahead < n && (r = extend(o, n, err)) < 0)
		return r;
	*ret = o->ahead;
	o->ahead += n;
	return 0;
}

void alloc_return(struct qcow2_file *o, uint64_t cluster)
{
	if (cluster + 1 == o->ahead)
		o->ahead--;
	else
		list_add(&o->pool, cluster, NULL); /* at worst, a leak */
}

int alloc_free_later(struct qcow2_file *o, uint64_t cluster, struct error *err)
{
	return list_add(&o->freed, cluster, err);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int alloc_release(struct qcow2_file *o, uint64_t *ret_end, struct error *err)
{
	uint64_t end = o->end;
	size_t i;
	int r = 0;

	for (; o->ahead < o->ahead_end && r >= 0; o->ahead++)
		r = list_add(&o->pool, o->ahead, err);
	if (o->pool.n)
		qsort(o->pool.items, o->pool.n, sizeof(*o->pool.items),
		      compare);
	for (i = o->pool.n; i-- && r >= 0;) {
		r = refs_set(o, o->pool.items[i], 0, err);
		if (o->pool.items[i] + 1 == end)
			end--;
	}
	o->pool.n = 0;
	*ret_end = end;
	return r;
}

/* ---- to the disk ---- */

int refs_collect(struct qcow2_file *o, struct pieces *to, struct error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < o->rc.n && r >= 0; i++)
		if (o->rc.blocks[i] && o->rc.blocks[i]->dirty)
			r = pieces_add_dirty(o, o->rc.blocks[i], to, err);
	return r;
}

void refs_clean(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; i < o->rc.n; i++)
		if (o->rc.blocks[i])
			page_clean(o->rc.blocks[i]);
}

void refs_dirty(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; i < o->rc.n; i++)
		if (o->rc.blocks[i])
			page_dirty_all(o, o->rc.blocks[i]);
}

/* The table's entries from @first to @last. */
static int write_reftable(struct qcow2_file *o, uint64_t first, uint64_t last,
			  struct error *err)
{
	uint64_t n = last - first + 1, i;
	uint64_t *buf;
	int r;

	ANALYSER_ASSUME(n > 0);
	buf = malloc(n * sizeof(*buf));
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < n; i++)
		buf[i] = htobe64(o->rc.table[first + i]);
	r = source_write(o->src, buf, n * sizeof(*buf),
			 o->rc.table_off + first * 8, err);
	free(buf);
	return r < 0 ? r : disk_sync(o, err);
}

/* Where the table is, and how long; side by side in the header. */
static int write_reftable_field(struct qcow2_file *o, struct error *err)
{
	struct qcow2_state *s = o->top->state;
	uint8_t field[12];
	int r;

	put_be64(field, 0, o->rc.table_off);
	put_be32(field, 8, (uint32_t)(o->rc.n * 8 >> o->cluster_bits));
	r = source_write(o->src, field, sizeof(field), QCOW2_REFTABLE_OFF_AT,
			 err);
	if (r >= 0)
		r = disk_sync(o, err);
	if (r < 0)
		return r;
	/* What the reader takes for metadata, too. */
	s->h.reftable_off = o->rc.table_off;
	s->h.reftable_clusters = (uint32_t)(o->rc.n * 8 >> o->cluster_bits);
	return 0;
}

int refs_write(struct qcow2_file *o, struct error *err)
{
	struct refcounts *rc = &o->rc;
	struct pieces blocks = { 0 };
	uint64_t i;
	int r = refs_collect(o, &blocks, err);

	if (r >= 0)
		r = pieces_write(o, &blocks, err);
	pieces_done(&blocks);
	if (r >= 0)
		r = disk_sync(o, err);
	if (r < 0)
		return r;
	refs_clean(o);
	rc->written++;
	for (i = 0; i < rc->n; i++)
		if (rc->blocks[i])
			rc->blocks[i]->fresh = false;
	if (rc->table_moved)
		r = write_reftable(o, 0, rc->n - 1, err);
	else if (rc->table_dirty)
		r = write_reftable(o, rc->first_dirty, rc->last_dirty, err);
	if (r >= 0 && rc->table_moved)
		r = write_reftable_field(o, err);
	if (r >= 0)
		rc->table_dirty = rc->table_moved = false;
	return r;
}
