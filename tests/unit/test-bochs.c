/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/bochs.c */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

/* Four extents of 8 sectors; two in the file, a sector of bitmap before each. */
enum {
	VERSION = 64,
	HEADER = 68,
	CATALOG = 72,
	BITMAP = 76,
	EXTENT = 80,
	DISK_V1 = 84,
	DISK = 88,
	ENTRIES = 512,
	DATA = ENTRIES + 16,
	EXTENT_BYTES = 4096,
	STRIDE = EXTENT_BYTES + 512,
	FILE_BYTES = DATA + 2 * STRIDE,
};

static void setup(void)
{
	disk_new(FILE_BYTES);
	strcpy((char *)disk_file, "Bochs Virtual HD Image");
	strcpy((char *)disk_file + 32, "Redolog");
	strcpy((char *)disk_file + 48, "Growing");
	disk_le(VERSION, 4, 0x20000);
	disk_le(HEADER, 4, 512);
	disk_le(CATALOG, 4, 4);
	disk_le(BITMAP, 4, 1);
	disk_le(EXTENT, 4, EXTENT_BYTES);
	disk_le(DISK, 8, 4 * EXTENT_BYTES);
	memset(disk_file + ENTRIES, 0xff, 16);
}

static const struct disk_row hostile[] = {
	{ 32, 1, 'X', -ENOTSUP, 32, "type Xedolog" },
	{ 48, 1, 'X', -ENOTSUP, 48, "subtype Xrowing" },
	{ VERSION, 4, 0x30000, -ENOTSUP, VERSION, "version 0x00030000" },
	{ EXTENT, 4, 0, -EBADMSG, EXTENT, "extent size 0" },
	{ EXTENT, 4, 256, -EBADMSG, EXTENT, "extent size 256" },
	{ EXTENT, 4, 5000, -EBADMSG, EXTENT, "extent size 5000" },
	{ EXTENT, 4, 16 << 20, -EBADMSG, EXTENT, "extent size" },
	{ EXTENT, 4, 8192, -EBADMSG, BITMAP, "bitmap of 1 bytes" },
	{ BITMAP, 4, (8 << 20) + 1, -EBADMSG, BITMAP, "bitmap" },
	{ CATALOG, 4, 0x100001, -EFBIG, CATALOG, "limit" },
	{ CATALOG, 4, 0x100000, -EBADMSG, CATALOG, "ends past" },
	{ HEADER, 4, 1024, -EBADMSG, HEADER, "header of 1024" },
	{ BITMAP, 4, 2, -EBADMSG, BITMAP, "bitmap of 2 bytes" },
	{ CATALOG, 4, 5, -EBADMSG, CATALOG, "power of two" },
	{ CATALOG, 4, 2, -EBADMSG, DISK, "cover" },
	{ DISK, 8, UINT64_MAX, -EBADMSG, DISK, "cover" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("bochs", &hostile[_i], true);
}
END_TEST

START_TEST(the_bitmap_says_which_sectors_are_there)
{
	struct layer *l;

	disk_le(ENTRIES + 8, 4, 1); /* extent 2 is the second in the file */
	disk_file[DATA + STRIDE] = 0x8e;
	l = disk_must_open("bochs");
	disk_maps(l, 100, EXTENT_HOLE, EXTENT_BYTES - 100, 0);
	disk_maps(l, 2 * EXTENT_BYTES, EXTENT_HOLE, 512, 0);
	disk_maps(l, 2 * EXTENT_BYTES + 520, EXTENT_DATA, 3 * 512 - 8,
		  DATA + STRIDE + 512 + 520);
	disk_maps(l, 2 * EXTENT_BYTES + 4 * 512, EXTENT_HOLE, 3 * 512, 0);
	disk_maps(l, 2 * EXTENT_BYTES + 7 * 512, EXTENT_DATA, 512,
		  DATA + STRIDE + 512 + 7 * 512);
	layer_unref(l);
}
END_TEST

START_TEST(version_1_has_its_size_elsewhere)
{
	struct layer *l;

	disk_le(VERSION, 4, 0x10000);
	disk_le(DISK_V1, 8, 3 * EXTENT_BYTES);
	l = disk_must_open("bochs");
	ck_assert_uint_eq(l->bytes, 3 * EXTENT_BYTES);
	layer_unref(l);
}
END_TEST

START_TEST(an_extent_behind_the_end_is_damage)
{
	struct layer *l;

	disk_le(ENTRIES, 4, 2);
	l = disk_must_open("bochs");
	disk_is_damaged(l, 0, "behind the file's end");
	layer_unref(l);
	/* So is one of which the file has the bitmap alone, in all its
	 * sectors. */
	disk_le(ENTRIES, 4, 1);
	disk_bytes = DATA + STRIDE + 512;
	disk_file[DATA + STRIDE] = 0x01;
	l = disk_must_open("bochs");
	disk_is_damaged(l, 0, "behind the file's end");
	disk_is_damaged(l, 512, "behind the file's end");
	layer_unref(l);
}
END_TEST

START_TEST(a_block_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;

	disk_le(ENTRIES, 4, 1);
	memset(disk_file + DATA + STRIDE, 0xff, 1);
	disk_bytes -= 1000;
	l = disk_must_open("bochs");
	disk_maps(l, 0, EXTENT_DATA, EXTENT_BYTES - 1000, DATA + STRIDE + 512);
	disk_is_damaged(l, EXTENT_BYTES - 1000, "behind the file's end");
	disk_checks(l, 1, 1);
	layer_unref(l);
}
END_TEST

START_TEST(check_finds_what_is_used_twice_and_what_is_not)
{
	struct layer *l;

	disk_le(ENTRIES, 4, 0);
	disk_le(ENTRIES + 4, 4, 1);
	l = disk_must_open("bochs");
	disk_checks(l, 0, 0);
	layer_unref(l);
	disk_le(ENTRIES + 4, 4, 0);
	l = disk_must_open("bochs");
	disk_checks(l, 1, 1);
	layer_unref(l);
	/* behind the disk's end */
	disk_le(ENTRIES + 4, 4, 1);
	disk_le(DISK, 8, EXTENT_BYTES);
	l = disk_must_open("bochs");
	disk_checks(l, 1, 0);
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, the_bitmap_says_which_sectors_are_there);
	tcase_add_test(tc, version_1_has_its_size_elsewhere);
	tcase_add_test(tc, an_extent_behind_the_end_is_damage);
	tcase_add_test(tc, a_block_that_the_end_cuts_is_damage_behind_it);
	tcase_add_test(tc, check_finds_what_is_used_twice_and_what_is_not);
}

int main(void)
{
	return unit_main("bochs", add);
}
