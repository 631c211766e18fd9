/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/vdi.c */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

/* Header, map in the second KiB, blocks of 512 bytes from 2048 on. */
enum {
	SIGNATURE = 0x40,
	VERSION = 0x44,
	HEADER_BYTES = 0x48,
	TYPE = 0x4c,
	MAP_OFF = 0x154,
	DATA_OFF = 0x158,
	DISK_BYTES = 0x170,
	BLOCK_BYTES = 0x178,
	EXTRA_BYTES = 0x17c,
	BLOCKS = 0x180,
	ALLOCATED = 0x184,
	UUID = 0x188,
	MODIFY = 0x198,
	PARENT = 0x1a8,
	PARENT_MODIFY = 0x1b8,

	MAP = 1024,
	DATA = 2048,
	N_BLOCKS = 16,
	FILE_BLOCKS = 8, /* in the file */
};

#define FREE 0xffffffffU
#define ZERO 0xfffffffeU

static void entry(unsigned int block, uint32_t value)
{
	disk_le(MAP + 4 * block, 4, value);
}

static void setup(void)
{
	unsigned int i;

	disk_new(DATA + FILE_BLOCKS * 512);
	disk_le(SIGNATURE, 4, 0xbeda107f);
	disk_le(VERSION, 4, 0x10001);
	disk_le(HEADER_BYTES, 4, 400);
	disk_le(TYPE, 4, 1);
	disk_le(MAP_OFF, 4, MAP);
	disk_le(DATA_OFF, 4, DATA);
	disk_le(DISK_BYTES, 8, N_BLOCKS * 512);
	disk_le(BLOCK_BYTES, 4, 512);
	disk_le(BLOCKS, 4, N_BLOCKS);
	for (i = 0; i < N_BLOCKS; i++)
		entry(i, FREE);
}

static const struct disk_row hostile[] = {
	{ SIGNATURE, 4, 0xbeda107e, -EBADMSG, SIGNATURE, "not VDI" },
	{ VERSION, 4, 0x20000, -ENOTSUP, VERSION, "version 2.0" },
	{ HEADER_BYTES, 4, 383, -EBADMSG, HEADER_BYTES, "length 383" },
	{ TYPE, 4, 0, -ENOTSUP, TYPE, "type 0" },
	{ TYPE, 4, 5, -ENOTSUP, TYPE, "type 5" },
	{ TYPE, 4, 3, -EBADMSG, PARENT, "undo image does not tell" },
	{ TYPE, 4, 4, -EBADMSG, PARENT, "differencing image does not tell" },
	{ BLOCK_BYTES, 4, 0, -EBADMSG, BLOCK_BYTES, "block size 0" },
	{ BLOCK_BYTES, 4, 768, -EBADMSG, BLOCK_BYTES, "block size 768" },
	{ BLOCK_BYTES, 4, 256, -EBADMSG, BLOCK_BYTES, "block size 256" },
	{ BLOCKS, 4, 0x20000000, -EFBIG, BLOCKS, "limit" },
	{ BLOCKS, 4, 15, -EBADMSG, DISK_BYTES, "15 blocks" },
	{ BLOCKS, 4, 17, -EBADMSG, DISK_BYTES, "17 blocks" },
	{ DISK_BYTES, 8, N_BLOCKS * 512 + 1, -EBADMSG, DISK_BYTES, "8193" },
	{ DISK_BYTES, 8, UINT64_MAX, -EBADMSG, DISK_BYTES, "blocks of" },
	{ MAP_OFF, 4, DATA + FILE_BLOCKS * 512 - 63, -EBADMSG, MAP_OFF,
	  "ends past" },
	{ MAP_OFF, 4, MAP + 4, -EBADMSG, MAP_OFF, "not at a sector" },
	{ MAP_OFF, 4, 0, -EBADMSG, MAP_OFF, "behind the header" },
	{ MAP_OFF, 4, DATA, -EBADMSG, DATA_OFF, "behind the block map" },
	{ DATA_OFF, 4, DATA + 256, -EBADMSG, DATA_OFF, "not at a sector" },
	{ MAP_OFF, 4, UINT32_MAX, -EBADMSG, MAP_OFF, "ends past" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("vdi", &hostile[_i], true);
}
END_TEST

START_TEST(open_refuses_a_header_that_is_cut_off)
{
	static const struct disk_row cut = { .code = -EBADMSG,
					     .off = 0x1c7,
					     .says = "cut off" };

	disk_bytes = 0x1c7;
	disk_refuses("vdi", &cut, true);
}
END_TEST

START_TEST(neighbours_in_the_file_are_one_extent)
{
	struct layer *l;

	entry(2, 3);
	entry(3, 4);
	entry(4, 5);
	entry(5, 2);
	l = disk_must_open("vdi");
	disk_maps(l, 0, EXTENT_HOLE, 1024, 0);
	disk_maps(l, 1024 + 100, EXTENT_DATA, 3 * 512 - 100,
		  DATA + 3 * 512 + 100);
	disk_maps(l, 5 * 512, EXTENT_DATA, 512, DATA + 2 * 512);
	disk_maps(l, 6 * 512, EXTENT_HOLE, 10 * 512, 0);
	layer_unref(l);
}
END_TEST

START_TEST(zero_blocks_are_zeroes_and_free_ones_holes)
{
	struct layer *l;

	entry(0, ZERO);
	entry(1, ZERO);
	l = disk_must_open("vdi");
	disk_maps(l, 0, EXTENT_ZERO, 1024, 0);
	disk_maps(l, 1024, EXTENT_HOLE, 14 * 512, 0);
	layer_unref(l);
}
END_TEST

START_TEST(extra_bytes_lie_before_each_block)
{
	struct layer *l;

	disk_le(EXTRA_BYTES, 4, 16);
	entry(0, 0);
	entry(1, 1);
	l = disk_must_open("vdi");
	disk_maps(l, 0, EXTENT_DATA, 512, DATA + 16);
	disk_maps(l, 512, EXTENT_DATA, 512, DATA + 512 + 32);
	layer_unref(l);
}
END_TEST

START_TEST(a_block_behind_the_end_is_damage)
{
	struct layer *l;

	entry(0, FILE_BLOCKS - 1);
	entry(1, FILE_BLOCKS);
	entry(2, N_BLOCKS);
	l = disk_must_open("vdi");
	disk_maps(l, 0, EXTENT_DATA, 512, DATA + (FILE_BLOCKS - 1) * 512);
	disk_is_damaged(l, 512, "behind the file's end");
	disk_is_damaged(l, 1024, "over the disk's 16 blocks");
	layer_unref(l);
}
END_TEST

START_TEST(a_block_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;

	/* 8 blocks of 1024 bytes, the last but half in the disk */
	disk_le(BLOCK_BYTES, 4, 1024);
	disk_le(BLOCKS, 4, 8);
	disk_le(DISK_BYTES, 8, 8 * 1024 - 512);
	disk_le(ALLOCATED, 4, 1);
	entry(0, 3);
	disk_bytes -= 100;
	l = disk_must_open("vdi");
	disk_maps(l, 0, EXTENT_DATA, 924, DATA + 3 * 1024);
	disk_is_damaged(l, 924, "behind the file's end");
	disk_checks(l, 2, 3);
	layer_unref(l);
	/* Behind the disk's end nothing is missed. */
	entry(0, FREE);
	entry(7, 3);
	l = disk_must_open("vdi");
	disk_maps(l, 7 * 1024, EXTENT_DATA, 512, DATA + 3 * 1024);
	layer_unref(l);
}
END_TEST

START_TEST(version_0_has_its_map_behind_the_header)
{
	struct layer *l;

	disk_new(8192);
	disk_le(SIGNATURE, 4, 0xbeda107f);
	disk_le(VERSION, 4, 2);
	disk_le(0x48, 4, 1);
	disk_le(0x160, 8, 8 * 512);
	disk_le(0x168, 4, 512);
	disk_le(0x16c, 4, 8);
	disk_le(0x1a4, 4, 1);
	disk_le(0x1a8, 4, FREE);
	l = disk_must_open("vdi");
	ck_assert_uint_eq(l->bytes, 8 * 512);
	disk_maps(l, 0, EXTENT_DATA, 512, 0x1a4 + 32 + 512);
	layer_unref(l);
}
END_TEST

START_TEST(a_parent_is_known_by_its_id)
{
	struct layer *child, *parent;
	uint8_t copy[DATA + FILE_BLOCKS * 512];
	struct error err = { 0 };

	memset(disk_file + UUID, 7, 16);
	memset(disk_file + MODIFY, 9, 16);
	parent = disk_must_open("vdi");
	memcpy(copy, disk_file, disk_bytes);
	source_unref(parent->src);
	must(memory_source_new(copy, sizeof(copy), &parent->src, &err), err);

	memset(disk_file + UUID, 1, 16);
	memset(disk_file + PARENT, 7, 16);
	memset(disk_file + PARENT_MODIFY, 9, 16);
	disk_le(TYPE, 4, 4);
	child = disk_must_open("vdi");
	ck_assert(child->parent.wanted && !child->parent.name);
	ck_assert_str_eq(child->parent.format, "vdi");
	ck_assert(child->ops->is_parent(child, parent->src));
	ck_assert(!child->ops->is_parent(child, child->src));
	must(child->ops->check_parent(child, parent, &err), err);
	ck_assert_int_eq(child->ops->check_parent(child, child, &err),
			 -EBADMSG);
	unit_says(&err, "its parent has the id");
	layer_unref(child);

	memset(disk_file + PARENT_MODIFY, 8, 16);
	child = disk_must_open("vdi");
	err = (struct error){ 0 };
	ck_assert_int_eq(child->ops->check_parent(child, parent, &err),
			 -EBADMSG);
	unit_says(&err, "modified since");
	layer_unref(child);
	layer_unref(parent);
}
END_TEST

START_TEST(check_counts_what_is_used_twice_and_what_is_not)
{
	struct layer *l;

	entry(0, 0);
	entry(1, 1);
	disk_le(ALLOCATED, 4, 2);
	l = disk_must_open("vdi");
	disk_checks(l, 0, FILE_BLOCKS - 2);
	layer_unref(l);
	entry(2, 1);
	disk_le(ALLOCATED, 4, 3);
	l = disk_must_open("vdi");
	disk_checks(l, 1, FILE_BLOCKS - 2);
	layer_unref(l);
	disk_le(ALLOCATED, 4, 4); /* wrong, too */
	entry(3, 100);
	l = disk_must_open("vdi");
	disk_checks(l, 3, FILE_BLOCKS - 2);
	layer_unref(l);
}
END_TEST

START_TEST(info_tells_type_and_version)
{
	struct layer *l;

	disk_le(TYPE, 4, 2);
	l = disk_must_open("vdi");
	ck_assert_str_eq(disk_info(l, "type"), "fixed");
	ck_assert_str_eq(disk_info(l, "version"), "1.1");
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, open_refuses_a_header_that_is_cut_off);
	tcase_add_test(tc, neighbours_in_the_file_are_one_extent);
	tcase_add_test(tc, zero_blocks_are_zeroes_and_free_ones_holes);
	tcase_add_test(tc, extra_bytes_lie_before_each_block);
	tcase_add_test(tc, a_block_behind_the_end_is_damage);
	tcase_add_test(tc, a_block_that_the_end_cuts_is_damage_behind_it);
	tcase_add_test(tc, version_0_has_its_map_behind_the_header);
	tcase_add_test(tc, a_parent_is_known_by_its_id);
	tcase_add_test(tc, check_counts_what_is_used_twice_and_what_is_not);
	tcase_add_test(tc, info_tells_type_and_version);
}

int main(void)
{
	return unit_main("vdi", add);
}
