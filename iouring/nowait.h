/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Doing only what can be done at once. A thread that serves many clients, as an
 * event loop does, must not wait for a disk, for another thread or for memory on
 * behalf of one of them. While its nowait is set, whatever it calls that would
 * have to wait is -EAGAIN instead, nothing is changed by it, and somebody who may
 * wait has to ask again: batch_run() reads what is in the page cache
 * (preadv2(2), RWF_NOWAIT), and those above it ask may_wait() before they wait,
 * decode, or take a lock that others hold while they wait.
 */
#ifndef IOURING_NOWAIT_H
#define IOURING_NOWAIT_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern _Thread_local bool engine_nowait;

/*
 * What may be waited for for minutes is not, where nobody needs it any more: has he
 * gone for whom this thread works? The front end sets it, before the first request;
 * NULL: it cannot tell. Any thread.
 */
extern bool (*engine_gone)(void);

static inline bool may_wait(void)
{
	return !engine_nowait;
}

/* 0, or -EAGAIN: it is held, and this thread may not wait. */
static inline int lock_or_again(pthread_mutex_t *lock)
{
	if (engine_nowait)
		return pthread_mutex_trylock(lock) ? -EAGAIN : 0;
	pthread_mutex_lock(lock);
	return 0;
}

static inline int rdlock_or_again(pthread_rwlock_t *lock)
{
	if (engine_nowait)
		return pthread_rwlock_tryrdlock(lock) ? -EAGAIN : 0;
	pthread_rwlock_rdlock(lock);
	return 0;
}

/*
 * Who counts the threads that are at work has himself told, by those, when one
 * begins to wait for a disk, for another host or for another thread, and when it
 * goes on; one wait may lie within another. NULL: nobody counts this thread.
 */
extern _Thread_local void (*engine_waits)(bool begins);

static inline void wait_begins(void)
{
	if (engine_waits)
		engine_waits(true);
}

static inline void wait_ends(void)
{
	if (engine_waits)
		engine_waits(false);
}

/* As pthread_cond_wait(). */
static inline void wait_on(pthread_cond_t *cond, pthread_mutex_t *lock)
{
	wait_begins();
	pthread_cond_wait(cond, lock);
	wait_ends();
}

struct file_source;

/* [@off, @off + @len) of the file if it needs no waiting; else -EAGAIN. */
int nowait_read_file(const struct file_source *f, void *buf, size_t len,
		     uint64_t off);

#endif
