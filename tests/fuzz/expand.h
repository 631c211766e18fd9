/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Formats whose files are too large or too well sealed for a fuzzer get short
 * inputs, from which the file is made.
 */
#ifndef TESTS_FUZZ_EXPAND_H
#define TESTS_FUZZ_EXPAND_H

#include <stddef.h>
#include <stdint.h>

/*
 * Makes of the input the file that it stands for, good until the next call;
 * the same where the input is the file. make-hyperv-corpus.py does the
 * reverse.
 *
 * vhd: a byte of flags, the file. Flags: which checksums are made right: 1 of
 * the footer, 2 of its copy, 4 of the dynamic header.
 *
 * vhdx: a byte of flags, then the windows of expand.c one after the other,
 * the last may be cut; the rest of the file is zeroes. Flags: which checksums
 * are made right: 1, 2 of the headers, 4, 8 of the region tables, 16 of log
 * entries.
 */
void fuzz_expand(const char *format, const uint8_t **data, size_t *bytes);

/* How many bytes of flags stand before the format's own. */
size_t fuzz_expand_flags(const char *format);

#endif
