/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "formats/arena.h"
#include "iouring/util.h"
#include "tests/lib/unit.h"

#define PAGE ARENA_PAGE_BYTES

static const size_t sizes[] = {
	0, 1, PAGE - 1, PAGE, 3 * PAGE, 64 * PAGE, 77 * PAGE + 5, 4 << 20,
};

START_TEST(all_of_it_can_be_had_and_given_back)
{
	size_t pages = sizes[_i] / PAGE, i, n;
	uint8_t **p = calloc(pages + 1, sizeof(*p));
	struct arena *a = NULL;

	ck_assert_int_eq(arena_new(sizes[_i], &a), 0);
	for (n = 0; n < 3; n++) {
		for (i = 0; i < pages; i++) {
			p[i] = arena_take(a, 1 + i % PAGE);
			ck_assert_ptr_nonnull(p[i]);
			ck_assert_uint_eq((uintptr_t)p[i] % PAGE, 0);
			memset(p[i], (int)i, 1 + i % PAGE);
		}
		ck_assert_uint_eq(arena_used(a), pages * PAGE);
		ck_assert_ptr_null(arena_take(a, 1));
		for (i = 0; i < pages; i++) {
			size_t k = (i * 7 + n) % pages;

			/* Every page once, when 7 does not divide them. */
			if (pages % 7 == 0)
				k = i;
			ck_assert_uint_eq(p[k][k % PAGE], (uint8_t)k);
			arena_give(a, p[k], 1 + k % PAGE);
		}
		ck_assert_uint_eq(arena_used(a), 0);
		/* It is one again. */
		if (!pages)
			continue;
		p[0] = arena_take(a, arena_largest(a));
		ck_assert_ptr_nonnull(p[0]);
		arena_give(a, p[0], arena_largest(a));
	}
	ck_assert_ptr_null(arena_take(a, arena_largest(a) + 1));
	ck_assert_uint_le(arena_largest(a), sizes[_i]);
	arena_free(a);
	free(p);
}
END_TEST

#define PIECES 400U

/* What is handed out is marked; marks do not overlap, nor change. */
START_TEST(pieces_of_all_sizes_never_overlap)
{
	static struct {
		uint8_t *p;
		size_t bytes;
		uint8_t mark;
	} pieces[PIECES];
	const size_t bytes = 8 << 20;
	unsigned int i, k, given = 0, refused = 0;
	struct arena *a = NULL;
	size_t used = 0, j;
	uint32_t v[2];

	ck_assert_int_eq(arena_new(bytes + 3 * PAGE, &a), 0);
	for (i = 0; i < 20000; i++) {
		unit_fill(v, sizeof(v), i);
		k = v[0] % PIECES;
		if (pieces[k].p) {
			for (j = 0; j < pieces[k].bytes; j += PAGE / 4)
				ck_assert_uint_eq(pieces[k].p[j],
						  pieces[k].mark);
			arena_give(a, pieces[k].p, pieces[k].bytes);
			used -= round_up(pieces[k].bytes, PAGE);
			pieces[k].p = NULL;
			given++;
			continue;
		}
		pieces[k].bytes = 1 + v[1] % (v[0] & 64 ? 200000 : 20000);
		pieces[k].mark = (uint8_t)(v[1] >> 20);
		pieces[k].p = arena_take(a, pieces[k].bytes);
		if (!pieces[k].p) {
			refused++;
			continue;
		}
		memset(pieces[k].p, pieces[k].mark, pieces[k].bytes);
		used += round_up(pieces[k].bytes, PAGE);
		ck_assert_uint_eq(arena_used(a), used);
	}
	ck_assert_uint_gt(given, 1000);
	ck_assert_uint_gt(refused, 100);
	for (k = 0; k < PIECES; k++)
		if (pieces[k].p)
			arena_give(a, pieces[k].p, pieces[k].bytes);
	ck_assert_ptr_nonnull(arena_take(a, bytes));
	arena_free(a);
}
END_TEST

START_TEST(what_was_given_back_last_goes_out_first)
{
	struct arena *a = NULL;
	void *p, *first;
	unsigned int i;

	ck_assert_int_eq(arena_new(64 << 20, &a), 0);
	first = arena_take(a, 65536);
	arena_give(a, first, 65536);
	for (i = 0; i < 100; i++) {
		p = arena_take(a, 65536);
		ck_assert_ptr_eq(p, first);
		arena_give(a, p, 65536);
	}
	arena_free(a);
	arena_free(NULL);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, all_of_it_can_be_had_and_given_back, sizes);
	tcase_add_test(tc, pieces_of_all_sizes_never_overlap);
	tcase_add_test(tc, what_was_given_back_last_goes_out_first);
}

int main(void)
{
	return unit_main("arena", add);
}
