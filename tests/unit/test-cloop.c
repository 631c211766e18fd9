/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/cloop.c */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

enum {
	BLOCK = 128,
	BLOCKS = 132,
	PLACES = 136,
	FIRST = PLACES + 5 * 8,
	FILE_BYTES = 4096
};

static void setup(void)
{
	unsigned int i;

	disk_new(FILE_BYTES);
	strcpy((char *)disk_file, "#!/bin/sh\n#V2.0 Format\n");
	disk_be(BLOCK, 4, 1024);
	disk_be(BLOCKS, 4, 4);
	for (i = 0; i < 5; i++)
		disk_be(PLACES + 8 * i, 8, FIRST + 100 * i);
}

static const struct disk_row hostile[] = {
	{ BLOCK, 4, 0, -EBADMSG, BLOCK, "block size 0" },
	{ BLOCK, 4, 513, -EBADMSG, BLOCK, "block size 513" },
	{ BLOCK, 4, (64 << 20) + 512, -EBADMSG, BLOCK, "block size" },
	{ BLOCKS, 4, (64 << 20) + 1, -EFBIG, BLOCKS, "limit" },
	{ BLOCKS, 4, (FILE_BYTES - PLACES) / 8, -EBADMSG, BLOCKS, "end past" },
	{ BLOCKS, 4, 3, -EBADMSG, BLOCKS, "first block is at" },
	{ BLOCKS, 4, 5, -EBADMSG, BLOCKS, "first block is at" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("cloop", &hostile[_i], false);
}
END_TEST

START_TEST(open_refuses_a_header_that_is_cut_off)
{
	static const struct disk_row cut = { .code = -EBADMSG,
					     .off = 135,
					     .says = "cut off" };

	disk_bytes = 135;
	disk_refuses("cloop", &cut, false);
}
END_TEST

START_TEST(a_block_is_a_stream)
{
	struct extent e;
	struct layer *l = disk_must_open("cloop");

	ck_assert_uint_eq(l->bytes, 4096);
	disk_checks(l, 0, 0);
	e = disk_map(l, 1024 + 9, 5000);
	ck_assert_uint_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_uint_eq(e.codec, CODEC_ZLIB);
	ck_assert_uint_eq(e.host_off, FIRST + 100);
	ck_assert_uint_eq(e.comp_bytes, 100);
	ck_assert_uint_eq(e.unit_bytes, 1024);
	ck_assert_uint_eq(e.unit_off, 9);
	ck_assert_uint_eq(e.len, 1024 - 9);
	layer_unref(l);
}
END_TEST

START_TEST(wrong_places_are_damage)
{
	struct layer *l;

	disk_be(PLACES + 8, 8, FIRST); /* nothing in block 0 */
	disk_be(PLACES + 16, 8, FIRST + 2049); /* too much in block 1 */
	disk_be(PLACES + 32, 8, FILE_BYTES + 1);
	l = disk_must_open("cloop");
	disk_is_damaged(l, 0, "not in the file");
	disk_is_damaged(l, 1024, "too long");
	disk_is_damaged(l, 2048, "not in the file"); /* backwards */
	disk_is_damaged(l, 3072, "not in the file");
	disk_checks(l, 4, 0);
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, open_refuses_a_header_that_is_cut_off);
	tcase_add_test(tc, a_block_is_a_stream);
	tcase_add_test(tc, wrong_places_are_damage);
}

int main(void)
{
	return unit_main("cloop", add);
}
