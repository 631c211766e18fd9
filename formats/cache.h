/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's cache of decoded units and resolved ranges. What has not been
 * used for longest goes first; one fill in flight for each, however many threads
 * ask. Its budget (`cache=`) is that of the tables' cache (meta-cache.h) and of
 * requests' memory (room.h) as well.
 */
#ifndef FORMATS_CACHE_H
#define FORMATS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"
#include "iouring/source.h"

#define CACHE_BYTES_DEFAULT (64ULL << 20)

/*
 * The budget of the whole process, in bytes; before the first image is
 * opened. All caches and all requests at work hold no more than this together,
 * but for 4 MiB of requests' memory and a few pages of tables, which there are
 * always, and for a unit too large for its share, one at a time.
 */
void cache_configure(uint64_t bytes);

/* Frees everything; nothing may be in use. */
void cache_shutdown(void);

struct cache_stats {
	uint64_t hits, misses; /* of blobs */
	uint64_t bytes; /* blobs held */
	uint64_t room_bytes; /* of requests at work */
	uint64_t room_waits; /* requests that waited for such memory */
	uint64_t meta_misses; /* pages of tables read from files */
};
void cache_get_stats(struct cache_stats *ret);

/*
 * A blob's key: the id of the object that owns it (source ids and image ids
 * come from one counter) and an offset or index in it.
 */
struct cache_key {
	uint64_t owner;
	uint64_t at;
};

struct cache_blob {
	void *data;
	size_t bytes;
};

enum cache_answer {
	CACHE_HIT, /* *ret is filled and held */
	CACHE_CLAIMED, /* the caller must cache_fill() or cache_fail() it */
	CACHE_BUSY, /* another thread is filling it: cache_wait() */
};

/*
 * Looks @key up. The entry is held until cache_put() in every case. Never
 * waits. To be free of deadlock, a thread fills all that it has claimed
 * before it waits for what others are filling. Who reads a nested source may
 * have claims, and that source makes claims of its own, and waits: it waits for
 * units of its own depth alone (batch_depth()), which whoever fills them does
 * without asking for any above. So each depth keeps the rule for itself.
 * Debug builds assert it.
 */
enum cache_answer cache_get(const struct cache_key *key,
			    struct cache_blob **ret);

/* As cache_get(), but only when it is there: false: it is not, now. */
bool cache_peek(const struct cache_key *key, struct cache_blob **ret);

/* A claimed entry gets its content; @data is malloc()ed and taken over. */
void cache_fill(struct cache_blob *b, void *data, size_t bytes);

/*
 * Memory for a decoded unit, @bytes > 0, aligned to a page. What nobody holds is
 * dropped for it; never waits. NULL: there is no room for it now.
 */
void *cache_block(size_t bytes);

void cache_block_free(void *block, size_t bytes); /* NULL is fine */

/* As cache_fill(), with a block of cache_block(@bytes). */
void cache_fill_block(struct cache_blob *b, void *block, size_t bytes);

/* Nobody will look for @key again. */
void cache_drop(const struct cache_key *key);

/*
 * A claimed entry is not filled: waiters get @code, who looks next claims it.
 * -EAGAIN: it was decoded, and there was no room to keep it; waiters look again.
 */
void cache_fail(struct cache_blob *b, int code);

/*
 * Waits for another thread's fill. Returns 0 or what it failed with; -EAGAIN also
 * where this thread may not wait (nowait.h).
 */
int cache_wait(struct cache_blob *b);

void cache_put(struct cache_blob *b);

#endif
