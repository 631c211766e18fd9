/* SPDX-License-Identifier: BSD-3-Clause */
/* The threads that do what tasks say, while requests are answered. */
#ifndef GLANCE_WORKER_H
#define GLANCE_WORKER_H

#include <stdbool.h>

#include "iouring/error.h"

#define WORKER_THREADS	   8
/* Of one project at the same time: others find a thread. */
#define WORKER_PER_PROJECT 4

struct glance;
struct task;
struct worker;

/* Does what @t says, to its end, or until worker_ends(@w). Any thread. */
typedef void worker_run(struct glance *g, const struct task *t,
			struct worker *w);

/* What the last server left undone begins at once. */
int worker_start(struct glance *g, worker_run *run, struct worker **ret,
		 struct error *err);
/*
 * Waits for the threads, which stop where they are; the next server begins
 * their tasks anew. NULL is fine.
 */
void worker_stop(struct worker *w);

/* There is a new task in the index. */
void worker_wake(struct worker *w);
/* Is it to end? For those who take long. @opaque is a worker. */
bool worker_ends(void *opaque);

#endif
