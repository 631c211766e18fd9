/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "formats/codec/adc.h"
#include "tests/lib/unit.h"

#define PLAIN(n) (0x80 | ((n)-1))

static const struct {
	const char *in;
	size_t in_len;
	const char *out; /* NULL: refused */
	size_t out_len;
} rows[] = {
	{ "", 0, "", 0 },
	{ "\x82"
	  "abc",
	  4, "abc", 3 },
	/* Three from three before; what is wanted ends in an item's middle. */
	{ "\x82"
	  "abc\x00\x02",
	  6, "abcabc", 6 },
	{ "\x82"
	  "abc\x00\x02",
	  6, "abcab", 5 },
	/* A copy of what it makes itself: 18 of the last byte. */
	{ "\x80"
	  "a\x3c\x00",
	  4, "aaaaaaaaaaaaaaaaaaa", 19 },
	/* Four from far: distances of 16 bits. */
	{ "\x83"
	  "abcd\x40\x00\x03",
	  8, "abcdabcd", 8 },
	/* Behind the last item there may be anything. */
	{ "\x80"
	  "a\xff",
	  3, "a", 1 },
	/* Ends early: at an item, in its head, in its bytes. */
	{ "\x80"
	  "a",
	  2, NULL, 2 },
	{ "\x80"
	  "a\x00",
	  3, NULL, 4 },
	{ "\x80"
	  "a\x40\x00",
	  4, NULL, 5 },
	{ "\x82"
	  "ab",
	  3, NULL, 3 },
	/* From before the beginning, by one. */
	{ "\x80"
	  "a\x00\x01",
	  4, NULL, 4 },
	{ "\x80"
	  "a\x40\x00\x01",
	  5, NULL, 5 },
};

START_TEST(an_item_is_what_it_stands_for)
{
	uint8_t out[64];
	bool ok;

	memset(out, 0xee, sizeof(out));
	ok = adc_decode((const uint8_t *)rows[_i].in, rows[_i].in_len, out,
			rows[_i].out_len);
	ck_assert_int_eq(ok, rows[_i].out != NULL);
	if (ok && rows[_i].out_len)
		ck_assert_mem_eq(out, rows[_i].out, rows[_i].out_len);
	ck_assert_uint_eq(out[rows[_i].out_len], 0xee);
}
END_TEST

START_TEST(the_farthest_byte_is_64_kib_before)
{
	size_t plain = 65536, i, n = 0;
	uint8_t *in = malloc(2 * plain), *out = malloc(2 * plain);

	for (i = 0; i < plain; i += 128) {
		in[n++] = PLAIN(128);
		memset(in + n, (int)(i >> 8), 128);
		n += 128;
	}
	memcpy(in + n, "\x7f\xff\xff", 3);
	ck_assert(adc_decode(in, n + 3, out, plain + 67));
	ck_assert_mem_eq(out + plain, out, 67);
	free(in);
	free(out);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, an_item_is_what_it_stands_for, rows);
	tcase_add_test(tc, the_farthest_byte_is_64_kib_before);
}

int main(void)
{
	return unit_main("adc", add);
}
