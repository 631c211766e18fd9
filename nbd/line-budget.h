/* SPDX-License-Identifier: BSD-3-Clause */
/* How many lines of a kind a log takes, however many there were to write. */
#ifndef NBD_LINE_BUDGET_H
#define NBD_LINE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lines that are known again. */
#define LINE_BUDGET_SAME 16U

/* @burst lines at once, and @per_second for long; both > 0. The rest is zero. */
struct line_budget {
	unsigned int burst, per_second;
	uint64_t spent_nsec; /* a line costs 1e9 / per_second; at then_nsec */
	uint64_t then_nsec;
	uint64_t left_out; /* since the last one that was written */
	struct {
		uint64_t line; /* what it was, for short */
		uint64_t until_nsec; /* it is not written again before this */
	} same[LINE_BUDGET_SAME];
	unsigned int next_same; /* which is the oldest */
};

/*
 * May one more be written, at @now_nsec? Else it is counted. When it may,
 * *ret_left_out (may be NULL: they go on counting) is how many were not since the
 * last one that was. Not locked.
 */
bool line_budget_take(struct line_budget *b, uint64_t now_nsec,
		      uint64_t *ret_left_out);

/*
 * The same for @line, which is not written again for LINE_BUDGET_SAME_SEC, unless
 * so many others were written meanwhile that it is not known again.
 */
#define LINE_BUDGET_SAME_SEC 600U
bool line_budget_take_new(struct line_budget *b, const char *line,
			  uint64_t now_nsec, uint64_t *ret_left_out);

#endif
