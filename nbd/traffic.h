/* SPDX-License-Identifier: BSD-3-Clause */
/* How many requests there were, and how long they took. Any thread. */
#ifndef NBD_TRAFFIC_H
#define NBD_TRAFFIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum traffic_op {
	TRAFFIC_READ,
	TRAFFIC_WRITE,
	TRAFFIC_ZERO,
	TRAFFIC_TRIM,
	TRAFFIC_FLUSH,
	TRAFFIC_STATUS, /* block status */
	TRAFFIC_CACHE, /* prefetch */
	TRAFFIC_OPS,
};

/* Requests of bucket i took less than 2^i us; those of the last, any time. */
#define TRAFFIC_BUCKETS 26U

struct traffic {
	struct traffic_count {
		_Atomic uint64_t requests, errors; /* errors: among requests */
		_Atomic uint64_t bytes; /* of those without error */
		_Atomic uint64_t nsec;
		_Atomic uint64_t took[TRAFFIC_BUCKETS];
	} ops[TRAFFIC_OPS];
};

/*
 * One per thread, or few of them, so that those of two processors do not wait for
 * each other's lines of memory.
 */
#define TRAFFIC_STRIPES 8U

struct traffic_meter {
	struct traffic stripes[TRAFFIC_STRIPES];
};

/* One request more, which took @nsec. */
void traffic_note(struct traffic_meter *m, enum traffic_op op, uint64_t bytes,
		  uint64_t nsec, bool failed);

/* Adds what @from has to @to. */
void traffic_add(struct traffic *to, const struct traffic *from);
void traffic_sum(struct traffic *to, const struct traffic_meter *from);

/* "read", "write" ... */
const char *traffic_op_name(enum traffic_op op);

#endif
