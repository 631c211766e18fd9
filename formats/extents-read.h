/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading what extents tell of, in one batch a round. */
#ifndef FORMATS_EXTENTS_READ_H
#define FORMATS_EXTENTS_READ_H

#include <stddef.h>
#include <stdint.h>

#include "formats/extent.h"
#include "iouring/error.h"

/* Runs of zeroes in what was read, in ascending order. */
#define ZERO_RUNS_MAX 16U
#define ZERO_RUN_MIN  4096U
struct zero_run {
	size_t off; /* in the buffer */
	uint64_t len;
};
struct zero_runs {
	uint8_t *buf; /* what was read into */
	unsigned int n;
	struct zero_run runs[ZERO_RUNS_MAX];
};

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

	/*
	 * Data of @e, an extent of resolve()'s, could not be read: says in front
	 * of @err's message in which file, and that it is @off of the guest's.
	 */
	void (*blame)(struct extent_reader *x, const struct extent *e,
		      uint64_t off, struct error *err);

	/*
	 * Optional: runs of at least ZERO_RUN_MIN zeroes, as many as there is
	 * room for, are noted here, and their part of the buffer is not
	 * touched.
	 */
	struct zero_runs *zeroes;
};

/*
 * Reads [@off, @off + @len) of what @x tells, all of it or nothing: returns 0
 * or a negative errno. -EIO is this range's only. Any thread; -EAGAIN: it would
 * wait, and may not (nowait.h). BATCH_LATER: reads are under way (later.h), to whose
 * who set engine_later.
 */
int extents_read(struct extent_reader *x, void *buf, size_t len, uint64_t off,
		 struct error *err);

#endif
