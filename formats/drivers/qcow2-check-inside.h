/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of qcow2's checker share; see qcow2-check.c. */
#ifndef FORMATS_DRIVERS_QCOW2_CHECK_INSIDE_H
#define FORMATS_DRIVERS_QCOW2_CHECK_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/drivers/qcow2.h"
#include "formats/drivers/ref-map.h"

/* Tables are read in pieces of this size. */
#define CHECK_PIECE_BYTES  (64U << 10)
/* Refcounts that stored_refcount() keeps at hand. */
#define CHECK_WINDOW_BYTES 512U

/* What a cluster of the file is used for. 4 bits. */
enum use {
	USE_NONE,
	USE_HEADER,
	USE_L1,
	USE_SNAPSHOT_L1,
	USE_L2,
	USE_DATA,
	USE_COMPRESSED,
	USE_REFTABLE,
	USE_REFBLOCK,
	USE_SNAPSHOTS,
	USE_CRYPTO,
	USE_BITMAP_DIR,
	USE_BITMAP_TABLE,
	USE_BITMAP,
};

/* An L2 table, as the first L1 entry that leads to it knows it. */
struct l2_table {
	uint64_t off;
	uint32_t owner; /* 0: the live L1 table, else snapshot number + 1 */
	uint32_t l1_idx;
};

/* Clusters whose refcount is wrong in the same way, side by side. */
struct mismatch {
	uint64_t first, n;
	uint64_t stored;
	struct ref_cell real;
};

struct checker {
	struct layer *l;
	const struct qcow2_state *s;
	struct check_report *r;
	struct error *err;
	uint64_t clusters; /* of the file, and one behind if referred to */
	bool blind; /* not all references could be read */
	uint64_t lines; /* said */
	uint64_t entries; /* of L1 and bitmap tables, read */
	struct ref_map refs; /* by cluster; its uses are enum use */

	uint64_t *reftable; /* host order; blocks that are no good are 0 */
	uint64_t reftable_entries;
	uint8_t window[CHECK_WINDOW_BYTES];
	uint64_t window_off; /* in the file; 0: nothing read yet */

	struct l2_table *l2;
	size_t n_l2, l2_room;

	struct mismatch run;
	uint64_t highest; /* cluster in use */
	bool any_used;

	uint8_t piece[CHECK_PIECE_BYTES];
};

/* Who refers to something: for messages. */
struct by {
	const char *what; /* "L1 entry", "guest cluster" */
	uint64_t idx;
	uint32_t owner; /* see struct l2_table */
};

#define BY_TEXT_BYTES 96

extern const char *const checker_use_names[]; /* by enum use */

/* A finding: counts it and says it. In one line, without the file's name. */
void checker_corruption(struct checker *k, const char *fmt, ...) PRINTF(2, 3);

/* The same for what could not be looked at. */
void checker_error(struct checker *k, const char *fmt, ...) PRINTF(2, 3);

/* Says without counting: the caller has. */
void checker_tell(struct checker *k, const char *fmt, ...) PRINTF(2, 3);

/* Every allocation that fails has set k->err. */
int checker_failed(const struct checker *k);

/* Returns @buf. */
const char *checker_by_text(const struct by *by, char buf[BY_TEXT_BYTES]);

/* *ret_before: what the cluster was used for until now. */
int checker_count_cluster(struct checker *k, uint64_t cluster, enum use use,
			  uint32_t refs, const struct by *by,
			  enum use *ret_before);

/*
 * Counts @refs references of @by to every cluster that [@off, @off + @bytes)
 * touches, or finds that it is not in the file. The file's end may cut the
 * last cluster, and compressed data name more sectors than they fill: less
 * than a cluster behind the end is fine.
 */
int checker_count_range(struct checker *k, uint64_t off, uint64_t bytes,
			enum use use, uint32_t refs, const struct by *by);

/* Hostile tables overlap each other; all together have a limit. */
int checker_take_entries(struct checker *k, uint64_t entries);

/*
 * A piece of a table, into k->piece. Returns 1 when it is there, 0 when there
 * is nothing to look at: a hole, or it could not be read.
 */
int checker_read_piece(struct checker *k, const char *what, uint64_t off,
		       size_t bytes);

/*
 * Calls @each with every entry that is not 0, until one fails. The table is
 * inside the file. @each leaves k->piece alone.
 */
int checker_each_entry(struct checker *k, const char *what, uint64_t off,
		       uint64_t entries, uint32_t entry_bytes,
		       int (*each)(struct checker *k, void *opaque,
				   uint64_t idx, const uint8_t *raw),
		       void *opaque);

/* An entry as it lies in the file. */
uint64_t checker_be64(const uint8_t *raw);

/* The refcount of the entry @idx of a refcount block, or part of one. */
uint64_t checker_refcount_at(const uint8_t *buf, uint64_t idx,
			     unsigned int order);

/* Clusters that a refcount block is for, as a power of two. */
unsigned int checker_block_bits(const struct checker *k);

/* What the file says; 0 where nothing there is counted, or cannot be read. */
uint64_t checker_stored_refcount(struct checker *k, uint64_t cluster);

/*
 * "Bit 63: 0 for a cluster that is unused, compressed or requires COW, 1 if
 * its refcount is exactly one"; in the live state only.
 */
void checker_copied_bit(struct checker *k, const struct by *by, uint64_t entry,
			enum use use, uint64_t off);

/* All references to the tables have been counted before. */
int checker_l2_tables(struct checker *k);

/*
 * "If the Bitmaps extension is present but this bit is unset, the bitmaps
 * extension data must be considered inconsistent": its clusters are leaks.
 */
int checker_bitmaps(struct checker *k);

#endif
