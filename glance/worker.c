/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "glance/glance.h"
#include "glance/log.h"
#include "glance/task.h"
#include "glance/worker.h"

#define STACK_BYTES (512U << 10)

struct worker {
	struct glance *g;
	worker_run *run;
	pthread_t threads[WORKER_THREADS];
	unsigned int n_threads;
	pthread_mutex_t lock; /* the rest */
	pthread_cond_t cond;
	unsigned int calls; /* times that somebody should look for a task */
	bool stop;
};

bool worker_ends(void *opaque)
{
	struct worker *w = opaque;
	bool stop;

	pthread_mutex_lock(&w->lock);
	stop = w->stop;
	pthread_mutex_unlock(&w->lock);
	return stop;
}

void worker_wake(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->calls++;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static int take(struct index_tx *tx, void *opaque, struct error *err)
{
	return task_take(tx, WORKER_PER_PROJECT, opaque, err);
}

/* 1: one was done, and there may be another; 0: there was none. */
static int do_one(struct worker *w)
{
	CLEANUP(task_done) struct task t = { 0 };
	struct error err = { 0 };
	int r = index_write(w->g->index, take, &t, &err);

	if (r < 0)
		log_line("tasks: %s", err.msg);
	if (r == 1) {
		worker_wake(w); /* there may be more that can begin */
		w->run(w->g, &t, w);
	}
	return r;
}

static void *work(void *opaque)
{
	struct worker *w = opaque;
	int r;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		if (!w->calls) {
			pthread_cond_wait(&w->cond, &w->lock);
			continue;
		}
		w->calls--;
		pthread_mutex_unlock(&w->lock);
		r = do_one(w);
		pthread_mutex_lock(&w->lock);
		w->calls += r == 1;
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int worker_start(struct glance *g, worker_run *run, struct worker **ret,
		 struct error *err)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	int r = 0;

	if (!w)
		return error_set(err, -ENOMEM, 0, "out of memory");
	w->g = g;
	w->run = run;
	w->calls = 1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (!r && w->n_threads < WORKER_THREADS) {
		r = pthread_create(&w->threads[w->n_threads], &attr, work, w);
		w->n_threads += !r;
	}
	pthread_attr_destroy(&attr);
	if (r) {
		worker_stop(w);
		return error_set(err, -r, 0, "tasks: no thread: %s",
				 errno_text(r));
	}
	*ret = w;
	return 0;
}

void worker_stop(struct worker *w)
{
	unsigned int i;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	for (i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
