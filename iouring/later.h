/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads that end later. A thread that must not wait (nowait.h) may have what it
 * would have to wait for begun, and be told through a descriptor when that is
 * there: its own ring does it. Of files that nobody writes alone: what a read finds
 * there is the same whenever it ends.
 *
 * All of it belongs to one thread, but for later_free().
 */
#ifndef IOURING_LATER_H
#define IOURING_LATER_H

#include "iouring/batch.h"

struct later;

/* Embedded by who reads; it stays until done() is called. */
struct later_read {
	struct later *later;
	/* @code: 0, or the first negative errno: the buffers hold anything. */
	void (*done)(struct later_read *r, int code);

	/* later.c's own. */
	unsigned int n; /* under way */
	int code;
};

/*
 * @event_fd, an eventfd, is written to when something has ended. Returns 0, or
 * a negative errno: there is no ring to be had, or none is wanted.
 */
int later_new(int event_fd, struct later **ret);

/* Nothing is under way, or it is of no interest any more; NULL is fine. */
void later_free(struct later *l);

/*
 * Begins all of @ios, which may go away; their sources are kept and their buffers
 * are the kernel's until done(). False: one of them is no such read, or there are
 * too many under way; none has begun then.
 */
bool later_begin(struct later_read *r, const struct batch_io *ios,
		 size_t n_ios);

/* What has begun since the last time goes to the kernel. */
void later_submit(struct later *l);

/* Tells of all that have ended. */
void later_reap(struct later *l);

/*
 * As batch_run(), of a batch that is the last thing to be done for a read.
 * BATCH_LATER: the thread may not wait, and the rest of it has begun.
 */
int batch_run_last(struct batch_io *ios, size_t n_ios);
#define BATCH_LATER 1

/*
 * What batch_run_last() of this thread may go on as; NULL: it may not. Set with
 * engine_nowait.
 */
extern _Thread_local struct later_read *engine_later;

#endif
