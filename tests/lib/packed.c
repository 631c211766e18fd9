/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/lib/packed.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "tests/lib/unit.h"

void unit_lines(uint8_t *buf, size_t bytes)
{
	uint8_t lines[16][UNIT_LINE_BYTES];
	unsigned int seed = 1;
	size_t i;

	unit_fill(lines, sizeof(lines), 1);
	for (i = 0; i < bytes; i += UNIT_LINE_BYTES)
		memcpy(buf + i, lines[rand_r(&seed) % 16], UNIT_LINE_BYTES);
}

size_t unit_gzip(uint8_t *to, size_t room, uint8_t *from, size_t len)
{
	z_stream z = { .next_in = from,
		       .avail_in = (uInt)len,
		       .next_out = to,
		       .avail_out = (uInt)room };

	ck_assert_int_eq(
		deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY),
		Z_OK);
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}
