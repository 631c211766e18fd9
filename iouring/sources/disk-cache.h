/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies of remote objects on this machine's disk: what was read once is read from
 * there. A cache is a source over another one; formats' tables are read through it
 * like all else.
 *
 * A chunk that is missing is fetched once, however many want it at a time, and all
 * that a batch misses is fetched together. Copies are of the object that was
 * opened: another version of it is another object (kept-file.h). What is used least
 * goes when there is more than was permitted.
 *
 * Nothing here fails a read: where the disk is full, or breaks, the remote object
 * is read as if there were no cache.
 */
#ifndef IOURING_SOURCES_DISK_CACHE_H
#define IOURING_SOURCES_DISK_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "iouring/source.h"

#define DISK_CACHE_BYTES_DEFAULT (10ULL << 30)
#define DISK_CACHE_BYTES_MIN	 (64ULL << 20)

/*
 * Before the first source: copies lie in the folder @path, which is made if it is
 * not there, in "objects". @bytes: what they may take of its disk. -EPERM: others
 * may write in it. @say: is told what an administrator should know.
 */
int disk_cache_configure(const char *path, uint64_t bytes,
			 void (*say)(const char *line), struct error *err);

/* Nothing more is opened in it: this process looks only, another one serves. */
void disk_cache_leave(void);

/* Is there one? */
bool disk_cache_is_on(void);

/*
 * Puts the cache over *src, if there is one and it can be: else *src stays as it
 * is. Any thread; waits for the disk.
 */
void disk_cache_over(struct source **src);

/* Is it one that disk_cache_over() made? */
bool disk_cache_is_over(const struct source *src);

/*
 * Has all of *src kept, which is an object whose server gives it as a whole alone, and
 * the cache is over it: by @take, which calls back with it in order
 * (http_source_take()). Waits. What is there already is not asked for. While it is
 * open nothing of it is evicted. -EBUSY: another process keeps it. -ENOSPC: the cache
 * may not have so much, or the disk has no room.
 */
int disk_cache_keep_whole(struct source *src,
			  int (*take)(struct source *inner,
				      int (*each)(void *opaque,
						  const void *data, size_t len),
				      void *opaque, struct error *err),
			  struct error *err);

/* ---- what nobody waits for ---- */

enum disk_cache_fill {
	DISK_CACHE_FILL_OFF, /* what is read is kept, and no more */
	DISK_CACHE_FILL_ON, /* all, giving way to who waits */
	DISK_CACHE_FILL_IDLE, /* ... and only where nobody has waited lately */
};

/*
 * Before disk_cache_start(): whether objects that are open are fetched whole, and
 * at how many bytes a second at most (0: at any rate). Where all that is open is
 * more than the cache may have, nothing is.
 */
void disk_cache_fill(enum disk_cache_fill how, uint64_t bytes_sec);

/*
 * When no fork comes any more: threads fetch ahead of who reads one byte after
 * the other, and fill. Without it nobody does. -EAGAIN: there are no threads.
 */
int disk_cache_start(struct error *err);

/* They end, having waited for what they were at; see http_engine_stop(). */
void disk_cache_stop(void);

/* An object that is open. */
struct disk_cache_object {
	const char *name; /* of its URL, as url_name_shown() */
	uint64_t bytes, kept_bytes;
	bool mine; /* else another process keeps it */
	bool filling; /* what is missing is being fetched */
	unsigned int failures; /* of it, in a row */
};

/*
 * Calls @each with every object that is open, which must not wait, until it
 * returns non-zero, and returns that.
 */
int disk_cache_each(int (*each)(void *opaque,
				const struct disk_cache_object *o),
		    void *opaque);

/*
 * Has what is open, and is called @name (NULL: all of it), filled from now on,
 * whatever disk_cache_fill() said. Returns how many these are.
 */
unsigned int disk_cache_want(const char *name);

/*
 * Does all that is open go into what the cache may have, so that it can be
 * filled? Where not, say() is told once.
 */
bool disk_cache_holds_all(void);

/* An object of which the folder has something, whoever made it. */
struct disk_cache_entry {
	const char *name; /* of its URL, as url_name_shown() */
	uint64_t bytes, kept_bytes;
	time_t used; /* last */
	bool in_use; /* a process has it open */
};

/*
 * Calls @each with all that the folder has, until it returns non-zero, and
 * returns that, or a negative errno.
 */
int disk_cache_list(int (*each)(void *opaque, const struct disk_cache_entry *e),
		    void *opaque, struct error *err);

/*
 * Removes what the folder has of the URL @name, of all its versions; NULL: of all.
 * *ret_busy: how many processes have open, and stay. Returns how many went, or a
 * negative errno.
 */
int disk_cache_drop(const char *name, unsigned int *ret_busy,
		    struct error *err);

/*
 * Has the object under @src, which disk_cache_is_over(), checked when all of it has
 * come: it is what @algorithm makes @hex of, or nothing of it is kept. -ENOTSUP: there
 * is no such algorithm.
 */
int disk_cache_expect(struct source *src, const char *algorithm,
		      const char *hex, struct error *err);

/* Is it worth finding that out? Not of what is whole. The same. */
bool disk_cache_wants_digest(struct source *src);

/* Of all objects since the start: for metrics and tests. */
struct disk_cache_counts {
	uint64_t hit_bytes; /* read from the disk */
	uint64_t fetched_bytes; /* of misses, read from afar */
	uint64_t evicted_bytes;
	uint64_t behind_bytes; /* of those fetched: that nobody waited for */
};
void disk_cache_count(struct disk_cache_counts *ret);

#endif
