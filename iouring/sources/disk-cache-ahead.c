/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who reads one chunk after the other finds the next ones fetched. How many
 * depends on how far away the object is: whenever such a reader has to wait all
 * the same, twice as many are fetched ahead of him, up to some times what the link
 * holds in the time of a round trip, as far as that can be told.
 */
#include "iouring/sources/disk-cache-inside.h"

#define READS_MIN  2U /* before anything is fetched ahead */
#define WINDOW_MIN 4U /* chunks: a request of 1 MiB */
#define WINDOW_MAX 64U
#define TRIPS	   4U

/* Who reads on from where he was; else a place for who begins here. */
static struct cache_reader *find_reader(struct cached *c, size_t first)
{
	struct cache_reader *oldest = &c->readers[0];
	size_t i;

	for (i = 0; i < CACHE_READERS; i++) {
		struct cache_reader *r = &c->readers[i];

		if (r->used && first <= r->next && first + 1 >= r->next)
			return r;
		if (r->used < oldest->used)
			oldest = r;
	}
	*oldest = (struct cache_reader){ .next = first };
	return oldest;
}

/* In chunks, what is under way if no time is lost. */
static size_t window_max(const struct cached *c)
{
	uint64_t msec = c->trip_nsec / 1000000;
	uint64_t chunks = c->bytes_sec / 1000 * msec * TRIPS / KEPT_CHUNK_BYTES;

	return (size_t)max_u64(WINDOW_MIN, min_u64(chunks, WINDOW_MAX));
}

/* How many chunks from *@ret_first on are to be fetched now. */
static size_t advance(const struct cached *c, struct cache_reader *r,
		      size_t last, bool waited, size_t *ret_first)
{
	size_t end;

	if (last < r->next)
		return 0; /* what he had just now */
	r->next = last + 1;
	if (++r->reads < READS_MIN)
		return 0;
	if (!r->window)
		r->window = WINDOW_MIN;
	else if (waited)
		r->window = min_size(r->window * 2, window_max(c));
	if (r->end < r->next)
		r->end = r->next;
	end = r->next + r->window;
	/* By halves, or each request would be of one chunk. */
	if (r->end + r->window / 2 > end)
		return 0;
	*ret_first = r->end;
	r->end = end;
	return end - *ret_first;
}

void ahead_note(struct cache_source *src, size_t first, size_t last,
		bool waited)
{
	struct cached *c = src->c;
	struct cache_reader *r;
	size_t from = 0, n;

	if (atomic_load_explicit(&c->whole, memory_order_relaxed) ||
	    atomic_exchange(&c->last_chunk, last) == last ||
	    pthread_mutex_trylock(&c->ahead_lock))
		return;
	r = find_reader(c, first);
	r->used = ++c->clock;
	n = advance(c, r, last, waited, &from);
	pthread_mutex_unlock(&c->ahead_lock);
	if (n && from < c->f.n_chunks)
		fill_ahead(src, from, n);
}

void ahead_note_trip(struct cached *c, uint64_t bytes, uint64_t nsec)
{
	uint64_t usec = nsec / 1000 + 1;

	pthread_mutex_lock(&c->ahead_lock);
	if (!c->trip_nsec || nsec < c->trip_nsec)
		c->trip_nsec = nsec;
	c->bytes_sec = max_u64(c->bytes_sec, bytes * 1000000 / usec);
	pthread_mutex_unlock(&c->ahead_lock);
}
