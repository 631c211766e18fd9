/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two ways for a request. A read, or what tells of allocation, is tried by the
 * front end's own thread, which must not wait (nowait.h). What is left goes to a worker, which runs the blocking
 * calls as they are, and is given back on the queue's list of the done; who finds
 * that list empty writes to the queue's eventfd, so that many completions cost one
 * write and one read.
 *
 * One user has no more than per_user requests at work, the others wait with him:
 * an image that hangs takes the workers that its own clients may have, and no
 * more. Workers are started when a request finds none idle, and end when they
 * have had nothing to do for a while, but for the last.
 */
#include "nbd/queue.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 4096U
#define IDLE_SEC    10

struct queue {
	int fd;
	pthread_mutex_t lock;
	struct queue_request *done, **done_end;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, ended;
	struct queue_request *first, **end;
	unsigned int n, idle, wanted; /* workers; requests for the idle ones */
	unsigned int per_user;
	bool stopping;
	void (*tell)(const struct fault *f);
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .ended = PTHREAD_COND_INITIALIZER };

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
	*ret = q;
	return 0;
}

void queue_free(struct queue *q)
{
	if (!q)
		return;
	close(q->fd);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

int queue_fd(const struct queue *q)
{
	return q->fd;
}

/* ---- in a worker ---- */

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

static void give_back(struct queue *q, struct queue_request *r)
{
	const uint64_t one = 1;
	bool first;

	r->next = NULL;
	pthread_mutex_lock(&q->lock);
	first = !q->done;
	*q->done_end = r;
	q->done_end = &r->next;
	/* Under the lock: the queue may be freed when it has seen this one. */
	if (first && write(q->fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd that is read takes 2^64 - 2 of them */
	pthread_mutex_unlock(&q->lock);
}

static void work_on(struct queue_request *r)
{
	struct fault f;

	r->wire = 0;
	if (run(r, &f) < 0) {
		r->wire = f.wire;
		pool.tell(&f);
	}
	give_back(r->user->queue, r);
}

/* Under the pool's lock. NULL: this worker has had nothing to do for long. */
static struct queue_request *next_request(void)
{
	struct queue_request *r;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SEC;
	pool.idle++;
	while (!pool.first && !pool.stopping)
		if (pool.n == 1) /* there may be no thread to be had later */
			pthread_cond_wait(&pool.work, &pool.lock);
		else if (pthread_cond_timedwait(&pool.work, &pool.lock,
						&until) == ETIMEDOUT &&
			 pool.n > 1)
			break;
	pool.idle--;
	r = pool.first;
	if (!r)
		return NULL;
	pool.first = r->next;
	if (!pool.first)
		pool.end = &pool.first;
	pool.wanted--;
	return r;
}

static void *worker(void *opaque)
{
	struct queue_request *r;

	pthread_mutex_lock(&pool.lock);
	while ((r = next_request())) {
		pthread_mutex_unlock(&pool.lock);
		work_on(r);
		pthread_mutex_lock(&pool.lock);
	}
	pool.n--;
	pthread_cond_signal(&pool.ended);
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

/* Under the pool's lock. One that cannot be started is no fault: others work. */
static int start_worker(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int code;

	if (pool.n >= WORKERS_MAX)
		return -EAGAIN;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pool.n++;
	code = pthread_create(&thread, &attr, worker, NULL);
	if (code)
		pool.n--;
	pthread_attr_destroy(&attr);
	return -code;
}

int workers_start(unsigned int per_user, void (*tell)(const struct fault *f),
		  struct error *err)
{
	pthread_condattr_t attr;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool.work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_lock(&pool.lock);
	pool.end = &pool.first;
	pool.per_user = per_user;
	pool.tell = tell;
	pool.stopping = false;
	r = start_worker(); /* so that there is one, however full it gets */
	pthread_mutex_unlock(&pool.lock);
	return r < 0 ? error_set(err, r, 0, "no thread: %s", errno_text(-r))
		     : 0;
}

void workers_stop(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.stopping = true;
	pthread_cond_broadcast(&pool.work);
	while (pool.n)
		pthread_cond_wait(&pool.ended, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
	pthread_cond_destroy(&pool.work);
}

static void hand_to_workers(struct queue_request *r)
{
	r->next = NULL;
	pthread_mutex_lock(&pool.lock);
	*pool.end = r;
	pool.end = &r->next;
	pool.wanted++;
	if (pool.wanted > pool.idle)
		start_worker();
	pthread_cond_signal(&pool.work);
	pthread_mutex_unlock(&pool.lock);
}

/* ---- in the queue's thread ---- */

static bool try_at_once(struct connection *c, struct queue_request *r)
{
	if (r->op == QUEUE_READ)
		return session_try_read(c, r->buf, r->len, r->off, r->zeroes);
	if (r->op == QUEUE_EXTENTS)
		return session_try_extents(c, r->context, r->len, r->off,
					   r->one, r->each, r->opaque);
	return false;
}

bool queue_submit(struct queue_user *u, struct queue_request *r)
{
	r->user = u;
	if (try_at_once(u->connection, r)) {
		r->wire = 0;
		return true;
	}
	if (u->at_work < pool.per_user) {
		u->at_work++;
		hand_to_workers(r);
		return false;
	}
	r->next = NULL;
	if (!u->waiting)
		u->waiting_end = &u->waiting;
	*u->waiting_end = r;
	u->waiting_end = &r->next;
	return false;
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
	pthread_mutex_unlock(&q->lock);
	for (; r; r = next) {
		next = r->next;
		go_on(r->user);
		r->done(r);
	}
}
