/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/line-budget.h"

#include "iouring/util.h"

bool line_budget_take(struct line_budget *b, uint64_t now_nsec,
		      uint64_t *ret_left_out)
{
	uint64_t line = 1000000000ULL / b->per_second;
	uint64_t passed = now_nsec - b->then_nsec;

	b->spent_nsec -= min_u64(b->spent_nsec, passed);
	b->then_nsec = now_nsec;
	if (b->spent_nsec + line > line * b->burst) {
		b->left_out++;
		return false;
	}
	b->spent_nsec += line;
	if (ret_left_out) {
		*ret_left_out = b->left_out;
		b->left_out = 0;
	}
	return true;
}
