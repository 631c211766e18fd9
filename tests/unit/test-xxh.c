/* SPDX-License-Identifier: BSD-3-Clause */
/* Against what the published implementation gives. */
#include <string.h>

#include "formats/streams/xxh.h"
#include "tests/lib/unit.h"

static const struct {
	const char *text;
	uint32_t h32;
	uint64_t h64;
} known[] = {
	{ "", 0x02cc5d05, 0xef46db3751d8e999 },
	{ "a", 0x550d7456, 0xd24ec4f1a98c6e5b },
	{ "abc", 0x32d153ff, 0x44bc2cf5ad770999 },
	{ "Nobody inspects the spammish repetition", 0xe2293b2f,
	  0xfbcea83c8a378bf1 },
};

START_TEST(sums_are_those_that_are_known)
{
	const char *text = known[_i].text;

	ck_assert_uint_eq(xxh32(text, strlen(text)), known[_i].h32);
	ck_assert_uint_eq(xxh64(text, strlen(text)), known[_i].h64);
}
END_TEST

START_TEST(a_sum_of_parts_is_that_of_the_whole)
{
	uint8_t data[100];
	size_t cut, i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (cut = 0; cut <= sizeof(data); cut++) {
		struct xxh32 x;

		xxh32_begin(&x);
		xxh32_add(&x, data, cut);
		xxh32_add(&x, data + cut, sizeof(data) - cut);
		ck_assert_uint_eq(xxh32_end(&x), xxh32(data, sizeof(data)));
	}
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, sums_are_those_that_are_known, known);
	tcase_add_test(tc, a_sum_of_parts_is_that_of_the_whole);
}

int main(void)
{
	return unit_main("xxh", add);
}
