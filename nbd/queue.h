/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine's queue: requests to exports in, completions out, whatever protocol
 * they came by. A front end has a queue for each of its threads. What can be done
 * at once is done in queue_submit(), by that thread; what would wait goes to
 * workers, which all queues share, and comes back through the queue's descriptor.
 *
 * A request is the front end's memory, embedded in what it knows of the request,
 * and its buffer is written or read in place; both stay until it has ended.
 */
#ifndef NBD_QUEUE_H
#define NBD_QUEUE_H

#include <stdatomic.h>

#include "nbd/session.h"
#include "nbd/workers.h"

struct queue;
struct queue_user;

enum queue_op {
	QUEUE_READ,
	QUEUE_WRITE,
	QUEUE_ZERO,
	QUEUE_TRIM,
	QUEUE_FLUSH,
	QUEUE_PREFETCH,
	QUEUE_EXTENTS,
	QUEUE_CALL, /* whatever takes time: call */
};

struct queue_request {
	enum queue_op op;
	unsigned int flags; /* SESSION_FUA, ... */
	uint32_t len;
	uint64_t off;
	void *buf; /* to be read into, or written */
	struct zero_runs *zeroes; /* of a read; may be NULL */
	/* Of QUEUE_EXTENTS: see session_extents(). In queue_submit(), if that
	 * does it all, else in a worker. */
	const struct context *context;
	int (*each)(void *opaque, uint64_t off, uint64_t len,
		    unsigned int state);
	void *opaque;
	bool one;
	/* Of QUEUE_CALL: in a worker. */
	void (*call)(struct queue_request *r);

	/* Told in the queue's thread, unless queue_submit() has done it all. */
	void (*done)(struct queue_request *r);
	int wire; /* out: 0, or the positive errno that the client is told */

	/* The queue's own. */
	struct queue_user *user;
	struct queue_request *next;
	struct work work;
	struct session_later later;
};

/*
 * Whose requests: they are handed to workers in their order, so many at a time.
 * Embedded by the front end, zeroed but for these two; belongs to the queue's
 * thread, and stays while any request of it is under way.
 */
struct queue_user {
	struct queue *queue;
	struct connection *connection;
	atomic_bool gone; /* he takes no answers: what takes long ends, -EIO */
	/* The queue's own. */
	struct queue_request *waiting, **waiting_end;
	unsigned int at_work;
};

/*
 * For all queues, before the first. @per_user: requests of one user at a time.
 * @tell is handed what an administrator should read of; any thread.
 */
int queues_start(unsigned int per_user, void (*tell)(const struct fault *f),
		 struct error *err);
/* When no queue is left. Waits for those at work. */
void queues_stop(void);

int queue_new(struct queue **ret, struct error *err);
void queue_free(struct queue *q); /* nothing is under way; NULL is fine */

/* Readable when there are completions: then queue_reap(). */
int queue_fd(const struct queue *q);

/* Tells of all that have ended, by their done(). */
void queue_reap(struct queue *q);

/*
 * True: it has ended, and its done() is not called. What has begun goes on at the
 * next queue_push(), which is once for many.
 */
bool queue_submit(struct queue_user *u, struct queue_request *r);

void queue_push(struct queue *q);

#endif
