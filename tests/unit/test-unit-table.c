/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/unit-table.c: a table of 4-byte entries, units of 16 bytes. */
#include <errno.h>
#include <string.h>

#include "formats/drivers/unit-table.h"
#include "tests/lib/disk.h"

#define UNIT	16U
#define TABLE	100U /* where it begins */
#define ENTRIES 2000U
#define BAD	0xffffU
#define STREAM	0x10000U

static struct layer layer;
static struct unit_table table;

static int decode(const void *state, const uint8_t *raw, struct unit_place *ret,
		  struct error *err)
{
	uint32_t v;

	memcpy(&v, raw, 4);
	v = le32toh(v);
	if (v == BAD)
		return error_set(err, -EBADMSG, 0, "bad entry");
	ret->host_off = v;
	ret->kind = v ? EXTENT_DATA : EXTENT_HOLE;
	if (v == STREAM) {
		ret->kind = EXTENT_COMPRESSED;
		ret->host_off = 200;
		ret->comp_bytes = 7;
	}
	return 0;
}

static void setup(void)
{
	disk_new(TABLE + ENTRIES * 4);
	layer = (struct layer){ .path = (char *)(uintptr_t) "NAME" };
	must(memory_source_new(disk_file, disk_bytes, &layer.src, &disk_err),
	     disk_err);
	table = (struct unit_table){
		.src = layer.src,
		.off = TABLE,
		.entry_bytes = 4,
		.unit_bytes = UNIT,
		.stride = UNIT,
		.data = layer.src,
		.decode = decode,
	};
}

static void teardown(void)
{
	source_unref(layer.src);
	disk_done();
}

static void entry(unsigned int idx, uint32_t value)
{
	disk_le(TABLE + 4 * idx, 4, value);
}

/* Of the file as it is now: what was read of it before is remembered. */
static int map(uint64_t off, uint64_t len, struct extent *e)
{
	source_unref(layer.src);
	must(memory_source_new(disk_file, disk_bytes, &layer.src, &disk_err),
	     disk_err);
	table.src = table.data = layer.src;
	disk_err = (struct error){ 0 };
	*e = (struct extent){ 0 };
	return unit_table_map(&layer, &table, off, len, e, &disk_err);
}

START_TEST(a_run_crosses_the_pieces_in_which_the_table_is_read)
{
	struct extent e;

	must(map(3, ENTRIES * UNIT - 3, &e), disk_err);
	ck_assert_uint_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, ENTRIES * UNIT - 3);
	entry(1999, 100);
	must(map(0, ENTRIES * UNIT, &e), disk_err);
	ck_assert_uint_eq(e.len, 1999 * UNIT);
	/* as it stands, not as long as the whole */
	must(map(5, 6, &e), disk_err);
	ck_assert_uint_eq(e.len, 6);
}
END_TEST

START_TEST(data_side_by_side_are_one_extent)
{
	struct extent e;
	unsigned int i;

	for (i = 0; i < 100; i++)
		entry(i, 1000 + i * UNIT);
	entry(100, 1000 + 101 * UNIT);
	must(map(UNIT + 1, 5000, &e), disk_err);
	ck_assert_uint_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, 1000 + UNIT + 1);
	ck_assert_uint_eq(e.len, 99 * UNIT - 1);
	table.stride = UNIT + 1; /* each has something before it */
	must(map(0, 5000, &e), disk_err);
	ck_assert_uint_eq(e.len, UNIT);
}
END_TEST

START_TEST(a_run_ends_before_damage)
{
	struct extent e;

	entry(2, BAD);
	must(map(0, 5000, &e), disk_err);
	ck_assert_uint_eq(e.len, 2 * UNIT);
	ck_assert_int_eq(map(2 * UNIT, 1, &e), -EBADMSG);
	unit_says(&disk_err, "bad entry");
	/* units behind the file's end, and one that it cuts */
	entry(0, (uint32_t)disk_bytes - UNIT - 5);
	entry(1, (uint32_t)disk_bytes - 5);
	entry(2, (uint32_t)disk_bytes + UNIT - 5);
	must(map(0, 5000, &e), disk_err);
	ck_assert_uint_eq(e.len, UNIT + 5);
	ck_assert_int_eq(map(UNIT + 5, 1, &e), -EBADMSG);
	ck_assert_int_eq(map(2 * UNIT, 1, &e), -EBADMSG);
}
END_TEST

START_TEST(a_table_that_is_cut_is_good_before_the_cut)
{
	struct extent e;

	table.off = disk_bytes - 8;
	entry(ENTRIES - 2, 0);
	entry(ENTRIES - 1, 0);
	must(map(0, 5000, &e), disk_err);
	ck_assert_uint_eq(e.len, 2 * UNIT);
	ck_assert_int_eq(map(2 * UNIT, 5000, &e), -EBADMSG);
}
END_TEST

START_TEST(streams_are_units_by_themselves)
{
	struct extent e;

	entry(3, STREAM);
	entry(4, STREAM);
	must(map(3 * UNIT + 2, 5000, &e), disk_err);
	ck_assert_uint_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_uint_eq(e.len, UNIT - 2);
	ck_assert_uint_eq(e.unit_off, 2);
	ck_assert_uint_eq(e.unit_bytes, UNIT);
	ck_assert_uint_eq(e.host_off, 200);
	ck_assert_uint_eq(e.comp_bytes, 7);
}
END_TEST

static int count(void *opaque, uint64_t idx, const struct unit_place *p, int r,
		 const struct error *err)
{
	unsigned int *n = opaque;

	ck_assert_uint_eq(idx, n[0]);
	n[0]++;
	if (r < 0) {
		ck_assert_str_eq(err->msg, "bad entry");
		n[1]++;
	}
	n[2] += p->kind == EXTENT_DATA;
	return idx == ENTRIES - 2 ? 77 : 0;
}

START_TEST(a_walk_goes_on_behind_damage)
{
	unsigned int n[3] = { 0 };

	entry(7, BAD);
	entry(9, 50);
	entry(1500, BAD);
	ck_assert_int_eq(unit_table_walk(&layer, &table, ENTRIES, count, n),
			 77);
	ck_assert_uint_eq(n[0], ENTRIES - 1);
	ck_assert_uint_eq(n[1], 2);
	ck_assert_uint_eq(n[2], 1);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_run_crosses_the_pieces_in_which_the_table_is_read);
	tcase_add_test(tc, data_side_by_side_are_one_extent);
	tcase_add_test(tc, a_run_ends_before_damage);
	tcase_add_test(tc, a_table_that_is_cut_is_good_before_the_cut);
	tcase_add_test(tc, streams_are_units_by_themselves);
	tcase_add_test(tc, a_walk_goes_on_behind_damage);
}

int main(void)
{
	return unit_main("unit-table", add);
}
