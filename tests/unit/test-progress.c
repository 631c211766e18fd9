/* SPDX-License-Identifier: BSD-3-Clause */
#include "iouring/util.h"
#include "nbd/cmd/progress.h"
#include "tests/lib/unit.h"

static const struct {
	uint64_t done, total;
	unsigned int percent;
} percents[] = {
	{ 0, 0, 100 },
	{ 0, 1, 0 },
	{ 1, 2, 50 },
	{ 999, 1000, 99 },
	{ 1000, 1000, 100 },
	{ 7, 3, 100 },
	{ 1ULL << 62, 1ULL << 63, 50 },
	{ UINT64_MAX - 1, UINT64_MAX, 100 },
};

START_TEST(percents_are_whole_and_do_not_overflow)
{
	ck_assert_uint_eq(
		progress_percent(percents[_i].done, percents[_i].total),
		percents[_i].percent);
}
END_TEST

static const struct {
	unsigned int percent;
	const char *bar;
} bars[] = {
	{ 0, "[          ]   0%" },
	{ 19, "[#         ]  19%" },
	{ 50, "[#####     ]  50%" },
	{ 100, "[##########] 100%" },
};

START_TEST(a_bar_is_as_full_as_the_work)
{
	char bar[19];

	progress_bar(bar, 10, bars[_i].percent);
	ck_assert_str_eq(bar, bars[_i].bar);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, percents_are_whole_and_do_not_overflow, percents);
	LOOP(tc, a_bar_is_as_full_as_the_work, bars);
}

int main(void)
{
	return unit_main("progress", add);
}
