/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's two caches, within one budget (`cache=`).
 *
 * Blobs: decoded clusters and resolved ranges. Sharded; what has not been used
 * for longest goes first; one fill in flight for each, however many threads ask.
 * Decoded clusters for which the budget has no room are kept on in spare memory
 * (`spare=`): the kernel may take its pages back whenever it is short of some
 * (MADV_FREE), as it does with those of files.
 *
 * Metadata: pages of table bytes. Read without locks.
 */
#ifndef FORMATS_CACHE_H
#define FORMATS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"
#include "iouring/source.h"

#define CACHE_BYTES_DEFAULT (64ULL << 20)

/* A sixteenth of the machine's memory, at most this. */
#define CACHE_SPARE_MAX_DEFAULT (1ULL << 30)
uint64_t cache_spare_default(void);

/*
 * The budget of the whole process, in bytes; before the first image is
 * opened. Caches hold no more than this, but for what is in use right now, and
 * up to @spare_bytes of spare memory.
 */
void cache_configure(uint64_t bytes, uint64_t spare_bytes);

/* Frees everything; nothing may be in use. */
void cache_shutdown(void);

struct cache_stats {
	uint64_t hits, misses; /* of blobs */
	uint64_t bytes; /* blobs held */
	uint64_t spare_bytes; /* in spare memory, if the kernel left them */
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
 * before it waits for what others are filling.
 */
enum cache_answer cache_get(const struct cache_key *key,
			    struct cache_blob **ret);

/* As cache_get(), but only when it is there: false: it is not, now. */
bool cache_peek(const struct cache_key *key, struct cache_blob **ret);

/* A claimed entry gets its content; @data is malloc()ed and taken over. */
void cache_fill(struct cache_blob *b, void *data, size_t bytes);

/*
 * Memory for a decoded cluster, @bytes > 0; free() or cache_fill_spare() takes
 * it. NULL: there is none, even without what is in spare memory.
 */
void *cache_alloc(size_t bytes);

/*
 * As cache_fill(), with @data of cache_alloc(). May go to spare memory when
 * nobody holds it: who finds it later must read it by cache_copy().
 */
void cache_fill_spare(struct cache_blob *b, void *data, size_t bytes);

/*
 * Copies [@off, @off + @len), inside the blob, which the caller holds. False:
 * the kernel has taken it, @dest holds nonsense; the entry will not be found
 * again.
 */
bool cache_copy(struct cache_blob *b, void *dest, size_t off, size_t len);

/* Nobody will look for @key again. */
void cache_drop(const struct cache_key *key);

/* A claimed entry cannot be filled: waiters get @code, the next one tries. */
void cache_fail(struct cache_blob *b, int code);

/* Waits for another thread's fill. Returns 0 or what it failed with. */
int cache_wait(struct cache_blob *b);

void cache_put(struct cache_blob *b);

/*
 * Reads metadata: [@off, @off + @len) of @src, inside it. Returns 0 or a
 * negative errno.
 */
int cache_read_meta(struct source *src, void *buf, size_t len, uint64_t off,
		    struct error *err);

#endif
