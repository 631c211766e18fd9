/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image: a chain opened for reading, at one snapshot. Immutable and
 * counted: exports, overlays and differences share it; any number of threads
 * at once.
 */
#ifndef FORMATS_IMAGE_H
#define FORMATS_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/chain.h"
#include "formats/extent.h"
#include "formats/extents-read.h"

struct image {
	struct chain chain;
	uint64_t bytes; /* virtual size */
	uint64_t id; /* names its resolved ranges in the cache */
	atomic_uint refs;
};

/* The count is one. */
int image_open(const char *path, const struct open_options *options,
	       struct image **ret, struct error *err);
/* Takes over what @chain holds, and empties it; also on failure. */
int image_from_chain(struct chain *chain, struct image **ret,
		     struct error *err);
struct image *image_ref(struct image *img);
void image_unref(struct image *img); /* NULL is fine */
void image_unrefp(struct image **img);

/*
 * Reads [@off, @off + @len), inside the image, all of it or nothing:
 * returns 0 or a negative errno. -EIO is this range's only.
 */
int image_read(struct image *img, void *buf, size_t len, uint64_t off,
	       struct error *err);

/* As image_read(); @zeroes: see struct extent_reader; may be NULL. */
int image_read_sparse(struct image *img, void *buf, size_t len, uint64_t off,
		      struct zero_runs *zeroes, struct error *err);

/*
 * Allocation of a range, for block status: as chain_map(), but neighbours
 * that `qemu-img map` would print as one are joined, and data that is a hole
 * in its file is told as ZERO with absent unset (its host_off and src stay).
 * @each returns non-zero to stop; that is returned, else 0 or a negative
 * errno. May end early, for a range that takes long, when @each has been
 * called at least once: *ret_end is where the answers end.
 */
int image_walk(struct image *img, uint64_t off, uint64_t len,
	       int (*each)(void *opaque, uint64_t off, const struct extent *e),
	       void *opaque, uint64_t *ret_end, struct error *err);

/* What tells of an image, which its user holds, where its bytes lie. */
struct image_reader {
	struct extent_reader x;
	struct image *img;
};
struct image_reader image_reader(struct image *img);

/* As image_walk(), of what @x tells. */
int extents_walk(struct extent_reader *x, uint64_t off, uint64_t len,
		 int (*each)(void *opaque, uint64_t off,
			     const struct extent *e),
		 void *opaque, uint64_t *ret_end, struct error *err);

/* extent_reader.resolve of an image, for those above it. */
int image_resolve(struct image *img, uint64_t off, uint64_t len,
		  struct extent *ret, size_t max, size_t *ret_n,
		  struct error *err);

/* A hint: the range will be read soon. Returns 0 or a negative errno. */
int image_prefetch(struct image *img, uint64_t off, uint64_t len,
		   struct error *err);

#endif
