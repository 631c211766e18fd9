/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How often, and as what, each cluster of a file is referred to: for a checker.
 * A sparse file has numbers up to 2^54, of which few are used; memory goes with
 * those, a byte each while a count is small, and has a limit.
 */
#ifndef FORMATS_DRIVERS_REF_MAP_H
#define FORMATS_DRIVERS_REF_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define REF_MAP_USES	 16U /* 0: nothing; what the others mean is the user's */
#define REF_MAP_REFS_MAX ((1U << 28) - 1) /* more are counted as so many */

struct ref_cell {
	unsigned int use; /* < REF_MAP_USES */
	uint32_t refs; /* <= REF_MAP_REFS_MAX */
};

/* One thread at a time. */
struct ref_map {
	void **root; /* nodes; the lowest one's slots are leaves */
	unsigned int levels; /* of nodes */
	size_t bytes, bytes_max; /* allocated, of how many */
};

/* For numbers up to @highest, with @bytes_max of memory. -ENOMEM, -EFBIG */
int ref_map_init(struct ref_map *m, uint64_t highest, size_t bytes_max,
		 struct error *err);
void ref_map_done(struct ref_map *m); /* zeroed is fine */

/* A number that was never set is used as nothing, 0 times. */
struct ref_cell ref_map_get(const struct ref_map *m, uint64_t cluster);
/* -ENOMEM, -EFBIG: over the limit; the cell is as it was then. */
int ref_map_set(struct ref_map *m, uint64_t cluster, struct ref_cell c,
		struct error *err);
/*
 * The first number from @cluster on that may be in use, else @end: some behind
 * it are not. *ret_stop, at most @end, is where to ask again.
 */
uint64_t ref_map_next(const struct ref_map *m, uint64_t cluster, uint64_t end,
		      uint64_t *ret_stop);

/* Memory that the user needs beside, out of the same limit; to be free()d. */
void *ref_map_calloc(struct ref_map *m, size_t n, size_t bytes,
		     struct error *err);
/* The same for what is allocated elsewhere. -EFBIG */
int ref_map_take(struct ref_map *m, size_t bytes, struct error *err);

#endif
