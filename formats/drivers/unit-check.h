/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is everything in the file used once? The checker of formats that keep no
 * account of it (no reference counts): it notes what tables and units claim of
 * the file, then looks for what is claimed twice, and for what nobody claims.
 */
#ifndef FORMATS_DRIVERS_UNIT_CHECK_H
#define FORMATS_DRIVERS_UNIT_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "formats/drivers/unit-table.h"

/* Runs of the file; side by side they are one. 64 MiB. */
#define CHECK_CLAIMS_MAX  (4U << 20)
/* Of all tables: hostile ones share theirs. */
#define CHECK_ENTRIES_MAX (64U << 20)

struct claim {
	uint64_t off;
	uint64_t bytes;
};

struct unit_check {
	struct layer *l;
	struct check_report *r;
	const char *unit; /* "block", "cluster": for messages */
	uint64_t unit_bytes; /* overlaps and leaks are counted in these */
	struct source *src; /* whose space it is */
	struct claim *claims;
	size_t n, room;
	uint64_t entries; /* walked so far */
	bool behind_is_fine; /* units behind the disk's end: writers make them */
	uint64_t prev_end; /* of the unit before, in the file */
	struct error *err;
};

/* Counts a corruption in @r, and tells it in a line for people. */
void report_corrupt(struct check_report *r, const char *fmt, ...) PRINTF(2, 3);

void unit_check_done(struct unit_check *k); /* half built is fine */

/* report_corrupt() of @k's report. */
void unit_check_corrupt(struct unit_check *k, const char *fmt, ...)
	PRINTF(2, 3);

/* The file's [@off, @off + @bytes), or what it has of it, is in use. */
int unit_check_claim(struct unit_check *k, uint64_t off, uint64_t bytes);

/* Every entry of a table of units, of which the disk has @entries. */
int unit_check_table(struct unit_check *k, const struct unit_table *t,
		     uint64_t entries);

/*
 * Overlaps, and leaks of whole units from @data_off on to the file's end.
 * Fills what is left of the report.
 */
void unit_check_finish(struct unit_check *k, uint64_t data_off);

#endif
