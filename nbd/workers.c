/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker is idle, woken, at work, or waiting within its work. Those at work are
 * no more than running_max: another thread on a busy processor would only cost
 * switches, and one that ends its work takes the next from the line without having
 * slept. Who begins to wait is not counted until he goes on, and another is woken in
 * his place if there is work for it; so there may be more at work for a moment.
 *
 * Some waiting is not told: a lock, a write to a page cache that is full, a page
 * that is read in. While there is work in the line and nobody may take it, one idle
 * worker, the watch, looks every few milliseconds for those who have been at one
 * work for long, and counts them no more.
 *
 * Workers are started when none is idle, and end when they have had nothing to do
 * for a while, but for the last.
 */
#include "nbd/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "iouring/nowait.h"
#include "iouring/util.h"

#define WORKERS_MAX 4096U
#define IDLE_NSEC   10000000000ULL
#define WATCH_NSEC  4000000ULL
#define LONG_NSEC   2000000ULL
#define WATCH_TURNS 64U /* of an empty line, before the watch goes to sleep */

struct worker {
	struct worker *next, **self; /* among those at work */
	uint64_t since_nsec; /* at work, or going on after a wait */
	unsigned int waits; /* one within another */
	bool counted; /* in running */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, ended;
	struct work *first, **end;
	atomic_uint n_waiting; /* in the line */
	unsigned int n; /* workers */
	unsigned int idle, woken; /* of these; and of the idle */
	unsigned int running, running_max;
	bool watched;
	bool stopping;
	struct worker *at_work;
	void (*rests)(void);
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .ended = PTHREAD_COND_INITIALIZER };

static _Thread_local struct worker *this_worker;

/* All below but for the ends of a wait: under the pool's lock. */

static void count(struct worker *w)
{
	w->since_nsec = now_nsec();
	w->counted = true;
	pool.running++;
}

static void uncount(struct worker *w)
{
	if (w->counted)
		pool.running--;
	w->counted = false;
}

static void *worker(void *opaque);

/* One that cannot be started is no fault: others work. */
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
	else
		pool.woken++;
	pthread_attr_destroy(&attr);
	return -code;
}

static void rouse(void)
{
	if (pool.idle <= pool.woken) {
		start_worker();
		return;
	}
	pool.woken++;
	pthread_cond_signal(&pool.work);
}

/* Is somebody to be woken for what is in the line? */
static void rouse_if_wanted(void)
{
	if (!pool.first)
		return;
	if (pool.running + pool.woken < pool.running_max ||
	    (!pool.watched && !pool.woken))
		rouse();
}

/* ---- in a worker ---- */

static void waits(bool begins)
{
	struct worker *w = this_worker;

	if (begins ? w->waits++ : --w->waits)
		return;
	if (begins)
		pool.rests();
	pthread_mutex_lock(&pool.lock);
	if (begins) {
		uncount(w);
		rouse_if_wanted();
	} else {
		count(w);
	}
	pthread_mutex_unlock(&pool.lock);
}

/* Those who have been at one work for long wait for something, it seems. */
static void watch(void)
{
	uint64_t now = now_nsec();
	struct worker *w;

	for (w = pool.at_work; w; w = w->next)
		if (w->counted && now - w->since_nsec > LONG_NSEC)
			uncount(w);
}

/* Until there may be something to do; true: for all of @nsec there was not. */
static bool sleep_for(uint64_t nsec)
{
	uint64_t until = now_nsec() + nsec;
	struct timespec t = { .tv_sec = (time_t)(until / NSEC),
			      .tv_nsec = (long)(until % NSEC) };
	int code = pthread_cond_timedwait(&pool.work, &pool.lock, &t);

	if (pool.woken)
		pool.woken--;
	return code == ETIMEDOUT;
}

static bool may_begin(void)
{
	return pool.first && pool.running < pool.running_max;
}

/* False: this worker has had nothing to do for long. */
static bool await_work(void)
{
	unsigned int turns = 0; /* as the watch */
	bool slept = false;

	pool.rests();
	pool.idle++;
	while (!may_begin() && !pool.stopping) {
		/* The last stays: there may be no thread to be had later. */
		if (slept && !pool.first && pool.n > 1)
			break;
		slept = false;
		if (pool.first)
			turns = WATCH_TURNS;
		if (!turns || pool.watched) {
			slept = sleep_for(IDLE_NSEC);
			continue;
		}
		turns--;
		pool.watched = true;
		if (sleep_for(WATCH_NSEC))
			watch();
		pool.watched = false;
	}
	pool.idle--;
	return pool.first;
}

static struct work *take_work(void)
{
	struct work *w;

	if (!may_begin() && !await_work())
		return NULL;
	w = pool.first;
	pool.first = w->next;
	if (!pool.first)
		pool.end = &pool.first;
	atomic_fetch_sub(&pool.n_waiting, 1);
	return w;
}

static void link_worker(struct worker *w)
{
	w->next = pool.at_work;
	w->self = &pool.at_work;
	if (w->next)
		w->next->self = &w->next;
	pool.at_work = w;
}

static void unlink_worker(struct worker *w)
{
	*w->self = w->next;
	if (w->next)
		w->next->self = w->self;
}

static void *worker(void *opaque)
{
	struct worker w = { .waits = 0 };
	struct work *work;

	this_worker = &w;
	engine_waits = waits;
	pthread_mutex_lock(&pool.lock);
	if (pool.woken)
		pool.woken--;
	link_worker(&w);
	while ((work = take_work())) {
		count(&w);
		rouse_if_wanted();
		pthread_mutex_unlock(&pool.lock);
		work->run(work);
		if (!workers_line())
			pool.rests();
		pthread_mutex_lock(&pool.lock);
		uncount(&w);
	}
	unlink_worker(&w);
	pool.n--;
	rouse_if_wanted();
	pthread_cond_signal(&pool.ended);
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

/* ---- for others ---- */

static unsigned int processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return (unsigned int)CPU_COUNT(&set);
}

int workers_start(void (*rests)(void), struct error *err)
{
	pthread_condattr_t attr;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool.work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_lock(&pool.lock);
	pool.end = &pool.first;
	pool.running_max = processors();
	pool.rests = rests;
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

void workers_add(struct work *w)
{
	w->next = NULL;
	pthread_mutex_lock(&pool.lock);
	*pool.end = w;
	pool.end = &w->next;
	atomic_fetch_add(&pool.n_waiting, 1);
	rouse_if_wanted();
	pthread_mutex_unlock(&pool.lock);
}

unsigned int workers_line(void)
{
	return atomic_load_explicit(&pool.n_waiting, memory_order_relaxed);
}
