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

/* Of all objects since the start: for metrics and tests. */
struct disk_cache_counts {
	uint64_t hit_bytes; /* read from the disk */
	uint64_t fetched_bytes; /* of misses, read from afar */
	uint64_t evicted_bytes;
};
void disk_cache_count(struct disk_cache_counts *ret);

#endif
