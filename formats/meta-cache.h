/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's cache of metadata: pages of tables' bytes, in memory of fixed
 * size. What it has is read without locks. What it has not is read from the
 * source once, however many threads ask, as much of it at a time as the source
 * likes (source.read_bytes), and further ahead the longer it is read in order.
 */
#ifndef FORMATS_META_CACHE_H
#define FORMATS_META_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"
#include "iouring/source.h"

#define META_CACHE_BYTES_DEFAULT (16ULL << 20)

/* Its size, but never less than a few pages; before the first read. */
void meta_cache_configure(uint64_t bytes);

/* Frees it; nobody may be reading. */
void meta_cache_shutdown(void);

/* Pages read from files so far. */
uint64_t meta_cache_misses(void);

/*
 * Reads metadata: [@off, @off + @len) of @src, inside it. May wait for another
 * thread that reads the same. Returns 0 or a negative errno. Any thread.
 */
int meta_cache_read(struct source *src, void *buf, size_t len, uint64_t off,
		    struct error *err);

#endif
