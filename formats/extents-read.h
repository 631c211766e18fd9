/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading what extents tell of, in one batch a round. */
#ifndef FORMATS_EXTENTS_READ_H
#define FORMATS_EXTENTS_READ_H

#include <stddef.h>
#include <stdint.h>

#include "formats/extent.h"
#include "iouring/error.h"

/*
 * What image_read() and image_walk() do, for whoever can tell where bytes lie:
 * an overlay's answers change, an image's do not.
 */
struct extent_reader {
	/*
	 * Extents of [@off, @off + @len), or of as much of it as @max hold;
	 * at least one.
	 */
	int (*resolve)(struct extent_reader *x, uint64_t off, uint64_t len,
		       struct extent *ret, size_t max, size_t *ret_n,
		       struct error *err);
	/* The first extent alone, for a walk: nothing need be remembered. */
	int (*map)(struct extent_reader *x, uint64_t off, uint64_t len,
		   struct extent *ret, struct error *err);
};

/*
 * Reads [@off, @off + @len) of what @x tells, all of it or nothing: returns 0
 * or a negative errno. -EIO is this range's only. Any thread.
 */
int extents_read(struct extent_reader *x, void *buf, size_t len, uint64_t off,
		 struct error *err);

#endif
