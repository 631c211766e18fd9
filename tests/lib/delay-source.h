/* SPDX-License-Identifier: BSD-3-Clause */
/* A source in memory as far away as it is told to be. */
#ifndef TESTS_LIB_DELAY_SOURCE_H
#define TESTS_LIB_DELAY_SOURCE_H

#include <stdatomic.h>

#include "iouring/source.h"

struct delay_source {
	struct source base;
	const uint8_t *data;
	uint64_t delay_nsec; /* from start() until it can be finished */

	const char *name, *version; /* of its identity; NULL: it has none */
	unsigned int places; /* so many may be in flight; 0: any number */
	bool busy; /* nothing can be started without waiting */
	uint64_t bad_off; /* reads that touch [bad_off, bad_end) ... */
	uint64_t bad_end;
	int bad_code; /* ... fail so, when they are started ... */
	bool bad_late; /* ... or rather when they are finished */

	atomic_uint reads; /* that were started */
	atomic_uint in_flight, in_flight_max;
	atomic_uint waits; /* round trips: times that finish() slept */
};

/* @bytes at @data, which must outlive it. */
struct delay_source *delay_source_new(const void *data, size_t bytes,
				      unsigned int delay_ms);

#endif
