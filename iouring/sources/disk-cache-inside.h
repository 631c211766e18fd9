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

#define CACHE_READERS 8U

/* Somebody who reads one chunk after the other; under the object's ahead_lock. */
struct cache_reader {
	unsigned int reads; /* one after the other */
	size_t next; /* chunk that he reads next */
	size_t end; /* up to here it is, or was, fetched ahead of him */
	size_t window; /* so many chunks ahead */
	uint64_t used; /* by the object's clock; 0: there is nobody */
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
	char *shown; /* the name, for people */

	/*
	 * Who reads copies holds it for reading; for writing, briefly, who takes
	 * chunks out of f, or puts f in its place.
	 */
	pthread_rwlock_t gate;
	struct kept_file f; /* while has_file */
	atomic_bool has_file; /* false: it is somebody else's, yet */
	atomic_uchar *used; /* by chunk, a bit: since the hand passed */
	size_t hand; /* the evictor's */

	pthread_mutex_t lock; /* of flights, and of the digest */
	pthread_cond_t landed;
	struct cache_flight *flights;
	char algorithm[16], digest[129]; /* hexadecimal; "": not known */
	size_t last; /* chunk, while unchecked */
	atomic_bool unchecked; /* all but last is there, and that is written */
	atomic_bool checking; /* nothing is taken away meanwhile */
	atomic_uint taken; /* how often something was */

	pthread_mutex_t
		ahead_lock; /* of readers, nothing is waited for in it */
	struct cache_reader readers[CACHE_READERS];
	uint64_t clock;
	uint64_t trip_nsec; /* the shortest that a fetch took; 0: not known */
	uint64_t bytes_sec; /* the most that one brought */
	atomic_size_t last_chunk; /* that was read */

	atomic_bool pinned; /* nothing of it can be had again: it stays */

	/* Of who fills it; what is not atomic is under his lock. */
	atomic_bool whole; /* every chunk is there, as far as is known */
	atomic_bool wanted; /* to be filled, whatever disk_cache_fill() said */
	size_t cursor; /* where it is filled next */
	atomic_uint failures; /* in a row */
	uint64_t not_before; /* nsec */
};

/* The cache over one source. */
struct cache_source {
	struct source s;
	struct source *inner;
	struct cached *c;
	struct cache_source *next; /* of all; under the filler's lock */

	/*
	 * Fetches what is missing of the @n chunks from @chunk on, for later, and
	 * waits for it. Returns 0 or the first negative errno.
	 */
	int (*fetch)(struct cache_source *src, size_t chunk, size_t n);
};

/* Its files are there, and can be relied on. */
static inline bool cache_is_usable(struct cached *c)
{
	return atomic_load(&c->has_file) && !atomic_load(&c->f.broken);
}

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
void cache_note_fetched(uint64_t bytes, bool behind);

/* NULL: it cannot be kept. Its user's to cached_put() with his source. */
struct cached *cached_get(const struct source_identity *id);
void cached_put(struct cached *c);

/* The folder; -1: there is none. */
int cache_folder(void);

/*
 * Calls @each, which must not wait, with what is open, until it returns non-zero,
 * and returns that.
 */
int cache_each_open(int (*each)(void *opaque, struct cached *c), void *opaque);

/* ---- disk-cache-fill.c: what is fetched while nobody waits ---- */

void fill_add(struct cache_source *src);
void fill_remove(struct cache_source *src); /* by ops->free() */

/* Somebody waits for bytes from afar, from now on; or does not any more. */
void fill_note_demand(bool begins);

/* Unless there is nobody who would, or too much is asked for. Does not wait. */
void fill_ahead(struct cache_source *src, size_t chunk, size_t n);

/* There is something to check. Does not wait. */
void fill_wake(void);

/* ---- disk-cache-digest.c ---- */

/*
 * The chunk, which has been written, is there from now on; false: it is the last of
 * an object that is to be checked first.
 */
bool cache_count_chunk(struct cached *c, size_t chunk);

/*
 * Checks, if that is to be done, and takes long. -EBADMSG: it is another object than
 * was expected, and was told of.
 */
int cache_check(struct cached *c);

/* ---- disk-cache-ahead.c ---- */

/* Chunks were read; @waited: not all were there. Does not wait. */
void ahead_note(struct cache_source *src, size_t first, size_t last,
		bool waited);

/* So many bytes came from afar in so long. Does not wait. */
void ahead_note_trip(struct cached *c, uint64_t bytes, uint64_t nsec);

/* ---- disk-cache-evict.c ---- */

/*
 * Brings what lies in the folder @dir below @bytes: first files that nobody has
 * open, those used longest ago first, then chunks of @open. Returns how much there
 * is now; *ret_freed: what went. In the keeper's thread.
 */
uint64_t cache_evict(int dir, uint64_t bytes, struct cached *const *open,
		     size_t n_open, uint64_t *ret_freed);

#endif
