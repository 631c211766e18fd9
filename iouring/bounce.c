/* SPDX-License-Identifier: BSD-3-Clause */
/* A thread's bounce buffer, for what is read and written without its ring. */
#include <pthread.h>

#include "iouring/engine.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void make_key(void)
{
	if (pthread_key_create(&key, free))
		abort();
}

uint8_t *engine_bounce(void)
{
	static __thread uint8_t *mine;
	void *m;

	if (mine)
		return mine;
	pthread_once(&once, make_key);
	if (posix_memalign(&m, DIRECT_ALIGN, BOUNCE_BYTES))
		return NULL;
	if (pthread_setspecific(key, m)) {
		free(m);
		return NULL;
	}
	return mine = m;
}
