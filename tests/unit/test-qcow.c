/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/qcow.c */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

/* Clusters of 512 bytes; L2 tables of 64 entries, a cluster each. */
enum {
	CLUSTER = 512,
	L1 = CLUSTER,
	L2 = 2 * CLUSTER,
	DATA = 3 * CLUSTER,
	FILE_BYTES = 16 * CLUSTER,
	ENTRIES = 64,
	DISK = 3 * ENTRIES * CLUSTER,
};

#define COMPRESSED(bytes, off) (1ULL << 63 | (uint64_t)(bytes) << 54 | (off))

static void setup(void)
{
	disk_new(FILE_BYTES);
	memcpy(disk_file, "QFI\xfb", 4);
	disk_be(4, 4, 1);
	disk_be(24, 8, DISK);
	disk_be(32, 1, 9);
	disk_be(33, 1, 6);
	disk_be(40, 8, L1);
	disk_be(L1, 8, L2);
}

static const struct disk_row hostile[] = {
	{ 0, 4, 0x514649fa, -EBADMSG, 0, "not qcow" },
	{ 4, 4, 2, -ENOTSUP, 4, "version 2" },
	{ 32, 1, 8, -ENOTSUP, 32, "cluster_bits 8" },
	{ 32, 1, 17, -ENOTSUP, 32, "cluster_bits 17" },
	{ 33, 1, 5, -ENOTSUP, 33, "l2_bits 5" },
	{ 33, 1, 14, -ENOTSUP, 33, "l2_bits 14" },
	{ 36, 4, 2, -ENOTSUP, 36, "method 2" },
	{ 24, 8, 1ULL << 63, -EFBIG, 24, "limit" },
	{ 24, 8, ((256ULL << 20) / 8 + 1) << 15, -EFBIG, 24, "limit" },
	{ 24, 8, 1ULL << 40, -EBADMSG, 40, "ends past" },
	{ 40, 8, FILE_BYTES - 16, -EBADMSG, 40, "ends past" },
	{ 40, 8, UINT64_MAX - 7, -EBADMSG, 40, "ends past" },
	{ 40, 8, 40, -EBADMSG, 40, "behind the header" },
	{ 40, 8, L1 + 4, -EBADMSG, 40, "multiple of 8" },
	{ 8, 8, 48, -EBADMSG, 8, "one of them is 0" },
	{ 16, 4, 5, -EBADMSG, 8, "one of them is 0" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("qcow", &hostile[_i], false);
}
END_TEST

static const struct {
	uint64_t off;
	uint32_t bytes;
	int code;
	uint64_t blamed;
	const char *says;
} names[] = {
	{ 48, 1024, -EFBIG, 16, "limit of 1023" },
	{ FILE_BYTES - 2, 3, -EBADMSG, 8, "ends past" },
	{ UINT64_MAX, 3, -EBADMSG, 8, "ends past" },
	{ 48, 3, -EBADMSG, 48, "NUL" },
};

START_TEST(open_refuses_hostile_backing_name)
{
	struct disk_row row = { 8,
				8,
				names[_i].off,
				names[_i].code,
				names[_i].blamed,
				names[_i].says };

	disk_be(16, 4, names[_i].bytes);
	disk_refuses("qcow", &row, false);
}
END_TEST

START_TEST(entries_are_data_streams_and_holes)
{
	struct extent e;
	struct layer *l;

	disk_be(L2, 8, DATA);
	disk_be(L2 + 8, 8, DATA + CLUSTER);
	disk_be(L2 + 24, 8, COMPRESSED(77, DATA + 1000));
	disk_be(L2 + 32, 8, COMPRESSED(77, DATA + 1000));
	l = disk_must_open("qcow");
	disk_maps(l, 9, EXTENT_DATA, 2 * CLUSTER - 9, DATA + 9);
	disk_maps(l, 2 * CLUSTER, EXTENT_HOLE, CLUSTER, 0);
	e = disk_map(l, 3 * CLUSTER + 5, 5000);
	ck_assert_uint_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_uint_eq(e.len, CLUSTER - 5);
	ck_assert_uint_eq(e.unit_off, 5);
	ck_assert_uint_eq(e.unit_bytes, CLUSTER);
	ck_assert_uint_eq(e.comp_bytes, 77);
	ck_assert_uint_eq(e.host_off, DATA + 1000);
	ck_assert_uint_eq(e.codec, CODEC_DEFLATE);
	disk_maps(l, 5 * CLUSTER, EXTENT_HOLE, (ENTRIES - 5) * CLUSTER, 0);
	/* two L1 entries are empty */
	disk_maps(l, ENTRIES * CLUSTER, EXTENT_HOLE, 2 * ENTRIES * CLUSTER, 0);
	layer_unref(l);
}
END_TEST

START_TEST(wrong_entries_are_damage)
{
	struct layer *l;

	disk_be(L2, 8, FILE_BYTES);
	disk_be(L2 + 8, 8, COMPRESSED(0, DATA));
	disk_be(L2 + 16, 8, COMPRESSED(100, FILE_BYTES - 99));
	disk_be(L1 + 8, 8, FILE_BYTES + 1);
	l = disk_must_open("qcow");
	disk_is_damaged(l, 0, "behind the file's end");
	disk_is_damaged(l, CLUSTER, "0 compressed bytes");
	disk_is_damaged(l, 2 * CLUSTER, "not inside");
	disk_is_damaged(l, ENTRIES * CLUSTER, "L2 table at");
	disk_checks(l, 4, 0);
	layer_unref(l);
}
END_TEST

START_TEST(encrypted_clusters_have_the_disks_sector_numbers)
{
	static const struct open_options options = {
		.key = (const uint8_t *)"secret",
		.key_bytes = 6,
	};
	struct extent e;
	struct layer *l;
	int r;

	disk_be(36, 4, 1);
	disk_be(L2 + 8, 8, DATA + 2 * CLUSTER);
	disk_be(L2 + 16, 8, DATA + 8);
	l = disk_must_open("qcow");
	ck_assert(l->encrypted && l->locked);
	ck_assert_int_eq(l->ops->map(l, 0, 1, &e, &disk_err), -EACCES);
	layer_unref(l);
	disk_err = (struct error){ 0 };
	l = disk_open("qcow", &options, &r);
	must(r, disk_err);
	ck_assert(!l->locked);
	e = disk_map(l, CLUSTER, CLUSTER);
	ck_assert_ptr_nonnull(e.cipher);
	ck_assert_uint_eq(e.iv_sector, 1);
	disk_is_damaged(l, 2 * CLUSTER, "not aligned to clusters");
	layer_unref(l);
}
END_TEST

START_TEST(what_lies_over_the_l1_table_is_damage)
{
	struct layer *l;

	disk_be(L2, 8, L1);
	disk_be(L1 + 8, 8, L1);
	disk_be(L1 + 16, 8, L2 + 8);
	l = disk_must_open("qcow");
	disk_is_damaged(l, 0, "lies over the L1 table");
	disk_is_damaged(l, ENTRIES * CLUSTER, "lies over the L1 table");
	disk_is_damaged(l, 2 * ENTRIES * CLUSTER, "not aligned to clusters");
	layer_unref(l);
}
END_TEST

START_TEST(check_finds_what_is_used_twice)
{
	struct layer *l;

	disk_be(L2, 8, DATA);
	disk_be(L2 + 8, 8, COMPRESSED(100, DATA + CLUSTER));
	l = disk_must_open("qcow");
	disk_checks(l, 0, 0);
	layer_unref(l);
	disk_be(L2 + 16, 8, COMPRESSED(100, DATA + CLUSTER - 1));
	l = disk_must_open("qcow");
	disk_checks(l, 1, 0); /* 100 bytes: a cluster's worth */
	layer_unref(l);
	disk_be(L2 + 16, 8, 0);
	disk_be(L1 + 8, 8, L2);
	l = disk_must_open("qcow");
	disk_checks(l, 3, 0); /* the table, and all that it has */
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	LOOP(tc, open_refuses_hostile_backing_name, names);
	tcase_add_test(tc, entries_are_data_streams_and_holes);
	tcase_add_test(tc, wrong_entries_are_damage);
	tcase_add_test(tc, encrypted_clusters_have_the_disks_sector_numbers);
	tcase_add_test(tc, what_lies_over_the_l1_table_is_damage);
	tcase_add_test(tc, check_finds_what_is_used_twice);
}

int main(void)
{
	return unit_main("qcow", add);
}
