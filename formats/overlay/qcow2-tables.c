/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * L1 and L2 tables of a qcow2 file that is being written ("Cluster mapping").
 * The L1 table is in memory whole, L2 tables as they are used.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

/* L2 tables of one overlay that stay in memory, and may wait for a flush. */
#define TABLES_BYTES	   (8ULL << 20)
#define TABLES_DIRTY_BYTES (32ULL << 20)

/* ---- L1 ---- */

int tables_open(struct qcow2_file *o, struct error *err)
{
	uint64_t i, host_off;
	int r;

	o->n_l1 = o->s->h.l1_entries;
	o->l1 = calloc(o->n_l1 + 1, sizeof(*o->l1));
	o->l1_dirty = calloc(o->n_l1 + 1, sizeof(*o->l1_dirty));
	o->l2 = calloc(o->n_l1 + 1, sizeof(struct page_set *));
	if (!o->l1 || !o->l1_dirty || !o->l2)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = o->n_l1 ? source_read(o->src, o->l1, o->n_l1 * sizeof(*o->l1),
				  o->s->h.l1_off, err)
		    : 0;
	for (i = 0; i < o->n_l1 && r >= 0; i++) {
		host_off = be64toh(o->l1[i]) & QCOW2_OFFSET_MASK;
		if (host_off % o->cluster_bytes ||
		    host_off >> o->cluster_bits >= o->end)
			r = error_set(err, -EBADMSG, o->s->h.l1_off + i * 8,
				      "L2 table %" PRIu64 " at %" PRIu64
				      " is not a cluster of the file",
				      i, host_off);
	}
	return r;
}

void tables_done(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; o->l2 && i < o->n_l1; i++)
		page_set_free(o->l2[i]);
	free(o->tables.items);
	free(o->l2);
	free(o->l1);
	free(o->l1_dirty);
}

/* ---- what data must not lie on ---- */

static int compare_clusters(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int tables_remember(struct qcow2_file *o, struct error *err)
{
	uint64_t i, host_off;
	int r = 0;

	for (i = 0; i < o->n_l1 && r >= 0; i++) {
		host_off = be64toh(o->l1[i]) & QCOW2_OFFSET_MASK;
		if (host_off)
			r = list_add(&o->tables, host_off >> o->cluster_bits,
				     err);
	}
	for (i = 0; i < o->rc.n && r >= 0; i++)
		if (o->rc.table[i])
			r = list_add(&o->tables,
				     o->rc.table[i] >> o->cluster_bits, err);
	if (r >= 0 && o->tables.n)
		qsort(o->tables.items, o->tables.n, sizeof(uint64_t),
		      compare_clusters);
	return r;
}

/* It is free from now on. */
static void forget_table(struct qcow2_file *o, uint64_t cluster)
{
	struct cluster_list *l = &o->tables;
	uint64_t *at = l->n ? bsearch(&cluster, l->items, l->n, sizeof(cluster),
				      compare_clusters)
			    : NULL;

	if (!at)
		return;
	l->n--;
	memmove(at, at + 1, (size_t)(l->items + l->n - at) * sizeof(*at));
}

static bool covers(const struct qcow2_file *o, uint64_t off, uint64_t bytes,
		   uint64_t cluster)
{
	return bytes && cluster >= off >> o->cluster_bits &&
	       cluster <= (off + bytes - 1) >> o->cluster_bits;
}

bool tables_have(const struct qcow2_file *o, uint64_t cluster)
{
	const struct qcow2_header *h = &o->s->h;

	return !cluster || covers(o, h->l1_off, o->n_l1 * 8, cluster) ||
	       covers(o, o->rc.table_off, o->rc.n * 8, cluster) ||
	       covers(o, h->snapshots_off, h->snapshots ? 1 : 0, cluster) ||
	       (o->tables.n && bsearch(&cluster, o->tables.items, o->tables.n,
				       sizeof(cluster), compare_clusters));
}

/* ---- L2 ---- */

static uint64_t l1_index(const struct qcow2_file *o, uint64_t guest_off)
{
	return guest_off >> (o->cluster_bits + o->l2_bits);
}

static int load(struct qcow2_file *o, uint64_t idx, struct error *err)
{
	uint64_t host_off = be64toh(o->l1[idx]) & QCOW2_OFFSET_MASK;
	struct page_set *t = page_set_new(o, host_off);
	int r;

	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(o->src, t->buf, o->cluster_bytes, host_off, err);
	if (r < 0) {
		page_set_free(t);
		return r;
	}
	o->l2[idx] = t;
	o->n_l2++;
	return 0;
}

bool table_is_absent(const struct qcow2_file *o, uint64_t guest_off)
{
	return !(be64toh(__atomic_load_n(&o->l1[l1_index(o, guest_off)],
					 __ATOMIC_ACQUIRE)) &
		 QCOW2_OFFSET_MASK);
}

int table_get(struct qcow2_file *o, uint64_t guest_off, struct page_set **ret,
	      struct error *err)
{
	uint64_t idx = l1_index(o, guest_off);
	int r = 0;

	*ret = NULL;
	if (!o->l2[idx]) {
		if (!(be64toh(o->l1[idx]) & QCOW2_OFFSET_MASK))
			return 0;
		r = load(o, idx, err);
		if (r < 0)
			return r;
	}
	o->l2[idx]->used = ++o->clock;
	*ret = o->l2[idx];
	return 0;
}

static void table_dirty(struct qcow2_file *o, struct page_set *t, uint64_t at)
{
	if (!t->dirty)
		o->n_l2_dirty++;
	page_dirty(o, t, at);
}

/* A place of its own for table @idx, which has none or shares it. */
static int own_table(struct qcow2_file *o, uint64_t idx, struct error *err)
{
	uint64_t old = be64toh(o->l1[idx]) & QCOW2_OFFSET_MASK, cluster;
	int r = alloc_cluster(o, &cluster, err);

	if (r < 0)
		return r;
	if (old) {
		r = alloc_free_later(o, old >> o->cluster_bits, err);
		forget_table(o, old >> o->cluster_bits);
	}
	if (r >= 0 && !o->l2[idx]) {
		o->l2[idx] = page_set_new(o, 0);
		if (!o->l2[idx])
			r = error_set(err, -ENOMEM, 0, "out of memory");
		else
			o->n_l2++;
	}
	if (r < 0) {
		alloc_return(o, cluster);
		return r;
	}
	o->l2[idx]->host_off = cluster << o->cluster_bits;
	o->l2[idx]->fresh = true;
	o->l2[idx]->used = ++o->clock;
	table_dirty(o, o->l2[idx], 0);
	/* See table_is_absent(). */
	__atomic_store_n(&o->l1[idx],
			 htobe64(o->l2[idx]->host_off | QCOW2_COPIED),
			 __ATOMIC_RELEASE);
	o->l1_dirty[idx] = o->any_l1_dirty = true;
	return 0;
}

int table_get_writable(struct qcow2_file *o, uint64_t guest_off,
		       struct page_set **ret, struct error *err)
{
	uint64_t idx = l1_index(o, guest_off);
	struct page_set *t;
	int r = table_get(o, guest_off, &t, err);

	if (r >= 0 && (!t || !(be64toh(o->l1[idx]) & QCOW2_COPIED)))
		r = own_table(o, idx, err);
	if (r < 0)
		return r;
	*ret = o->l2[idx];
	return 0;
}

bool tables_are_many_dirty(const struct qcow2_file *o)
{
	return o->n_l2_dirty << o->cluster_bits > TABLES_DIRTY_BYTES;
}

/* What was used least lately goes, but for what waits for a flush. */
void tables_trim(struct qcow2_file *o)
{
	size_t keep = (size_t)max_u64(4, TABLES_BYTES >> o->cluster_bits);
	uint64_t i, before;

	if (o->in_flight || o->n_l2 - o->n_l2_dirty <= keep)
		return;
	/* Half of them, by age: seldom, so that a look at all does no harm. */
	before = o->clock - min_u64(o->clock, keep / 2);
	for (i = 0; i < o->n_l1; i++) {
		struct page_set *t = o->l2[i];

		if (!t || t->dirty || t->used > before)
			continue;
		page_set_free(t);
		o->l2[i] = NULL;
		o->n_l2--;
	}
}

static uint64_t entry_at(const struct qcow2_file *o, uint64_t guest_off)
{
	uint64_t idx =
		guest_off >> o->cluster_bits & ((1ULL << o->l2_bits) - 1);

	return idx * o->s->l2_entry_bytes;
}

struct entry entry_get(const struct qcow2_file *o, const struct page_set *t,
		       uint64_t guest_off)
{
	const uint8_t *raw;
	struct entry e = { 0 };
	uint64_t v;

	if (!t)
		return e;
	raw = t->buf + entry_at(o, guest_off);
	memcpy(&v, raw, sizeof(v));
	e.word = be64toh(v);
	if (o->extended) {
		memcpy(&v, raw + 8, sizeof(v));
		e.bitmap = be64toh(v);
	}
	return e;
}

void entry_set(struct qcow2_file *o, struct page_set *t, uint64_t guest_off,
	       struct entry e)
{
	uint64_t at = entry_at(o, guest_off), v = htobe64(e.word);

	memcpy(t->buf + at, &v, sizeof(v));
	if (o->extended) {
		v = htobe64(e.bitmap);
		memcpy(t->buf + at + 8, &v, sizeof(v));
	}
	table_dirty(o, t, at);
	log_note(o, guest_off, e);
}

uint64_t entry_place(const struct entry *e)
{
	if (e->word & QCOW2_COMPRESSED || !(e->word & QCOW2_COPIED))
		return 0;
	return e->word & QCOW2_OFFSET_MASK;
}
