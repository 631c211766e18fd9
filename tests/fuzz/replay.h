/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzzers share: how a finding is told, and a corpus is run again. */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "iouring/error.h"

/* What is wrong here is wrong in platter. */
#define MUST(cond, ...)                                        \
	do {                                                   \
		if (!(cond)) {                                 \
			fprintf(stderr, "fuzz: " __VA_ARGS__); \
			fputc('\n', stderr);                   \
			abort();                               \
		}                                              \
	} while (0)

struct replay_outcome {
	bool refused;
	bool damaged; /* taken, but found damaged afterwards */
	struct error reason; /* refused: why */
};

typedef void replay_fn(const uint8_t *data, size_t bytes,
		       struct replay_outcome *ret);

/* The bytes of a file, the caller's to free(). */
uint8_t *replay_read(const char *path, size_t *ret_bytes);

/*
 * Runs the files, and all files of the folders, of the arguments, and returns
 * main()'s status: what is named valid-* must be taken and be sound, what is
 * named hostile-* must be refused or be found damaged, and there is some file.
 */
int replay(int argc, char **argv, replay_fn *run);

/* What a fuzzer of @run ends with: libFuzzer's entry, or main(). */
#ifdef FUZZ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FUZZ_ENTRY(run)                                               \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) \
	{                                                             \
		struct replay_outcome o;                              \
                                                                      \
		run(data, bytes, &o);                                 \
		return 0;                                             \
	}
#else
#define FUZZ_ENTRY(run)                         \
	int main(int argc, char **argv)         \
	{                                       \
		return replay(argc, argv, run); \
	}
#endif

#endif
