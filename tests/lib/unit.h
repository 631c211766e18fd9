/* SPDX-License-Identifier: BSD-3-Clause */
/* What the Check programs of tests/unit share. */
#ifndef TESTS_LIB_UNIT_H
#define TESTS_LIB_UNIT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <check.h>

#include "iouring/error.h"

#define LOOP(tc, test, rows) \
	tcase_add_loop_test(tc, test, 0, (int)ARRAY_SIZE(rows))

/* Runs the tests that @add adds; main() returns the result. */
int unit_main(const char *name, void (*add)(TCase *tc));

/*
 * "FOLDER/..." in a folder of this program's own, which is gone when it ends.
 * The string is good for the next 31 calls.
 */
const char *unit_path(const char *fmt, ...) PRINTF(1, 2);

/* Bytes that look like nothing in particular, the same for the same @seed. */
void unit_fill(void *buf, size_t len, unsigned int seed);

/* Makes the file @path of these bytes; fails the test if it cannot. */
void unit_write(const char *path, const void *data, size_t len);

/*
 * Ends the program as skipped, with the reason, where names in images cannot
 * be opened at all: valgrind knows no openat2().
 */
void unit_need_openat2(void);

/*
 * How many rounds a test with chance in it makes instead of @usual: $PLATTER_ROUNDS
 * per cent of them, and one at least.
 */
unsigned int unit_rounds(unsigned int usual);

/* How many descriptors this process has open. */
unsigned int unit_open_fds(void);

/* Runs @fn in a child; fails the test unless it returns 0 there. */
void unit_in_child(int (*fn)(void *opaque), void *opaque);

/* Runs @fn in @n threads at once, with their numbers; waits for all. */
void unit_threads(unsigned int n, void (*fn)(unsigned int number));

/* ck_assert that @r is 0, with the error's words. */
#define must(r, err) ck_assert_msg((r) == 0, "%s", (err).msg)

/* ck_assert that @err's message has @part in it. */
void unit_says(const struct error *err, const char *part);

#endif
