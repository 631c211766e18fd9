/* SPDX-License-Identifier: BSD-3-Clause */
/* A source in memory that fails as it is told to. */
#ifndef TESTS_LIB_FAULT_SOURCE_H
#define TESTS_LIB_FAULT_SOURCE_H

#include <stdatomic.h>

#include "iouring/source.h"

struct fault_source {
	struct source base;
	const uint8_t *data;

	/* What goes wrong; 0 everywhere: nothing. */
	unsigned int fail_call; /* this call (the first is 1) ... */
	unsigned int fail_calls; /* ... and so many from there on (0: 1) */
	int fail_code; /* fails so, a negative errno */
	size_t short_bytes; /* no call gives more than this */
	uint64_t end_early; /* the end comes here; 0: where it should */
	uint64_t bad_off; /* calls that touch [bad_off, bad_end) ... */
	uint64_t bad_end; /* ... are -EIO */

	atomic_uint calls;
	atomic_ulong bytes; /* that were read */
};

/* @bytes at @data, which must outlive it. The caller sets the faults. */
struct fault_source *fault_source_new(const void *data, size_t bytes);

#endif
