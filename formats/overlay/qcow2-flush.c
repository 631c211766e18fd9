/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making durable what an overlay holds; qcow2-write.h has the order of writes.
 *
 *	collected -> first written, synced -> second written, synced
 *	  -> settled -> given back
 *
 * collect() copies what is dirty, calls it clean and turns the log, with meta
 * held; all after that works on the copies, beside requests, which make pages
 * dirty again for the next flush. While copies are under way (in_flight) no
 * table is dropped from memory, as what the disk has of it is older. settle()
 * ends that: well, or by mark_again(), which makes all of it dirty again; what
 * nobody referred to still is so (was_fresh), and what was freed waits for the
 * next flush.
 *
 * There is one flush at a time, and who comes while one is under way needs the
 * next: the first may have looked before he wrote (qcow2_file_flush()). The
 * first sync is the data's as well, which went to their places before: what is
 * not on the disk must not be referred to there. The second is done only where
 * entries were written. No place is used again, or punched, before nothing on
 * the disk refers to it and no request is under way that looked it up: for that
 * alone gate is taken for writing. There are no flushes of ranges, as the order
 * is the file's; and after a sync that failed none at all (disk_break()): the
 * kernel may have dropped what it could not write, and call the rest clean.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

struct flush {
	struct pieces first; /* refcounts, tables nobody refers to yet */
	struct pieces second; /* what leads to them, and to data */
	struct cluster_list freed;
	struct punch_list punches;
	bool wrote;
	uint64_t refcounts_written;
};

static int collect_tables(struct qcow2_file *o, struct flush *f,
			  struct error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < o->n_l1 && r >= 0 && o->n_l2_dirty; i++) {
		struct page_set *t = o->l2[i];

		if (t && t->dirty)
			r = pieces_add_dirty(
				o, t, t->fresh ? &f->first : &f->second, err);
	}
	for (i = 0; i < o->n_l1 && r >= 0 && o->any_l1_dirty; i++)
		if (o->l1_dirty[i])
			r = pieces_add(&f->second, o->s->h.l1_off + i * 8,
				       &o->l1[i], 8, err);
	return r;
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
	r = o->rc.table_dirty || o->rc.table_moved ? refs_write(o, err) : 0;
	if (r >= 0)
		r = refs_collect(o, &f->first, err);
	if (r >= 0)
		r = collect_tables(o, f, err);
	if (r >= 0) {
		refs_clean(o);
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

/* Something could not be written: all of it is to be written again. */
static void mark_again(struct qcow2_file *o, struct flush *f)
{
	uint64_t i;
	size_t k;

	refs_dirty(o);
	for (i = 0; i < o->n_l1; i++) {
		struct page_set *t = o->l2[i];

		if (!t)
			continue;
		if (!t->dirty)
			o->n_l2_dirty++;
		page_dirty_all(o, t);
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
		refs_dirty(o); /* ours may have come later */
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
	int r = pieces_write(o, &f->first, err);

	if (r >= 0 && (f->first.n || f->second.n || f->wrote))
		r = disk_sync(o, err);
	/* From here on nothing refers to what was freed. */
	if (r >= 0 && f->freed.n) {
		pthread_mutex_lock(&o->meta);
		r = dirty_mark(o, err);
		pthread_mutex_unlock(&o->meta);
	}
	if (r >= 0)
		r = pieces_write(o, &f->second, err);
	if (r >= 0 && f->second.n)
		r = disk_sync(o, err);
	return r;
}

int flush_run(struct qcow2_file *o, struct error *err)
{
	struct flush f = { 0 };
	int r = disk_check(o, err);

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
		r = disk_sync(o, err);
	/* All before this is on the disk. */
	if (r >= 0)
		r = log_end(o, err);
	if (r >= 0)
		r = dirty_unmark(o, err);
	if (r >= 0)
		log_remove(o);
	return r;
}
