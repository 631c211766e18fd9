/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two ways for a request. A read, or what tells of allocation, is tried by the
 * front end's own thread, which must not wait (nowait.h). What is left goes to a
 * worker (workers.h), which runs the blocking calls as they are, and is given back
 * on the queue's list of the done.
 *
 * Who puts something on that list has to wake the queue's thread by its eventfd,
 * unless somebody has and the thread has not looked since. A worker that has more
 * requests before it puts that off, for a few of them, or for so long as a wake
 * costs or a part of what the whole line takes (struct owed); it does not rest, or
 * begin something else, with one owed.
 *
 * One user has no more than per_user requests at work, the others wait with him:
 * an image that hangs takes the workers that its own clients may have, and no
 * more.
 */
#include "nbd/queue.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "iouring/nowait.h"
#include "nbd/workers.h"

#define OWED_NSEC 60000U
#define OWED_MAX  8U

struct queue {
	int fd;
	pthread_mutex_t lock;
	struct later *later; /* the queue's thread's; NULL: not yet */
	bool no_ring; /* nor will there be one */
	struct queue_request *done, **done_end;
	bool told; /* of those on the list */
	unsigned int refs; /* of who made it, and of each worker that owes it */
};

/* What a worker has put on a list without waking who takes it. */
static _Thread_local struct owed {
	struct queue *queue; /* or NULL */
	unsigned int n;
	uint64_t since_nsec;
} owed;

static unsigned int per_user_max;
static void (*tell_fault)(const struct fault *f);

int queue_new(struct queue **ret, struct error *err)
{
	struct queue *q = calloc(1, sizeof(*q));

	if (!q)
		return error_set(err, -ENOMEM, 0, "out of memory");
	q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->fd < 0) {
		free(q);
		return error_set(err, -errno, 0, "no eventfd: %s",
				 errno_text(errno));
	}
	pthread_mutex_init(&q->lock, NULL);
	q->done_end = &q->done;
	q->refs = 1;
	*ret = q;
	return 0;
}

/* Under its lock, which is let go of. */
static void unlock_and_drop(struct queue *q)
{
	bool last = !--q->refs;

	pthread_mutex_unlock(&q->lock);
	if (!last)
		return;
	later_free(q->later);
	close(q->fd);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

void queue_free(struct queue *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	unlock_and_drop(q);
}

int queue_fd(const struct queue *q)
{
	return q->fd;
}

/* ---- in a worker ---- */

static _Thread_local const struct queue_user *served;

static bool user_has_gone(void)
{
	return served && atomic_load(&served->gone);
}

static int run(struct queue_request *r, struct fault *f)
{
	struct connection *c = r->user->connection;

	switch (r->op) {
	case QUEUE_READ:
		return session_read(c, r->buf, r->len, r->off, r->zeroes, f);
	case QUEUE_WRITE:
		return session_write(c, r->buf, r->len, r->off, r->flags, f);
	case QUEUE_ZERO:
		return session_zero(c, r->len, r->off, r->flags, f);
	case QUEUE_TRIM:
		return session_trim(c, r->len, r->off, r->flags, f);
	case QUEUE_FLUSH:
		return session_flush(c, f);
	case QUEUE_PREFETCH:
		return session_prefetch(c, r->len, r->off, f);
	case QUEUE_EXTENTS:
		return session_extents(c, r->context, r->len, r->off, r->one,
				       r->each, r->opaque, f);
	case QUEUE_CALL:
		r->call(r);
		break;
	}
	return 0;
}

/* Under the queue's lock. */
static void wake(struct queue *q)
{
	const uint64_t one = 1;

	if (!q->done || q->told)
		return;
	q->told = true;
	if (write(q->fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd that is read takes 2^64 - 2 of them */
}

static void pay(void)
{
	struct queue *q = TAKE_PTR(owed.queue);

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	wake(q);
	unlock_and_drop(q);
}

/* @nsec: what a request took that ends @now. May the wake be put off? */
static bool may_owe(uint64_t nsec, uint64_t now)
{
	uint64_t since = owed.queue ? now - owed.since_nsec : 0;
	unsigned int line = workers_line();

	if (!line || (owed.queue && owed.n >= OWED_MAX))
		return false;
	return since + nsec < max_u64(OWED_NSEC, line * nsec / 4);
}

/* It began at @began_nsec. */
static void give_back(struct queue *q, struct queue_request *r,
		      uint64_t began_nsec)
{
	uint64_t now = now_nsec();

	if (owed.queue != q)
		pay();
	r->next = NULL;
	pthread_mutex_lock(&q->lock);
	*q->done_end = r;
	q->done_end = &r->next;
	/* Out of the lock, whoever sees it may free the queue: hence refs. */
	if (may_owe(now - began_nsec, now)) {
		if (!owed.queue) {
			owed = (struct owed){ .queue = q, .since_nsec = now };
			q->refs++;
		}
		owed.n++;
	} else {
		wake(q);
		if (TAKE_PTR(owed.queue))
			q->refs--;
	}
	pthread_mutex_unlock(&q->lock);
}

/* It changes nothing, and who asked takes no answers any more. */
static bool is_for_nobody(const struct queue_request *r)
{
	return user_has_gone() &&
	       (r->op == QUEUE_READ || r->op == QUEUE_EXTENTS ||
		r->op == QUEUE_PREFETCH);
}

static void work_on(struct work *w)
{
	struct queue_request *r = container_of(w, struct queue_request, work);
	uint64_t began_nsec = now_nsec();
	struct fault f;

	r->wire = 0;
	served = r->user;
	if (is_for_nobody(r)) {
		r->wire = EIO;
	} else if (run(r, &f) < 0) {
		r->wire = f.wire;
		tell_fault(&f);
	}
	served = NULL;
	give_back(r->user->queue, r, began_nsec);
}

int queues_start(unsigned int per_user, void (*tell)(const struct fault *f),
		 struct error *err)
{
	per_user_max = per_user;
	tell_fault = tell;
	engine_gone = user_has_gone;
	return workers_start(pay, err);
}

void queues_stop(void)
{
	workers_stop();
}

static void hand_to_workers(struct queue_request *r)
{
	r->work.run = work_on;
	workers_add(&r->work);
}

/* ---- in the queue's thread ---- */

/* For the next one: a queue whose reads need no waiting has no ring. */
static void get_ring(struct queue *q)
{
	if (!q->later && !q->no_ring)
		q->no_ring = later_new(q->fd, &q->later) < 0;
}

static void in_turn(struct queue_user *u, struct queue_request *r)
{
	if (u->at_work < per_user_max) {
		u->at_work++;
		hand_to_workers(r);
		return;
	}
	r->next = NULL;
	if (!u->waiting)
		u->waiting_end = &u->waiting;
	*u->waiting_end = r;
	u->waiting_end = &r->next;
}

/* What did not go well is done again by a worker, who may say why. */
static void later_done(struct later_read *l, int code)
{
	struct queue_request *r =
		container_of(l, struct queue_request, later.read);

	session_read_later_ended(r->user->connection, &r->later, r->len, code);
	r->wire = 0;
	if (code < 0)
		in_turn(r->user, r);
	else
		r->done(r);
}

static enum session_try try_at_once(struct queue_user *u,
				    struct queue_request *r)
{
	struct connection *c = u->connection;

	if (r->op == QUEUE_READ) {
		r->later.read.later = u->queue->later;
		r->later.read.done = later_done;
		return session_try_read(c, r->buf, r->len, r->off, r->zeroes,
					r->later.read.later ? &r->later : NULL);
	}
	if (r->op == QUEUE_EXTENTS &&
	    session_try_extents(c, r->context, r->len, r->off, r->one, r->each,
				r->opaque))
		return SESSION_DONE;
	return SESSION_CANNOT;
}

bool queue_submit(struct queue_user *u, struct queue_request *r)
{
	r->user = u;
	switch (try_at_once(u, r)) {
	case SESSION_DONE:
		r->wire = 0;
		return true;
	case SESSION_LATER:
		return false;
	case SESSION_CANNOT:
		if (r->op == QUEUE_READ)
			get_ring(u->queue);
		break;
	}
	in_turn(u, r);
	return false;
}

void queue_push(struct queue *q)
{
	if (q->later)
		later_submit(q->later);
}

/* His next one takes the place of one that has ended. */
static void go_on(struct queue_user *u)
{
	struct queue_request *r = u->waiting;

	if (!r) {
		u->at_work--;
		return;
	}
	u->waiting = r->next;
	hand_to_workers(r);
}

void queue_reap(struct queue *q)
{
	struct queue_request *r, *next;
	uint64_t count;

	if (read(q->fd, &count, sizeof(count)) < 0)
		return; /* nothing has ended */
	pthread_mutex_lock(&q->lock);
	r = TAKE_PTR(q->done);
	q->done_end = &q->done;
	q->told = false;
	pthread_mutex_unlock(&q->lock);
	for (; r; r = next) {
		next = r->next;
		go_on(r->user);
		r->done(r);
	}
	if (q->later)
		later_reap(q->later);
}
