/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 writer, inside: what its files share. See overlay.h for what it
 * promises.
 *
 * In memory is what the guest sees; on the disk is what it saw at the last
 * flush. Data go to their places at once. L2 entries wait in memory for a
 * flush, which writes, in this order:
 *
 *	1  refcounts of what was allocated, L2 tables nobody refers to yet
 *	   -- fdatasync: now the data are there, too --
 *	2  changed L2 entries, L1 entries of new tables
 *	   -- fdatasync --
 *	3  what nobody refers to any more becomes free, in memory: it may
 *	   be used again, and is punched out of the file
 *
 * A crash leaves what was allocated ahead, and what step 3 freed, with a
 * refcount and without a reference: leaks, until it is opened for writing again.
 *
 * Locks, in this order:
 *	gate	held for reading by every request; for writing by who must
 *		know that none is under way
 *	stripe	of guest clusters; for reading by who writes to places that
 *		are fixed, for writing by who copies, zeroes or trims
 *	meta	everything below, for as long as memory takes, and for the
 *		first reading of a table
 */
#ifndef FORMATS_OVERLAY_QCOW2_WRITE_H
#define FORMATS_OVERLAY_QCOW2_WRITE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/overlay/overlay.h"
#include "formats/drivers/qcow2.h"
#include "iouring/batch.h"

#define STRIPES	       64U
#define PAGE_BYTES_MAX 4096U /* tables are written by pages of this size */
#define PAGES_MAX      ((1U << QCOW2_CLUSTER_BITS_MAX) / PAGE_BYTES_MAX)

/* A cluster of metadata in memory, as it lies in the file. */
struct page_set {
	uint64_t host_off;
	uint8_t *buf; /* a cluster */
	bool dirty; /* any page */
	bool fresh; /* nothing in the file refers to it yet */
	bool was_fresh; /* the same before the flush under way */
	uint64_t used; /* by overlay.clock */
	uint64_t dirty_pages[PAGES_MAX / 64];
};

/* "Host cluster management". Clusters are told by their number in the file. */
struct refcounts {
	uint64_t *table; /* host offsets of blocks; 0: there is none */
	struct page_set **blocks; /* NULL: not read yet */
	uint64_t n; /* entries of both */
	uint64_t table_off;
	unsigned int order;
	uint64_t per_block;
	bool table_dirty; /* an entry, first_dirty..last_dirty */
	bool table_moved; /* the whole table, and the header's field */
	uint64_t written; /* times, by refs_write() */
	uint64_t first_dirty, last_dirty;
};

/* An L2 entry. */
struct entry {
	uint64_t word; /* host order */
	uint64_t bitmap; /* extended: low half data, high half zeroes */
};

/* Cluster numbers. */
struct cluster_list {
	uint64_t *items;
	size_t n, room;
};

/* A subcluster range to be punched when its unmapping is durable. */
struct punch {
	uint64_t guest_off; /* of the cluster */
	uint64_t in_cluster;
	uint64_t bytes;
};

struct punch_list {
	struct punch *items;
	size_t n, room;
};

/* One file that is written. */
struct qcow2_file {
	char *path;
	struct source *src;
	struct layer *top; /* the same file, as its reader knows it */
	struct image *base; /* NULL: zeroes */
	const struct qcow2_state *s; /* top's */
	struct overlay_options options;

	struct qcow2_log *log;
	bool temporary; /* gone with us: durable is nothing */
	bool dirty; /* so marked */

	uint64_t bytes;
	uint64_t cluster_bytes;
	unsigned int cluster_bits;
	unsigned int l2_bits;
	bool extended;
	unsigned int subs; /* subclusters: 32, or 1 */
	uint64_t sub_bytes;
	uint32_t page_bytes;

	pthread_rwlock_t *gate; /* the overlay's */
	bool gate_held; /* for writing, by who flushes */
	pthread_rwlock_t stripes[STRIPES];

	pthread_mutex_t meta; /* the rest but for what flush_lock protects */
	uint64_t clock;
	uint64_t *l1; /* as in the file */
	uint64_t n_l1;
	bool *l1_dirty;
	bool any_l1_dirty;
	struct page_set **l2; /* by L1 index; NULL: not read */
	size_t n_l2; /* in memory */
	size_t n_l2_dirty;
	bool in_flight; /* a flush has copies: tables must stay */
	/* L2 tables and refcount blocks that the file came with; sorted. */
	struct cluster_list tables;
	struct refcounts rc;
	uint64_t end; /* clusters of the file */
	uint64_t ahead, ahead_end; /* allocated, not in use */
	struct cluster_list pool; /* the same, scattered */
	struct cluster_list freed; /* from the next flush on */
	struct punch_list punches; /* after the next flush */

	atomic_bool wrote; /* data, since the last flush */

	pthread_mutex_t flush_lock;
	pthread_cond_t flush_ended;
	bool flushing;
	uint64_t flushes_begun, flushes_ended;
	int flush_code; /* of the last that ended */
	int broken; /* a sync failed with this: no later one can be trusted */
	atomic_uint_fast64_t n_flushes, n_syncs;
};

/* ---- qcow2-open.c ---- */

/* As overlay_create(), overlay_open() and overlay_open_temp(). */
int qcow2_file_open(const char *path, struct image *base, const char *base_name,
		    const struct overlay_options *options,
		    pthread_rwlock_t *gate, struct qcow2_file **ret,
		    struct error *err);
int qcow2_file_open_temp(const char *folder, struct image *base,
			 const struct overlay_options *options,
			 pthread_rwlock_t *gate, struct qcow2_file **ret,
			 struct error *err);
/* Does not flush: see flush_last(). NULL is fine. */
void qcow2_file_close(struct qcow2_file *f);

/* ---- qcow2-overlay.c: gate is held for reading, but for a flush ---- */

int qcow2_file_read(struct qcow2_file *f, void *buf, size_t len, uint64_t off,
		    struct zero_runs *zeroes, struct error *err);
int qcow2_file_walk(struct qcow2_file *f, uint64_t off, uint64_t len,
		    int (*each)(void *opaque, uint64_t off,
				const struct extent *e),
		    void *opaque, uint64_t *ret_end, struct error *err);
/* As overlay_walk_changes(). Gate is held for reading. */
int qcow2_file_walk_changes(struct qcow2_file *f, struct image *from,
			    uint64_t off, uint64_t len,
			    int (*each)(void *opaque, uint64_t off,
					uint64_t len, enum change change),
			    void *opaque, uint64_t *ret_end, struct error *err);

int qcow2_file_write(struct qcow2_file *f, const void *buf, size_t len,
		     uint64_t off, struct error *err);
int qcow2_file_zero(struct qcow2_file *f, uint64_t off, uint64_t len,
		    unsigned int flags, struct error *err);
int qcow2_file_trim(struct qcow2_file *f, uint64_t off, uint64_t len,
		    struct error *err);
int qcow2_file_flush(struct qcow2_file *f, struct error *err);
/* So much waits in memory that a flush is due. */
bool qcow2_file_is_full(struct qcow2_file *f);

/* ---- qcow2-pages.c ---- */

struct page_set *page_set_new(const struct qcow2_file *o, uint64_t host_off);
void page_set_free(struct page_set *p); /* NULL is fine */
/* The page with the byte @at is to be written; all pages are. Meta is held. */
void page_dirty(const struct qcow2_file *o, struct page_set *p, uint64_t at);
void page_dirty_all(const struct qcow2_file *o, struct page_set *p);
void page_clean(struct page_set *p);
/* -ENOMEM */
int list_add(struct cluster_list *l, uint64_t cluster, struct error *err);

/* ---- qcow2-disk.c ---- */

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

/* Adds a copy of @len bytes at @buf, which belong at @host_off. -ENOMEM */
int pieces_add(struct pieces *p, uint64_t host_off, const void *buf, size_t len,
	       struct error *err);
/* The dirty pages; all of it where nothing in the file refers to it yet. */
int pieces_add_dirty(const struct qcow2_file *o, const struct page_set *s,
		     struct pieces *to, struct error *err);
/* All at once, in any order; no lock need be held. */
int pieces_write(struct qcow2_file *o, const struct pieces *p,
		 struct error *err);
void pieces_done(struct pieces *p); /* zeroed is fine */

/* Syncs, and remembers a failure for ever. Nothing for a temporary file. */
int disk_sync(struct qcow2_file *o, struct error *err);
/* Did a sync fail, ever? */
int disk_check(struct qcow2_file *o, struct error *err);
/* All that follows shall fail: what the disk has is not known. */
void disk_break(struct qcow2_file *o, int code);

/* ---- qcow2-dirty.c ---- */

/* Four bytes a cluster: 3 TiB of 64 KiB clusters. */
#define REPAIR_BYTES_MAX (192ULL << 20)

/*
 * The file is marked as dirty, durably, from before the first cluster that has a
 * refcount and is not referred to until the clean end: so that after a crash the
 * next opening gives back what leaked. Not where that could not be done, as in
 * version 2. Meta is held, or nobody else is there.
 */
int dirty_mark(struct qcow2_file *o, struct error *err);
int dirty_unmark(struct qcow2_file *o, struct error *err);
/* The same for who plans to: could it be marked? */
bool dirty_is_possible(const struct qcow2_file *o);

/* ---- qcow2-refs.c: refcounts, allocation ---- */

int refs_open(struct qcow2_file *o, struct error *err);
void refs_done(struct qcow2_file *o);
/* Meta is held in all of these. */
int refs_get(struct qcow2_file *o, uint64_t cluster, uint64_t *ret,
	     struct error *err);
int refs_set(struct qcow2_file *o, uint64_t cluster, uint64_t refs,
	     struct error *err);
/* Sees to it that there is a block for this one. */
int refs_cover(struct qcow2_file *o, uint64_t cluster, struct error *err);
/* One cluster, its refcount being 1. */
int alloc_cluster(struct qcow2_file *o, uint64_t *ret, struct error *err);
/* @n neighbours. */
int alloc_run(struct qcow2_file *o, uint64_t n, uint64_t *ret,
	      struct error *err);
/* One that was allocated and is not used after all. */
void alloc_return(struct qcow2_file *o, uint64_t cluster);
/* Nobody refers to it once the next flush is done. */
int alloc_free_later(struct qcow2_file *o, uint64_t cluster, struct error *err);
/*
 * Gives back all that is allocated ahead: refcounts are 0 in memory.
 * *ret_end: clusters that the file needs.
 */
int alloc_release(struct qcow2_file *o, uint64_t *ret_end, struct error *err);

/*
 * Writes every dirty block, then what leads to new ones, each durable before
 * the next.
 */
int refs_write(struct qcow2_file *o, struct error *err);
/* For a flush: copies of the dirty blocks; they are clean; all are to be written. */
int refs_collect(struct qcow2_file *o, struct pieces *to, struct error *err);
void refs_clean(struct qcow2_file *o);
void refs_dirty(struct qcow2_file *o);

/* ---- qcow2-tables.c: L1 and L2 ---- */

int tables_open(struct qcow2_file *o, struct error *err);
void tables_done(struct qcow2_file *o);
/* At open, when all tables are known: see tables_have(). */
int tables_remember(struct qcow2_file *o, struct error *err);
/*
 * Is this cluster metadata: header, L1 table, refcount table, snapshot table,
 * or a table that the file came with? Meta is held.
 */
bool tables_have(const struct qcow2_file *o, uint64_t cluster);
/*
 * Has @guest_off no L2 table? Gate is held, meta need not be: a request that
 * ended before is seen, one under way perhaps.
 */
bool table_is_absent(const struct qcow2_file *o, uint64_t guest_off);
/*
 * The L2 table that maps @guest_off; *ret NULL: there is none. Meta is held,
 * and the table stays until it is let go.
 */
int table_get(struct qcow2_file *o, uint64_t guest_off, struct page_set **ret,
	      struct error *err);
/* The same to be changed: made, or made our own, if need be. */
int table_get_writable(struct qcow2_file *o, uint64_t guest_off,
		       struct page_set **ret, struct error *err);
/* Drops clean tables beyond what may stay. */
void tables_trim(struct qcow2_file *o);
bool tables_are_many_dirty(const struct qcow2_file *o);

struct entry entry_get(const struct qcow2_file *o, const struct page_set *t,
		       uint64_t guest_off);
void entry_set(struct qcow2_file *o, struct page_set *t, uint64_t guest_off,
	       struct entry e);
/* Its place may be written: data of our own. 0: not. */
uint64_t entry_place(const struct entry *e);

/* ---- qcow2-repair.c ---- */

/*
 * At open, of a file that is marked as dirty: counts all references anew, those
 * of tables in memory as they are there; the file stays marked. What it cannot
 * make sense of is -EBADMSG, and nothing is written.
 */
int repair_refcounts(struct qcow2_file *o, struct error *err);
/* ---- qcow2-log.c: what was answered outlives the process ---- */

/*
 * How long the lock of file @path is waited for: who holds it may be dead but
 * for what he has in flight. NULL: of one that only such can hold.
 */
unsigned int log_patience_ms(const char *path);
/*
 * At open, locked, before anything is read: if a sync of the file failed, what
 * the kernel has of it in memory is dropped, so that it is as the disk has it.
 */
int log_drop_unwritten(struct qcow2_file *o, struct error *err);
/*
 * At open, when the header is known: is there a log, and of what worth? -EIO:
 * there should be one, and there is none that can be done again.
 */
int log_open(struct qcow2_file *o, struct error *err);
void log_done(struct qcow2_file *o);
/* At open, when tables are: what it has is in memory then, for a flush. */
int log_replay(struct qcow2_file *o, struct error *err);
/* There was one, of a process that died; log_forget() when all is flushed. */
bool log_was_left(const struct qcow2_file *o);
int log_forget(struct qcow2_file *o, struct error *err);

/* Before a request that may change an entry. No lock is held. */
int log_begin(struct qcow2_file *o, struct error *err);
/* An entry has been changed. Meta is held. */
void log_note(struct qcow2_file *o, uint64_t guest_off, struct entry e);
/*
 * Before a request is answered: all that has been noted by now is in the log. No
 * lock but gate and a stripe is held.
 */
int log_commit(struct qcow2_file *o, struct error *err);
bool log_is_due(const struct qcow2_file *o); /* a flush is; meta is held */
/* A flush has copied what it will write; it ended well. Meta is held. */
void log_turn(struct qcow2_file *o);
void log_flushed(struct qcow2_file *o);
/* A sync failed. */
void log_spoil(struct qcow2_file *o);
/* The file, which has no log yet, will be at @path. */
int log_will_be_beside(struct qcow2_file *o, const char *path,
		       struct error *err);
/* At the end, all is flushed: it counts no more; it is no more. */
int log_end(struct qcow2_file *o, struct error *err);
void log_remove(struct qcow2_file *o);

/* ---- qcow2-flush.c ---- */

int flush_run(struct qcow2_file *o, struct error *err);
/* At the end: no other user. */
int flush_last(struct qcow2_file *o, struct error *err);

#endif
