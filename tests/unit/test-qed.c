/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/qed.c */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

/* Clusters: header, L1 table, L2 table, data. */
enum {
	CLUSTER = 4096,
	L1 = CLUSTER,
	L2 = 2 * CLUSTER,
	DATA = 3 * CLUSTER,
	FILE_BYTES = 8 * CLUSTER,
	ENTRIES = 512,
	DISK = 2 * ENTRIES * CLUSTER,
};

static void setup(void)
{
	disk_new(FILE_BYTES);
	memcpy(disk_file, "QED", 4);
	disk_le(4, 4, CLUSTER);
	disk_le(8, 4, 1);
	disk_le(12, 4, 1);
	disk_le(40, 8, L1);
	disk_le(48, 8, DISK);
	disk_le(L1, 8, L2);
}

static const struct disk_row hostile[] = {
	{ 0, 4, 0x00444550, -EBADMSG, 0, "not QED" },
	{ 16, 8, 8, -ENOTSUP, 16, "features 0x8" },
	{ 16, 8, 1ULL << 63, -ENOTSUP, 16, "features 0x8000" },
	{ 4, 4, 2048, -EBADMSG, 4, "cluster size 2048" },
	{ 4, 4, 5000, -EBADMSG, 4, "cluster size 5000" },
	{ 4, 4, 128 << 20, -EBADMSG, 4, "cluster size" },
	{ 8, 4, 0, -EBADMSG, 8, "table size of 0" },
	{ 8, 4, 3, -EBADMSG, 8, "table size of 3" },
	{ 8, 4, 32, -EBADMSG, 8, "table size of 32" },
	{ 12, 4, 0, -EBADMSG, 12, "header of 0" },
	{ 12, 4, 9, -EBADMSG, 12, "header of 9" },
	{ 12, 4, UINT32_MAX, -EBADMSG, 12, "header of" },
	{ 12, 4, 2, -EBADMSG, 40, "L1 table at 4096" }, /* in the header */
	{ 40, 8, L1 + 8, -EBADMSG, 40, "L1 table" },
	{ 40, 8, FILE_BYTES, -EBADMSG, 40, "L1 table" },
	{ 40, 8, -(uint64_t)CLUSTER, -EBADMSG, 40, "L1 table" },
	{ 48, 8, DISK + 1, -EBADMSG, 48, "not a multiple" },
	{ 48, 8, (uint64_t)ENTRIES *ENTRIES *CLUSTER + 512, -EBADMSG, 48,
	  "more than" },
	{ 48, 8, 1ULL << 63, -EBADMSG, 48, "more than" },
	{ 16, 8, 1, -EBADMSG, 60, "name of 0 bytes" },
	{ 60, 4, 5, -EBADMSG, 16, "not marked as having a backing file" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("qed", &hostile[_i], true);
}
END_TEST

static const struct {
	uint32_t off, bytes;
	uint64_t blamed;
	const char *says;
} names[] = {
	{ 64, 1024, 60, "1024 bytes" },
	{ CLUSTER - 2, 3, 56, "past the header" },
	{ UINT32_MAX, 3, 56, "past the header" },
	{ 64, 3, 64, "NUL" },
};

START_TEST(open_refuses_hostile_backing_name)
{
	struct disk_row row = {
		56, 4, names[_i].off, -EBADMSG, names[_i].blamed, names[_i].says
	};

	disk_le(16, 8, 1);
	disk_le(60, 4, names[_i].bytes);
	disk_refuses("qed", &row, true);
}
END_TEST

START_TEST(a_backing_file_is_raw_when_it_must_not_be_probed)
{
	struct layer *l;

	memcpy(disk_file + 64, "base", 4);
	disk_le(16, 8, 5);
	disk_le(56, 4, 64);
	disk_le(60, 4, 4);
	l = disk_must_open("qed");
	ck_assert_str_eq(l->parent.name, "base");
	ck_assert_str_eq(l->parent.format, "raw");
	layer_unref(l);
	disk_le(16, 8, 1);
	l = disk_must_open("qed");
	ck_assert_ptr_null(l->parent.format);
	layer_unref(l);
}
END_TEST

START_TEST(entries_are_data_zeroes_and_holes)
{
	struct layer *l;

	disk_le(L2, 8, DATA + CLUSTER);
	disk_le(L2 + 8, 8, DATA + 2 * CLUSTER);
	disk_le(L2 + 16, 8, 1);
	disk_le(L2 + 24, 8, 1);
	disk_le(L2 + 40, 8, DATA);
	l = disk_must_open("qed");
	ck_assert_uint_eq(l->bytes, DISK);
	disk_maps(l, 5, EXTENT_DATA, 2 * CLUSTER - 5, DATA + CLUSTER + 5);
	disk_maps(l, 2 * CLUSTER, EXTENT_ZERO, 2 * CLUSTER, 0);
	disk_maps(l, 4 * CLUSTER, EXTENT_HOLE, CLUSTER, 0);
	disk_maps(l, 5 * CLUSTER, EXTENT_DATA, CLUSTER, DATA);
	disk_maps(l, 6 * CLUSTER, EXTENT_HOLE, (ENTRIES - 6) * CLUSTER, 0);
	/* no L2 table */
	disk_maps(l, ENTRIES * CLUSTER, EXTENT_HOLE, ENTRIES * CLUSTER, 0);
	layer_unref(l);
}
END_TEST

START_TEST(wrong_entries_are_damage)
{
	struct layer *l;

	disk_le(L2, 8, DATA + 8);
	disk_le(L2 + 8, 8, FILE_BYTES);
	disk_le(L2 + 16, 8, 2);
	disk_le(L1 + 8, 8, FILE_BYTES);
	l = disk_must_open("qed");
	disk_is_damaged(l, 0, "not aligned");
	disk_is_damaged(l, CLUSTER, "behind the file's end");
	disk_is_damaged(l, 2 * CLUSTER, "not aligned");
	disk_is_damaged(l, ENTRIES * CLUSTER, "L2 table at");
	disk_checks(l, 4, 5);
	layer_unref(l);
	disk_le(L1 + 8, 8, L2 + 8);
	l = disk_must_open("qed");
	disk_is_damaged(l, ENTRIES * CLUSTER, "not aligned");
	layer_unref(l);
	disk_le(12, 4, 2); /* the header, and L1 behind it */
	disk_le(40, 8, L2);
	disk_le(L2, 8, CLUSTER);
	l = disk_must_open("qed");
	disk_is_damaged(l, 0, "in the header");
	layer_unref(l);
}
END_TEST

START_TEST(check_counts_what_is_used_twice_and_what_is_not)
{
	struct layer *l;

	disk_le(L2, 8, DATA);
	disk_le(L2 + 8, 8, DATA + CLUSTER);
	l = disk_must_open("qed");
	disk_checks(l, 0, 3);
	layer_unref(l);
	disk_le(L2 + 16, 8, DATA);
	l = disk_must_open("qed");
	disk_checks(l, 1, 3);
	layer_unref(l);
	disk_le(16, 8, 2);
	l = disk_must_open("qed");
	ck_assert_str_eq(disk_info(l, "needs-check"), "yes");
	layer_unref(l);
}
END_TEST

START_TEST(what_lies_over_the_l1_table_is_damage)
{
	struct layer *l;

	disk_le(L2, 8, L1);
	disk_le(L1 + 8, 8, L1);
	l = disk_must_open("qed");
	disk_is_damaged(l, 0, "lies over the L1 table");
	disk_is_damaged(l, ENTRIES * CLUSTER, "lies over the L1 table");
	layer_unref(l);
}
END_TEST

START_TEST(a_cluster_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;

	disk_le(L2, 8, FILE_BYTES - CLUSTER);
	disk_bytes -= 100;
	l = disk_must_open("qed");
	disk_maps(l, 0, EXTENT_DATA, CLUSTER - 100, FILE_BYTES - CLUSTER);
	disk_is_damaged(l, CLUSTER - 100, "behind the file's end");
	disk_checks(l, 1, 4);
	layer_unref(l);
}
END_TEST

START_TEST(what_lies_behind_the_disks_end_is_found)
{
	struct layer *l;

	disk_le(48, 8, CLUSTER);
	disk_le(L2, 8, DATA);
	disk_le(L2 + 8, 8, DATA + CLUSTER);
	l = disk_must_open("qed");
	disk_checks(l, 1, 3);
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	LOOP(tc, open_refuses_hostile_backing_name, names);
	tcase_add_test(tc, a_backing_file_is_raw_when_it_must_not_be_probed);
	tcase_add_test(tc, entries_are_data_zeroes_and_holes);
	tcase_add_test(tc, wrong_entries_are_damage);
	tcase_add_test(tc, what_lies_over_the_l1_table_is_damage);
	tcase_add_test(tc, a_cluster_that_the_end_cuts_is_damage_behind_it);
	tcase_add_test(tc, what_lies_behind_the_disks_end_is_found);
	tcase_add_test(tc, check_counts_what_is_used_twice_and_what_is_not);
}

int main(void)
{
	return unit_main("qed", add);
}
