/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A piece of memory of fixed size, handed out in pages. It is reserved when it
 * is made, touched as far as it is used, and never given back before its end: on
 * some machines a page's first touch costs more than what is done with it.
 *
 * A buddy allocator: Knuth, The Art of Computer Programming 2.5. What it knows
 * of a page is kept beside the memory, so what is free is not touched.
 */
#ifndef FORMATS_ARENA_H
#define FORMATS_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_PAGE_BYTES 4096U

struct arena;

/*
 * Of @bytes, rounded down to whole pages; what is left may be nothing. Returns
 * 0 or -ENOMEM.
 */
int arena_new(size_t bytes, struct arena **ret);
void arena_free(struct arena *a); /* NULL is fine */

/* The longest piece that could ever be had; may be 0. */
size_t arena_largest(const struct arena *a);

/*
 * @bytes > 0, aligned to a page, in whole pages; what was given back last goes
 * out first. NULL: there is no such piece now. Never waits; any thread.
 */
void *arena_take(struct arena *a, size_t bytes);

/* Gives back what arena_take(@bytes) gave. */
void arena_give(struct arena *a, void *p, size_t bytes);

/* Bytes that are handed out. */
size_t arena_used(struct arena *a);

#endif
