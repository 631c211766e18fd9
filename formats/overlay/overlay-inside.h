/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An overlay, inside: what overlay.c, which serves requests, shares with
 * overlay-snapshot.c and overlay-merge.c, which change its chain.
 */
#ifndef FORMATS_OVERLAY_OVERLAY_INSIDE_H
#define FORMATS_OVERLAY_OVERLAY_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/overlay/qcow2-write.h"

struct overlay {
	atomic_uint refs;
	char *path; /* NULL: temporary */
	_Atomic uint64_t bytes; /* virtual size; while it is used, only grows */
	uint64_t unit_bytes; /* of the file that was opened first */
	unsigned int detect;
	uint64_t bytes_max, free_min;
	bool direct;
	bool log;
	/*
	 * Held by who changes the chain, for as long as that takes. The first
	 * to be taken.
	 */
	pthread_mutex_t chain;
	/*
	 * gate: see qcow2-write.h. swap: held for reading by who uses file or
	 * its base without gate; for writing, before gate, by who puts another
	 * in.
	 */
	pthread_rwlock_t gate, swap;
	struct qcow2_file *file; /* NULL: not made yet */
	struct overlay_plan *plan; /* how it shall be made; or NULL */

	atomic_bool held; /* overlay_pull() has not begun */
	atomic_bool standby; /* the file is another process's still */
	pthread_mutex_t fence_lock; /* of fencing; never over I/O */
	pthread_cond_t fenced;
	bool fencing; /* somebody is, who alone changes the following */
	/* What is being fenced off, and what the file says: no more than that. */
	_Atomic uint64_t fence, epoch;
};

/* -ENOENT: nothing has been written, so that there is no file. */
int overlay_check_made(struct overlay *o, struct error *err);

/*
 * ---- overlay-tidy.c ----
 * A file of the snapshot @name goes when nothing leads to it any more. That is
 * noted on the disk before anything is done, and until it is done: who opens
 * the overlay after a crash goes on with it.
 */
int overlay_doom(const struct overlay *o, const char *frozen,
		 struct error *err);
void overlay_spare(const char *frozen);
/* Does away with what a crash left of changes of the chain. Locked, at open. */
int overlay_tidy(struct overlay *o, struct error *err);

/* ---- overlay-frozen.c ---- */

#define OVERLAY_SUFFIX ".qcow2"

/* The part behind the last '/'. */
const char *overlay_file_name(const char *path);

/* "FOLDER/STEM@NAME.qcow2" for "FOLDER/STEM.qcow2"; NULL: no memory. */
char *overlay_frozen_path(const char *path, const char *name);

/* Where the snapshot @name of @o lies, or would; *ret is the caller's. */
int overlay_snapshot_path(const struct overlay *o, const char *name, char **ret,
			  struct error *err);

/*
 * Which layer below is the snapshot @name? -1: none. Swap is held, or chain.
 */
int overlay_find_frozen(const struct overlay *o, const char *name);

/* The path of layer @at below, which lies in the overlay's folder. To be freed. */
char *overlay_layer_path(const struct overlay *o, unsigned int at);

/*
 * Nobody else may rely on the file @path of the snapshot @name; it is locked
 * until *ret goes.
 */
int overlay_lock_frozen(const char *path, const char *name, struct source **ret,
			struct error *err);
int overlay_remove_frozen(const char *path, struct error *err);

/* ---- overlay-pull.c ---- */

/*
 * Of what is being pulled: @buf was read from [@off, @off + @len) a moment ago. What
 * of it came from afar, in whole subclusters, need not be fetched again, if it
 * can be kept. No lock is held. True: a flush is due.
 */
bool overlay_keep_read(struct overlay *o, const void *buf, size_t len,
		       uint64_t off);

/* ---- overlay.c ---- */

/* -EBUSY: the chain is being changed. On success the caller lets it go. */
int overlay_take_chain(struct overlay *o, struct error *err);
void overlay_leave_chain(struct overlay *o);

#endif
