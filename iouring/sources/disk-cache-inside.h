/* SPDX-License-Identifier: BSD-3-Clause */
/* What disk-cache*.c share; nobody else includes this. */
#ifndef IOURING_SOURCES_DISK_CACHE_INSIDE_H
#define IOURING_SOURCES_DISK_CACHE_INSIDE_H

#include <pthread.h>

#include "iouring/sources/disk-cache.h"
#include "iouring/sources/kept-file.h"

/* A chunk that somebody fetches, or takes away. */
struct cache_flight {
	struct cache_flight *next;
	size_t chunk;
	unsigned int refs; /* who flies, and who waits */
	bool done;
	int code; /* when done: 0, -EAGAIN: look again, or what it failed with */
};

/* An object of which there are copies; one for all who have it open. */
struct cached {
	struct cached *next; /* of all that are open */
	/* Under the list's lock: */
	unsigned int refs; /* sources */
	bool opening; /* somebody opens its files, or closes them */
	bool keeping; /* the keeper is at it */
	struct source_identity identity; /* strings are its own */
	char *name, *version;

	/*
	 * Who reads copies holds it for reading; for writing, briefly, who takes
	 * chunks out of f, or puts f in its place.
	 */
	pthread_rwlock_t gate;
	struct kept_file f; /* while has_file */
	atomic_bool has_file; /* false: it is somebody else's, yet */
	atomic_uchar *used; /* by chunk, a bit: since the hand passed */
	size_t hand; /* the evictor's */

	pthread_mutex_t lock; /* of flights */
	pthread_cond_t landed;
	struct cache_flight *flights;
};

/* ---- disk-cache-flight.c: chunks, once ---- */

/*
 * The flight of @chunk: *ret_ours: it is the caller's to land_chunk(); else to
 * await_chunk(). NULL: the chunk is there; or (*ret_ours) no memory.
 */
struct cache_flight *board_chunk(struct cached *c, size_t chunk,
				 bool *ret_ours);
/* One that is there, to be taken away; NULL: it is somebody's, or gone. */
struct cache_flight *claim_chunk(struct cached *c, size_t chunk);
void land_chunk(struct cached *c, struct cache_flight *f, int code);
int await_chunk(struct cached *c, struct cache_flight *f);

/* ---- disk-cache.c: what is open ---- */

/* More copies may be made: the evictor keeps up. */
bool cache_has_room(void);

/* @bytes more were written; the keeper is told that there is work. */
void cache_note_stored(uint64_t bytes);
void cache_note_full(void); /* nothing can be written now */
void cache_note_hit(uint64_t bytes);
void cache_note_fetched(uint64_t bytes);

/* NULL: it cannot be kept. Its user's to cached_put() with his source. */
struct cached *cached_get(const struct source_identity *id);
void cached_put(struct cached *c);

/* ---- disk-cache-evict.c ---- */

/*
 * Brings what lies in the folder @dir below @bytes: first files that nobody has
 * open, those used longest ago first, then chunks of @open. Returns how much there
 * is now; *ret_freed: what went. In the keeper's thread.
 */
uint64_t cache_evict(int dir, uint64_t bytes, struct cached *const *open,
		     size_t n_open, uint64_t *ret_freed);

#endif
