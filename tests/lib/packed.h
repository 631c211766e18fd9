/* SPDX-License-Identifier: BSD-3-Clause */
/* Text that packs, and what gzip makes of it. */
#ifndef TESTS_LIB_PACKED_H
#define TESTS_LIB_PACKED_H

#include <stddef.h>
#include <stdint.h>

#define UNIT_LINE_BYTES 128U

/*
 * Fills @buf, whole lines, with lines of a few kinds, so that what was before packs
 * well and places where decoding may begin lie near each other.
 */
void unit_lines(uint8_t *buf, size_t bytes);

/* The gzip member of [@from, @from + @len); returns its bytes, of @room at @to. */
size_t unit_gzip(uint8_t *to, size_t room, uint8_t *from, size_t len);

#endif
