/* SPDX-License-Identifier: BSD-3-Clause */
/* Who fetches a chunk, or takes it away, and who waits for that. */
#include "iouring/sources/disk-cache-inside.h"

static struct cache_flight *find_flight(struct cached *c, size_t chunk)
{
	struct cache_flight *f = c->flights;

	while (f && f->chunk != chunk)
		f = f->next;
	return f;
}

struct cache_flight *board_chunk(struct cached *c, size_t chunk, bool *ret_ours)
{
	struct cache_flight *f = NULL;

	*ret_ours = false;
	pthread_mutex_lock(&c->lock);
	if (!kept_has(&c->f, chunk)) {
		f = find_flight(c, chunk);
		*ret_ours = !f;
		if (!f)
			f = calloc(1, sizeof(*f));
	}
	if (f && *ret_ours) {
		f->chunk = chunk;
		f->next = c->flights;
		c->flights = f;
	}
	if (f)
		f->refs++;
	pthread_mutex_unlock(&c->lock);
	return f;
}

struct cache_flight *claim_chunk(struct cached *c, size_t chunk)
{
	struct cache_flight *f = NULL;

	pthread_mutex_lock(&c->lock);
	if (kept_has(&c->f, chunk) && !find_flight(c, chunk))
		f = calloc(1, sizeof(*f));
	if (f) {
		f->chunk = chunk;
		f->refs = 1;
		f->next = c->flights;
		c->flights = f;
	}
	pthread_mutex_unlock(&c->lock);
	return f;
}

/* Under the lock. */
static void put_flight(struct cache_flight *f)
{
	if (!--f->refs)
		free(f);
}

void land_chunk(struct cached *c, struct cache_flight *f, int code)
{
	struct cache_flight **at = &c->flights;

	pthread_mutex_lock(&c->lock);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->done = true;
	f->code = code;
	pthread_cond_broadcast(&c->landed);
	put_flight(f);
	pthread_mutex_unlock(&c->lock);
}

int await_chunk(struct cached *c, struct cache_flight *f)
{
	int code;

	pthread_mutex_lock(&c->lock);
	while (!f->done)
		pthread_cond_wait(&c->landed, &c->lock);
	code = f->code;
	put_flight(f);
	pthread_mutex_unlock(&c->lock);
	return code;
}
