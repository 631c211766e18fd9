/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>

#include "nbd/line-budget.h"
#include "tests/lib/unit.h"

#define SECOND 1000000000ULL

START_TEST(a_flood_leaves_a_burst_and_then_a_trickle)
{
	struct line_budget b = { .burst = 10, .per_second = 2 };
	uint64_t now = 12345 * SECOND, left_out = 0, told = 0;
	unsigned int written = 0, i;

	/* A thousand lines a second for a minute. */
	for (i = 0; i < 60000; i++, now += SECOND / 1000) {
		if (!line_budget_take(&b, now, &left_out))
			continue;
		written++;
		told += left_out;
	}
	ck_assert_uint_ge(written, 10 + 118);
	ck_assert_uint_le(written, 10 + 121);
	/* What was left out is told with the next. */
	ck_assert_uint_eq(written + told + b.left_out, 60000);
	ck_assert_uint_gt(told, 59000);
}
END_TEST

START_TEST(who_was_silent_has_a_burst_again)
{
	struct line_budget b = { .burst = 3, .per_second = 1 };
	uint64_t now = 5, left_out;
	unsigned int round, i;

	for (round = 0; round < 3; round++, now += 60 * SECOND) {
		for (i = 0; i < 3; i++)
			ck_assert(line_budget_take(&b, now, NULL));
		ck_assert(!line_budget_take(&b, now, NULL));
		ck_assert(!line_budget_take(&b, now + SECOND / 2, NULL));
		ck_assert(line_budget_take(&b, now + SECOND, &left_out));
		ck_assert_uint_eq(left_out, 2);
		ck_assert_uint_eq(b.left_out, 0);
	}
}
END_TEST

START_TEST(a_line_that_was_written_is_not_written_again_for_a_while)
{
	struct line_budget b = { .burst = 100, .per_second = 10 };
	uint64_t now = 7 * SECOND, left_out, ever = LINE_BUDGET_SAME_SEC;
	char line[32];
	unsigned int i;

	ck_assert(line_budget_take_new(&b, "one", now, &left_out));
	for (i = 1; i < 500; i++)
		ck_assert(!line_budget_take_new(&b, "one", now + i * SECOND,
						NULL));
	ck_assert(line_budget_take_new(&b, "two", now, &left_out));
	ck_assert_uint_eq(left_out, 499);
	ck_assert(!line_budget_take_new(&b, "one", now, NULL));
	/* As if it were a new one, later ... */
	ck_assert(line_budget_take_new(&b, "one", now + ever * SECOND, NULL));
	/* ... or after many others. */
	for (i = 0; i < LINE_BUDGET_SAME; i++) {
		snprintf(line, sizeof(line), "other %u", i);
		ck_assert(line_budget_take_new(&b, line, now + ever * SECOND,
					       NULL));
	}
	ck_assert(line_budget_take_new(&b, "one", now + ever * SECOND, NULL));
	/* What the budget had no room for was not written. */
	b = (struct line_budget){ .burst = 1, .per_second = 1 };
	ck_assert(line_budget_take_new(&b, "one", now, NULL));
	ck_assert(!line_budget_take_new(&b, "two", now, NULL));
	ck_assert(line_budget_take_new(&b, "two", now + SECOND, NULL));
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(
		tc, a_line_that_was_written_is_not_written_again_for_a_while);
	tcase_add_test(tc, a_flood_leaves_a_burst_and_then_a_trickle);
	tcase_add_test(tc, who_was_silent_has_a_burst_again);
}

int main(void)
{
	return unit_main("line-budget", add);
}
