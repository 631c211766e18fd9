/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Room for requests at work: what they read compressed bytes into, and decode
 * to when the cache can keep nothing. One piece of memory for the process, so
 * many clients with long requests wait for each other and take no more.
 *
 * Who waits for room must hold nothing that others wait for: it is taken before
 * the first unit of a round is claimed, all of it at once. Those that wait are
 * served in the order of their coming.
 */
#ifndef FORMATS_ROOM_H
#define FORMATS_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct room {
	uint8_t *data;
	size_t bytes;
	bool alone; /* more than there is: malloc()ed, one at a time */
};

/* How much there is, in bytes; before the first is taken. */
void room_configure(size_t bytes);

/* Frees it; nobody may have any. */
void room_shutdown(void);

/* @bytes > 0. Waits until there are as many. Returns 0 or -ENOMEM. */
int room_take(size_t bytes, struct room *ret);

/* All zeroes is fine. */
void room_give(struct room *r);

struct room_stats {
	size_t bytes; /* taken */
	uint64_t waits; /* how often somebody had to */
};
void room_get_stats(struct room_stats *ret);

#endif
