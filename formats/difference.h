/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What changed from one image to another: two states of one disk, most of
 * all, whose tables say what they share without that a byte of data is read.
 */
#ifndef FORMATS_DIFFERENCE_H
#define FORMATS_DIFFERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/image.h"

struct difference {
	struct image *from, *to; /* the user's, who holds them */
	/*
	 * In @to's place, which is NULL: whoever can tell where a disk's bytes
	 * lie, @bytes of them, and whose answers stay true during the walk.
	 * Not with compare.
	 */
	struct extent_reader *reader;
	uint64_t bytes;
	bool compare; /* read what the tables do not tell apart; else such
			 ranges, data in two places, count as changed */
};

enum change {
	CHANGE_NONE, /* @to reads as @from, which behind its end is zero */
	CHANGE_DATA, /* @to has other data, or damage */
	CHANGE_ZERO, /* @to reads as zeroes, and @from had something there */
};

/*
 * Tells @each of [@off, @off + @len), inside @to, in runs that differ from
 * their neighbours, until it returns non-zero, and returns that, else 0 or a
 * negative errno. With compare, changes are told in units of
 * DIFFERENCE_UNIT_BYTES. May end early, for a range that takes long, when
 * @each has been called at least once: *ret_end is where the answers end.
 */
#define DIFFERENCE_UNIT_BYTES 512U
int difference_walk(const struct difference *d, uint64_t off, uint64_t len,
		    int (*each)(void *opaque, uint64_t off, uint64_t len,
				enum change change),
		    void *opaque, uint64_t *ret_end, struct error *err);

#endif
