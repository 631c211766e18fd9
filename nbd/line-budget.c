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

/* FNV-1a: two lines that meet cost one of them. */
static uint64_t line_hash(const char *line)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *line; line++)
		h = (h ^ (uint8_t)*line) * 0x100000001b3ULL;
	return h;
}

bool line_budget_take_new(struct line_budget *b, const char *line,
			  uint64_t now_nsec, uint64_t *ret_left_out)
{
	uint64_t hash = line_hash(line);
	unsigned int i;

	for (i = 0; i < LINE_BUDGET_SAME; i++) {
		if (b->same[i].line != hash ||
		    b->same[i].until_nsec <= now_nsec)
			continue;
		b->left_out++;
		return false;
	}
	if (!line_budget_take(b, now_nsec, ret_left_out))
		return false;
	b->same[b->next_same].line = hash;
	b->same[b->next_same].until_nsec =
		now_nsec + LINE_BUDGET_SAME_SEC * 1000000000ULL;
	b->next_same = (b->next_same + 1) % LINE_BUDGET_SAME;
	return true;
}
