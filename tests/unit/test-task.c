/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
#include "glance/task.h"
#include "tests/lib/unit.h"

#define PER_PROJECT 2

static struct index *ix;
static struct error err;

static void begin(void)
{
	must(openssl_load(&err), err);
	/* Each test is a process of its own, in the same folder. */
	must(index_open(unit_path("index-%d", (int)getpid()), &ix, &err), err);
}

static int insert(struct index_tx *tx, void *opaque, struct error *e)
{
	return task_insert(tx, opaque, e);
}

/* "a": a task of project a. */
static void ask(const char *projects)
{
	char owner[2] = { 0 };

	for (; *projects; projects++) {
		struct task t = { 0 };

		*owner = *projects;
		must(record_set(&t.type, TASK_IMPORT, &err), err);
		must(record_set(&t.owner, *owner == '-' ? NULL : owner, &err),
		     err);
		must(record_set(&t.input, "{}", &err), err);
		must(index_write(ix, insert, &t, &err), err);
		task_done(&t);
	}
}

static int take(struct index_tx *tx, void *opaque, struct error *e)
{
	return task_take(tx, PER_PROJECT, opaque, e);
}

static char id_of[128][37]; /* the last that was taken of a project */

/* The projects whose tasks are taken, one after the other. */
static void is_taken(const char *projects)
{
	for (; *projects; projects++) {
		struct task t = { 0 };
		int r = index_write(ix, take, &t, &err);

		ck_assert_msg(r == (*projects != '.'), "%s: %s", projects,
			      err.msg);
		if (r)
			ck_assert_msg(*projects == (t.owner ? *t.owner : '-'),
				      "%s: it is of %s", projects, t.owner);
		if (r)
			snprintf(id_of[(int)*projects], 37, "%s", t.id);
		task_done(&t);
	}
}

static int finish(struct index_tx *tx, void *opaque, struct error *e)
{
	return task_end(tx, opaque, TASK_SUCCESS, NULL, "", e);
}

static void is_over(const char *projects)
{
	for (; *projects; projects++)
		must(index_write(ix, finish, id_of[(int)*projects], &err), err);
}

START_TEST(a_project_has_no_more_than_its_share)
{
	begin();
	ask("aaaa-");
	is_taken("a-a..");
	is_over("a");
	is_taken("a.");
	ask("b");
	is_taken("b.");
	index_close(ix);
}
END_TEST

START_TEST(projects_take_turns)
{
	begin();
	ask("aaaaabbbbbc");
	is_taken("abcab.");
	index_close(ix);
}
END_TEST

/* One worker is free, and there is always a task of an eager project. */
START_TEST(who_was_served_longest_ago_is_next)
{
	begin();
	ask("aaaaabbc");
	is_taken("a");
	is_over("a");
	is_taken("b");
	is_over("b");
	is_taken("c");
	is_over("c");
	is_taken("a");
	is_over("a");
	is_taken("b");
	is_over("b");
	is_taken("a");
	index_close(ix);
}
END_TEST

START_TEST(a_project_s_oldest_task_is_first)
{
	char first[37];

	begin();
	ask("a");
	is_taken("a");
	is_over("a");
	snprintf(first, sizeof(first), "%s", id_of['a']);
	ask("a");
	is_taken("a");
	ck_assert_str_ne(first, id_of['a']);
	index_close(ix);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_project_has_no_more_than_its_share);
	tcase_add_test(tc, projects_take_turns);
	tcase_add_test(tc, who_was_served_longest_ago_is_next);
	tcase_add_test(tc, a_project_s_oldest_task_is_first);
}

int main(void)
{
	return unit_main("task", add);
}
