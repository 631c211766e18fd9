/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads for what takes time. As many are at work as there are processors, not
 * counting those that wait (wait_begins() in nowait.h), so that short work is done by
 * a thread that is awake, and an image that hangs keeps nobody else from his.
 */
#ifndef NBD_WORKERS_H
#define NBD_WORKERS_H

#include "iouring/error.h"

/* The caller's memory until run() has returned. */
struct work {
	void (*run)(struct work *w);
	struct work *next; /* the workers' own */
};

/*
 * Before the first work. @rests: told in a worker's thread before that waits or
 * has nothing more to do.
 */
int workers_start(void (*rests)(void), struct error *err);

/* When nothing is added any more. All that was added is done. */
void workers_stop(void);

/* To the end of the line. Any thread; does not wait. */
void workers_add(struct work *w);

/* How much is in the line. Without a lock: a hint. */
unsigned int workers_line(void);

#endif
