/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/ref-map.c against an array of the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/drivers/ref-map.h"
#include "tests/lib/unit.h"

#define MIB	((size_t)1 << 20)
#define FAR	((uint64_t)1 << 54)
#define NUMBERS 5000U

static struct ref_map map;
static struct error err;

static void setup(void)
{
	err = (struct error){ 0 };
	ck_assert_int_eq(ref_map_init(&map, FAR, 4 * MIB, &err), 0);
}

static void teardown(void)
{
	ref_map_done(&map);
}

static void set(uint64_t cluster, unsigned int use, uint32_t refs)
{
	struct ref_cell c = { use, refs };

	ck_assert_int_eq(ref_map_set(&map, cluster, c, &err), 0);
}

static void check(uint64_t cluster, unsigned int use, uint32_t refs)
{
	struct ref_cell c = ref_map_get(&map, cluster);

	ck_assert_uint_eq(c.use, use);
	ck_assert_uint_eq(c.refs, refs);
}

START_TEST(what_was_never_set_is_nothing)
{
	check(0, 0, 0);
	check(FAR, 0, 0);
	set(1023, 5, 1);
	check(1022, 0, 0);
	check(1024, 0, 0);
}
END_TEST

START_TEST(numbers_far_apart_are_apart)
{
	static const uint64_t places[] = {
		0, 1023, 1024, 1ULL << 21, (1ULL << 43) - 1, FAR
	};
	unsigned int i;

	for (i = 0; i < 6; i++)
		set(places[i], i + 1, 10 * i);
	for (i = 0; i < 6; i++)
		check(places[i], i + 1, 10 * i);
}
END_TEST

/* 15 is the last count that a narrow cell holds. */
START_TEST(neighbours_outlive_a_count_that_does_not_fit)
{
	set(7, 15, 15);
	set(8, 1, 16);
	check(7, 15, 15);
	check(8, 1, 16);
	set(8, 15, REF_MAP_REFS_MAX);
	set(9, 3, 0);
	check(8, 15, REF_MAP_REFS_MAX);
	check(9, 3, 0);
	check(10, 0, 0);
}
END_TEST

START_TEST(is_what_an_array_is)
{
	static struct ref_cell cells[NUMBERS];
	unsigned int i, at;

	srandom(1);
	for (i = 0; i < 4 * NUMBERS; i++) {
		at = (unsigned int)random() % NUMBERS;
		cells[at].use = (unsigned int)random() % REF_MAP_USES;
		cells[at].refs = (uint32_t)random() % 20;
		set(at, cells[at].use, cells[at].refs);
	}
	for (i = 0; i < NUMBERS; i++)
		check(i, cells[i].use, cells[i].refs);
}
END_TEST

START_TEST(next_skips_what_nobody_uses)
{
	uint64_t stop, at;

	set(5, 1, 1);
	set(1ULL << 40, 1, 1);
	at = ref_map_next(&map, 0, FAR, &stop);
	ck_assert_uint_le(at, 5);
	ck_assert_uint_gt(stop, 5);
	at = ref_map_next(&map, stop, FAR, &stop);
	ck_assert_uint_le(at, 1ULL << 40);
	ck_assert_uint_gt(at, (1ULL << 40) - 1024);
	ck_assert_uint_gt(stop, 1ULL << 40);
	ck_assert_uint_eq(ref_map_next(&map, stop, FAR, &stop), FAR);
	ck_assert_uint_eq(stop, FAR);
}
END_TEST

START_TEST(next_ends_where_it_is_told)
{
	uint64_t stop;

	set(5, 1, 1);
	ck_assert_uint_eq(ref_map_next(&map, 5, 6, &stop), 5);
	ck_assert_uint_eq(stop, 6);
	ck_assert_uint_eq(ref_map_next(&map, 6, 6, &stop), 6);
}
END_TEST

START_TEST(memory_has_a_limit_that_others_share)
{
	uint64_t i;
	int r = 0;

	ck_assert_int_eq(ref_map_take(&map, 3 * MIB, &err), 0);
	for (i = 0; i < 4096 && r >= 0; i++)
		r = ref_map_set(&map, i << 32, (struct ref_cell){ 1, 1 }, &err);
	ck_assert_int_eq(r, -EFBIG);
	ck_assert_ptr_nonnull(strstr(err.msg, "limit of 4 MiB"));
	ck_assert_int_eq(ref_map_take(&map, 2 * MIB, &err), -EFBIG);
	ck_assert_ptr_null(ref_map_calloc(&map, 2, MIB, &err));
	check(0, 1, 1);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_was_never_set_is_nothing);
	tcase_add_test(tc, numbers_far_apart_are_apart);
	tcase_add_test(tc, neighbours_outlive_a_count_that_does_not_fit);
	tcase_add_test(tc, is_what_an_array_is);
	tcase_add_test(tc, next_skips_what_nobody_uses);
	tcase_add_test(tc, next_ends_where_it_is_told);
	tcase_add_test(tc, memory_has_a_limit_that_others_share);
}

int main(void)
{
	return unit_main("ref-map", add);
}
