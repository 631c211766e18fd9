/* SPDX-License-Identifier: BSD-3-Clause */
/* Sound files with one thing wrong, by the thousand: a search that a test can
 * afford, the same at every run. */
#ifndef TESTS_FUZZ_MUTATE_H
#define TESTS_FUZZ_MUTATE_H

#include <stdbool.h>

#include "tests/fuzz/replay.h"

struct mutate_options {
	size_t skip; /* bytes before the file: expand.h's flags */
	bool big_endian; /* the format's numbers */
};

/*
 * Of each file named valid-* in @folder, runs: every number of 32 and 64 bits
 * at the file's beginning and its end made 0, the greatest, half of that, one
 * more and one less; the file cut at and around every border of 512 bytes;
 * random bytes in random places. Returns main()'s status.
 */
int mutate(const char *folder, const struct mutate_options *options,
	   replay_fn *run);

#endif
