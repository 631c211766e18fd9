/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stands between the engine and the kernel: io_uring_submit_and_wait() and
 * pread() and
 * pwrite() of a program that links this fail as they are told to.
 */
#ifndef TESTS_LIB_RING_FAULTS_H
#define TESTS_LIB_RING_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>

/* All 0: nothing goes wrong. Counted over all threads, from 1. */
struct ring_faults {
	unsigned int every; /* every so many-th read or write ... */
	int code; /* ... ends with this; 0: brings half its bytes */
	int submit_code; /* the submission of this number fails so */
	unsigned int submit_call;
	atomic_uint ios;
	atomic_uint submits;
	atomic_uint hits; /* faults injected */
};

extern struct ring_faults ring_faults;

/*
 * A seccomp filter on this thread and those it makes: io_uring_setup (when
 * @setup), io_uring_enter and io_uring_register fail with @code (positive).
 */
void ring_deny(bool setup, int code);

#endif
