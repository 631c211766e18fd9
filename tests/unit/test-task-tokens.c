/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/task-tokens.h"
#include "iouring/util.h"
#include "tests/lib/unit.h"

static struct task_tokens *t;

static void begin(void)
{
	struct error err = { 0 };

	must(task_tokens_new(&t, &err), err);
}

static void end(void)
{
	task_tokens_free(t);
}

static int put(unsigned int n, const char *project)
{
	struct error err = { 0 };
	char task[37], token[32];
	int r;

	snprintf(task, sizeof(task), "%036u", n);
	snprintf(token, sizeof(token), "token %u", n);
	r = task_tokens_put(t, task, project, token, &err);
	ck_assert(!strstr(err.msg, token));
	return r;
}

static bool has(unsigned int n)
{
	char task[37], want[32];
	CLEANUP(task_token_freep) char *token = NULL;

	snprintf(task, sizeof(task), "%036u", n);
	snprintf(want, sizeof(want), "token %u", n);
	token = task_tokens_take(t, task);
	ck_assert(!token || !strcmp(token, want));
	return token;
}

START_TEST(a_token_is_taken_once)
{
	ck_assert_int_eq(put(1, "p"), 0);
	ck_assert_int_eq(put(2, NULL), 0);
	ck_assert_int_eq(put(3, "p"), 0);
	ck_assert(!has(4));
	ck_assert(has(2));
	ck_assert(!has(2));
	ck_assert(has(1));
	/* That of 3 is freed with the rest. */
}
END_TEST

START_TEST(one_project_has_no_more_than_half)
{
	unsigned int n;

	for (n = 0; n < TASK_TOKENS_MAX / 2; n++)
		ck_assert_int_eq(put(n, "p"), 0);
	ck_assert_int_eq(put(n, "p"), -EAGAIN);
	for (; n < TASK_TOKENS_MAX; n++)
		ck_assert_int_eq(put(n, n % 2 ? "q" : "r"), 0);
	ck_assert_int_eq(put(n, "s"), -EAGAIN);
	ck_assert(!has(n));
	ck_assert(has(0));
	ck_assert_int_eq(put(n, "s"), 0);
	ck_assert(has(n));
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_test(tc, a_token_is_taken_once);
	tcase_add_test(tc, one_project_has_no_more_than_half);
}

int main(void)
{
	return unit_main("task-tokens", add);
}
