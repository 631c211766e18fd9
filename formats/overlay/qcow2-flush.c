/* SPDX-License-Identifier: BSD-3-Clause */
/* Making durable what an overlay holds; qcow2-write.h has the order. */
#include <errno.h>
#include <inttypes.h>

#include "formats/put-be.h"
#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

/* Copies of what is to be written, so that memory may change meanwhile. */
struct piece {
	uint64_t host_off;
	uint8_t *buf;
	size_t len;
};

struct pieces {
	struct piece *items;
	size_t n, room;
};

struct flush {
	struct pieces first; /* refcounts, tables nobody refers to yet */
	struct pieces second; /* what leads to them, and to data */
	struct cluster_list freed;
	struct punch_list punches;
	bool wrote;
	uint64_t refcounts_written;
};

static void pieces_done(struct pieces *p)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		free(p->items[i].buf);
	free(p->items);
}

static int pieces_add(struct pieces *p, uint64_t host_off, const void *buf,
		      size_t len, struct error *err)
{
	struct piece *grown;
	size_t room;

	if (p->n == p->room) {
		room = p->room ? 2 * p->room : 16;
		grown = realloc(p->items, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		p->items = grown;
		p->room = room;
	}
	p->items[p->n] = (struct piece){ host_off, malloc(len), len };
	if (!p->items[p->n].buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	memcpy(p->items[p->n++].buf, buf, len);
	return 0;
}

static bool page_is_dirty(const struct page_set *s, uint64_t page)
{
	return s->dirty_pages[page / 64] >> page % 64 & 1;
}

/* The dirty pages; all of it where nothing in the file refers to it yet. */
static int collect_pages(const struct qcow2_file *o, const struct page_set *s,
			 struct pieces *to, struct error *err)
{
	uint64_t pages = o->cluster_bytes / o->page_bytes, i = 0, n;
	int r = 0;

	if (s->fresh)
		return pieces_add(to, s->host_off, s->buf, o->cluster_bytes,
				  err);
	while (i < pages && r >= 0) {
		for (n = 0; i + n < pages && page_is_dirty(s, i + n); n++)
			;
		if (n)
			r = pieces_add(to, s->host_off + i * o->page_bytes,
				       s->buf + i * o->page_bytes,
				       n * o->page_bytes, err);
		i += n + 1;
	}
	return r;
}

static int collect_refcounts(struct qcow2_file *o, struct pieces *to,
			     struct error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < o->rc.n && r >= 0; i++)
		if (o->rc.blocks[i] && o->rc.blocks[i]->dirty)
			r = collect_pages(o, o->rc.blocks[i], to, err);
	return r;
}

static int collect_tables(struct qcow2_file *o, struct flush *f,
			  struct error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < o->n_l1 && r >= 0 && o->n_l2_dirty; i++) {
		struct page_set *t = o->l2[i];

		if (t && t->dirty)
			r = collect_pages(
				o, t, t->fresh ? &f->first : &f->second, err);
	}
	for (i = 0; i < o->n_l1 && r >= 0 && o->any_l1_dirty; i++)
		if (o->l1_dirty[i])
			r = pieces_add(&f->second, o->s->h.l1_off + i * 8,
				       &o->l1[i], 8, err);
	return r;
}

static void clean_refcounts(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; i < o->rc.n; i++)
		if (o->rc.blocks[i])
			page_clean(o->rc.blocks[i]);
}

static void clean_tables(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; i < o->n_l1; i++) {
		if (o->l2[i]) {
			page_clean(o->l2[i]);
			o->l2[i]->was_fresh = o->l2[i]->fresh;
			o->l2[i]->fresh = false;
		}
		o->l1_dirty[i] = false;
	}
	o->n_l2_dirty = 0;
	o->any_l1_dirty = false;
}

/*
 * What has to be written, as it is now. Nothing is marked as clean unless all
 * of it could be copied.
 */
static int collect(struct qcow2_file *o, struct flush *f, struct error *err)
{
	int r;

	pthread_mutex_lock(&o->meta);
	f->wrote = atomic_exchange(&o->wrote, false);
	/* What failed when it was due, as a longer table of refcounts. */
	r = o->rc.table_dirty || o->rc.table_moved ? flush_refcounts_now(o, err)
						   : 0;
	if (r >= 0)
		r = collect_refcounts(o, &f->first, err);
	if (r >= 0)
		r = collect_tables(o, f, err);
	if (r >= 0) {
		clean_refcounts(o);
		clean_tables(o);
		log_turn(o);
		o->in_flight = true;
		f->refcounts_written = o->rc.written;
		f->freed = o->freed;
		o->freed = (struct cluster_list){ 0 };
		f->punches = o->punches;
		o->punches = (struct punch_list){ 0 };
	} else if (f->wrote) {
		atomic_store(&o->wrote, true);
	}
	pthread_mutex_unlock(&o->meta);
	return r;
}

static int write_pieces(struct qcow2_file *o, const struct pieces *p,
			struct error *err)
{
	struct batch_io *ios;
	size_t i;
	int r;

	if (!p->n)
		return 0;
	ios = calloc(p->n, sizeof(*ios));
	if (!ios)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < p->n; i++)
		ios[i] = (struct batch_io){ .src = o->src,
					    .off = p->items[i].host_off,
					    .buf = p->items[i].buf,
					    .len = p->items[i].len,
					    .op = BATCH_WRITE };
	r = batch_run(ios, p->n);
	free(ios);
	if (r < 0)
		return error_set(err, r, 0, "tables cannot be written: %s",
				 errno_text(-r));
	return 0;
}

/* Did a sync fail, ever? */
static int flush_check(struct qcow2_file *o, struct error *err)
{
	int r;

	pthread_mutex_lock(&o->flush_lock);
	r = o->broken;
	pthread_mutex_unlock(&o->flush_lock);
	if (r < 0)
		error_set(err, r, 0,
			  "an earlier flush failed (%s): nothing more can be "
			  "made durable, open it again",
			  errno_text(-r));
	return r;
}

void flush_break(struct qcow2_file *o, int code)
{
	pthread_mutex_lock(&o->flush_lock);
	o->broken = code;
	pthread_mutex_unlock(&o->flush_lock);
	log_spoil(o);
}

int flush_sync(struct qcow2_file *o, struct error *err)
{
	int r;

	r = flush_check(o, err);
	if (r < 0 || o->temporary)
		return r;
	atomic_fetch_add(&o->n_syncs, 1);
	r = source_sync(o->src, err);
	if (r < 0)
		flush_break(o, r); /* the kernel has forgotten what it was */
	return r;
}

/* Clusters side by side in the file. */
struct run {
	uint64_t first, n;
};

static void punch_run(struct qcow2_file *o, struct run *run)
{
	if (run->n)
		source_punch(o->src, run->first << o->cluster_bits,
			     run->n << o->cluster_bits, NULL);
	run->n = 0;
}

/* One reference less; the last one gone, it may be used again. */
static int drop_reference(struct qcow2_file *o, uint64_t cluster,
			  struct run *run, struct error *err)
{
	uint64_t refs;
	int r = refs_get(o, cluster, &refs, err);

	if (r < 0 || !refs)
		return r;
	if (refs > 1)
		return refs_set(o, cluster, refs - 1, err);
	r = list_add(&o->pool, cluster, err);
	if (r < 0)
		return r;
	if (run->n && run->first + run->n != cluster)
		punch_run(o, run);
	if (!run->n)
		run->first = cluster;
	run->n++;
	return 0;
}

/*
 * Nobody refers to these on the disk any more, and no request that began when
 * somebody did is under way: gate is held for writing.
 */
static int reclaim(struct qcow2_file *o, const struct cluster_list *freed,
		   struct error *err)
{
	struct run run = { 0 };
	size_t i;
	int r = 0;

	pthread_mutex_lock(&o->meta);
	for (i = 0; i < freed->n && r >= 0; i++)
		r = drop_reference(o, freed->items[i], &run, err);
	punch_run(o, &run);
	pthread_mutex_unlock(&o->meta);
	return r;
}

/* Still without data, in memory: then the room can go. */
static void punch(struct qcow2_file *o, const struct punch *p)
{
	uint64_t first = p->in_cluster / o->sub_bytes;
	uint64_t n = p->bytes / o->sub_bytes, place = 0;
	uint64_t mask = ((n < 32 ? 1ULL << n : 1ULL << 32) - 1) << first;
	struct page_set *t;
	struct entry e;

	pthread_mutex_lock(&o->meta);
	if (!table_get(o, p->guest_off, &t, NULL)) {
		e = entry_get(o, t, p->guest_off);
		if (!(e.bitmap & mask))
			place = entry_place(&e);
	}
	pthread_mutex_unlock(&o->meta);
	if (place)
		source_punch(o->src, place + p->in_cluster, p->bytes, NULL);
}

/* Room goes back in whole and in part. */
static int give_back(struct qcow2_file *o, const struct flush *f,
		     struct error *err)
{
	size_t i;
	int r;

	if (!f->freed.n && !f->punches.n)
		return 0;
	if (!o->gate_held)
		pthread_rwlock_wrlock(o->gate);
	r = reclaim(o, &f->freed, err);
	for (i = 0; i < f->punches.n; i++)
		punch(o, &f->punches.items[i]);
	if (!o->gate_held)
		pthread_rwlock_unlock(o->gate);
	return r;
}

static void dirty_all(const struct qcow2_file *o, struct page_set *p)
{
	uint64_t at;

	for (at = 0; at < o->cluster_bytes; at += o->page_bytes)
		page_dirty(o, p, at);
}

static void dirty_refcounts(struct qcow2_file *o)
{
	uint64_t i;

	for (i = 0; i < o->rc.n; i++)
		if (o->rc.blocks[i])
			dirty_all(o, o->rc.blocks[i]);
}

/* Something could not be written: all of it is to be written again. */
static void mark_again(struct qcow2_file *o, struct flush *f)
{
	uint64_t i;
	size_t k;

	dirty_refcounts(o);
	for (i = 0; i < o->n_l1; i++) {
		struct page_set *t = o->l2[i];

		if (!t)
			continue;
		if (!t->dirty)
			o->n_l2_dirty++;
		dirty_all(o, t);
		t->fresh = t->fresh || t->was_fresh;
		o->l1_dirty[i] = o->any_l1_dirty = true;
	}
	for (k = 0; k < f->freed.n; k++)
		list_add(&o->freed, f->freed.items[k], NULL);
	f->freed.n = f->punches.n = 0;
	atomic_store(&o->wrote, true);
}

/* The copies have been written, or could not be. */
static void settle(struct qcow2_file *o, struct flush *f, bool ok)
{
	uint64_t i;

	pthread_mutex_lock(&o->meta);
	if (!ok)
		mark_again(o, f);
	else if (f->refcounts_written != o->rc.written)
		dirty_refcounts(o); /* ours may have come later */
	if (ok)
		log_flushed(o);
	for (i = 0; i < o->n_l1; i++)
		if (o->l2[i])
			o->l2[i]->was_fresh = false;
	o->in_flight = false;
	pthread_mutex_unlock(&o->meta);
}

static int write_all(struct qcow2_file *o, struct flush *f, struct error *err)
{
	int r = write_pieces(o, &f->first, err);

	if (r >= 0 && (f->first.n || f->second.n || f->wrote))
		r = flush_sync(o, err);
	/* From here on nothing refers to what was freed. */
	if (r >= 0 && f->freed.n) {
		pthread_mutex_lock(&o->meta);
		r = repair_mark(o, err);
		pthread_mutex_unlock(&o->meta);
	}
	if (r >= 0)
		r = write_pieces(o, &f->second, err);
	if (r >= 0 && f->second.n)
		r = flush_sync(o, err);
	return r;
}

int flush_run(struct qcow2_file *o, struct error *err)
{
	struct flush f = { 0 };
	int r = flush_check(o, err);

	if (r >= 0)
		r = collect(o, &f, err);
	if (r >= 0) {
		r = write_all(o, &f, err);
		settle(o, &f, r >= 0);
		if (r >= 0)
			r = give_back(o, &f, err);
	}
	pieces_done(&f.first);
	pieces_done(&f.second);
	free(f.freed.items);
	free(f.punches.items);
	return r;
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
	return r < 0 ? r : flush_sync(o, err);
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
		r = flush_sync(o, err);
	if (r < 0)
		return r;
	/* What the reader takes for metadata, too. */
	s->h.reftable_off = o->rc.table_off;
	s->h.reftable_clusters = (uint32_t)(o->rc.n * 8 >> o->cluster_bits);
	return 0;
}

int flush_refcounts_now(struct qcow2_file *o, struct error *err)
{
	struct refcounts *rc = &o->rc;
	struct pieces blocks = { 0 };
	uint64_t i;
	int r = collect_refcounts(o, &blocks, err);

	if (r >= 0)
		r = write_pieces(o, &blocks, err);
	pieces_done(&blocks);
	if (r >= 0)
		r = flush_sync(o, err);
	if (r < 0)
		return r;
	clean_refcounts(o);
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

/*
 * What is free is not counted any more, then it is not in the file any more.
 * The second flush writes the refcounts that the first one made 0.
 */
int flush_last(struct qcow2_file *o, struct error *err)
{
	uint64_t end = 0;
	int r = flush_run(o, err);

	if (r >= 0)
		r = alloc_release(o, &end, err);
	if (r >= 0)
		r = flush_run(o, err);
	if (r < 0)
		return r;
	if (end < o->end)
		r = source_truncate(o->src, end << o->cluster_bits, err);
	if (r >= 0)
		o->end = o->ahead = o->ahead_end = end;
	if (r >= 0)
		r = flush_sync(o, err);
	/* All before this is on the disk. */
	if (r >= 0)
		r = log_end(o, err);
	if (r >= 0)
		r = repair_unmark(o, err);
	if (r >= 0)
		log_remove(o);
	return r;
}
