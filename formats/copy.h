/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies an image by several threads. What the image's tables tell to be zero
 * is neither read nor handed over; the rest comes in chunks, each of which one
 * thread reads, prepares, has placed when its turn comes, and writes.
 */
#ifndef FORMATS_COPY_H
#define FORMATS_COPY_H

#include <stddef.h>
#include <stdint.h>

#include "formats/difference.h"
#include "formats/image.h"

#define COPY_THREADS_MAX 64U

struct copy_chunk {
	uint64_t off; /* a multiple of the sink's unit */
	size_t len; /* > 0; another, but for the end of the disk */
	uint8_t *buf; /* zeroes up to the end of the last unit */
	void *thread; /* what thread_new() gave */
};

/* Where it goes. Each fails with a negative errno. */
struct copy_sink {
	size_t unit_bytes; /* a power of two, at most COPY_CHUNK_BYTES */
	const char *name; /* what messages call it; NULL: nothing */

	/* Optional: what a thread needs for itself, and its end (NULL too). */
	int (*thread_new)(struct copy_sink *s, void **ret, struct error *err);
	void (*thread_free)(void *thread);

	/* Optional: by any thread at any time. */
	int (*prepare)(struct copy_sink *s, struct copy_chunk *c,
		       struct error *err);

	/* Optional: one chunk at a time, in the disk's order. */
	int (*place)(struct copy_sink *s, struct copy_chunk *c,
		     struct error *err);

	/* Required: by any thread at any time. */
	int (*write)(struct copy_sink *s, struct copy_chunk *c,
		     struct error *err);
};

#define COPY_CHUNK_BYTES (2U << 20)

/*
 * How many bytes of the chunk from @at (< c->len) on are zeroes, or have none,
 * in pieces of @piece bytes, the last one perhaps shorter; *ret_zero: which.
 */
size_t copy_chunk_run(const struct copy_chunk *c, size_t at, size_t piece,
		      bool *ret_zero);

/*
 * Copies all of @img. @progress is called now and then, on this thread, with
 * how far the copy has come; what it returns, if not 0, ends the copy and is
 * returned. Else 0, or the first failure.
 */
int copy_image(struct image *img, struct copy_sink *s, unsigned int threads,
	       int (*progress)(void *opaque, uint64_t done_bytes), void *opaque,
	       struct error *err);

/*
 * The same of what has changed in @d->to: units in which nothing has are left
 * out, those that are zero now come as zeroes.
 */
int copy_difference(const struct difference *d, struct copy_sink *s,
		    unsigned int threads,
		    int (*progress)(void *opaque, uint64_t done_bytes),
		    void *opaque, struct error *err);

/*
 * A sink that leaves zeroes out, in pieces of 4 KiB: @dst, a source that can
 * be written, ends up as the disk is, and sparse.
 */
struct raw_sink {
	struct copy_sink sink;
	struct source *dst;
};
void raw_sink_init(struct raw_sink *s, struct source *dst);

#endif
