/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A table whose entries say where the units (blocks, clusters, grains) of a
 * disk lie: the walk along it is the same in every format that has one.
 */
#ifndef FORMATS_DRIVERS_UNIT_TABLE_H
#define FORMATS_DRIVERS_UNIT_TABLE_H

#include <stdint.h>

#include "formats/layer.h"

/* What an entry says of its unit. */
struct unit_place {
	enum extent_kind kind;
	uint64_t host_off; /* DATA: of the unit; COMPRESSED: of its stream */
	uint32_t comp_bytes; /* COMPRESSED */
};

struct unit_table {
	struct source *src; /* holds the table */
	uint64_t off; /* where in it, bytes */
	uint32_t entry_bytes; /* at most 8 */
	uint64_t first_unit; /* its number in the disk; for the checker */
	uint64_t unit_bytes; /* of the disk, for each entry; > 0 */
	uint64_t stride; /* from a unit to its neighbour in the file */
	struct source *data; /* holds the units */

	/*
	 * What does the entry that lies at @entry say? A negative errno where
	 * it is wrong. @state is the table's.
	 */
	int (*decode)(const void *state, const uint8_t *entry,
		      struct unit_place *ret, struct error *err);
	const void *state;
};

/*
 * The run that begins @off bytes into what the table maps: *ret is where its
 * first unit lies, *ret_len how far the same answer holds, at most @len. All
 * of [@off, @off + @len) is in the table; entries that the file does not have
 * are -EBADMSG.
 */
int unit_table_find(struct layer *l, const struct unit_table *t, uint64_t off,
		    uint64_t len, struct unit_place *ret, uint64_t *ret_len,
		    struct error *err);

/* The same as an extent. The codec of compressed units is the caller's. */
int unit_table_map(struct layer *l, const struct unit_table *t, uint64_t off,
		   uint64_t len, struct extent *ret, struct error *err);

/*
 * For check(): calls @each for every entry of @entries, in order, until it
 * returns non-zero, and returns that. Entries that cannot be read or are wrong
 * come with @r < 0 and @err filled; the walk goes on behind them.
 */
int unit_table_walk(struct layer *l, const struct unit_table *t,
		    uint64_t entries,
		    int (*each)(void *opaque, uint64_t idx,
				const struct unit_place *p, int r,
				const struct error *err),
		    void *opaque);

#endif
