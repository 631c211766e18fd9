/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nbd/registry.h"
#include "tests/lib/unit.h"

#define THREADS 12U
#define OBJECTS 5U

struct object {
	unsigned int number;
	atomic_uint *open; /* how many of this number */
};

static void close_object(void *opaque);
static void retire_object(void *opaque);
static struct registry registry = REGISTRY(NULL, retire_object, close_object);
static atomic_uint wrong, opened, retired, closed, open_now[OBJECTS];
static struct error err;

static void expect(bool ok)
{
	if (!ok)
		atomic_fetch_add(&wrong, 1);
}

static int open_object(void *opaque, void **ret, struct error *e)
{
	unsigned int *number = opaque;
	struct object *o = calloc(1, sizeof(*o));

	o->number = *number;
	o->open = &open_now[*number];
	/* There is never a second one, not even while the first is closed. */
	expect(!atomic_fetch_add(o->open, 1));
	atomic_fetch_add(&opened, 1);
	usleep(50);
	*ret = o;
	return 0;
}

static void retire_object(void *opaque)
{
	atomic_fetch_add(&retired, 1);
}

static void close_object(void *opaque)
{
	struct object *o = opaque;

	usleep(50);
	expect(atomic_fetch_sub(o->open, 1) == 1);
	atomic_fetch_add(&closed, 1);
	free(o);
}

static int look(void *opaque, void *object, unsigned int holders)
{
	const struct object *o = object;

	expect(atomic_load(o->open) == 1);
	expect(holders >= 1 && holders <= THREADS);
	return 0;
}

static int be_alone(void *opaque, struct error *e)
{
	atomic_uint *inside = opaque;

	expect(!atomic_fetch_add(inside, 1));
	usleep(50);
	expect(atomic_fetch_sub(inside, 1) == 1);
	return 7;
}

static atomic_uint inside[OBJECTS], runs;

static void open_and_close(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < 300; i++) {
		unsigned int n = (i * 7 + number) % OBJECTS;
		struct entry *e, *again;
		char key[8];
		int r;

		snprintf(key, sizeof(key), "%u", n);
		r = registry_get(&registry, key, open_object, &n, &e, NULL);
		expect(!r);
		expect(((struct object *)entry_object(e))->number == n);
		expect(!atomic_load(&inside[n]));
		if (i % 5 == 0) {
			expect(registry_find(&registry, key, &again));
			expect(again == e);
			registry_put(&registry, again);
		}
		if (i % 3 == 0) {
			r = registry_run_alone(&registry, e, 1, be_alone,
					       &inside[n], NULL);
			expect(r == 7 || r == -EBUSY);
			atomic_fetch_add(&runs, r == 7);
		}
		if (i % 11 == 0)
			registry_each(&registry, look, NULL);
		if (i % 13 == 0)
			registry_visit(&registry, look, NULL);
		registry_put(&registry, e);
	}
}

START_TEST(an_object_is_open_once_however_many_want_it)
{
	struct entry *e;

	unit_threads(THREADS, open_and_close);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(opened, closed);
	ck_assert_uint_eq(retired, closed);
	ck_assert_uint_gt(opened, OBJECTS);
	ck_assert_uint_gt(runs, 0);
	ck_assert(!registry_find(&registry, "0", &e));
}
END_TEST

static atomic_uint tries, started;
static atomic_bool go_on;

static int hang_and_fail(void *opaque, void **ret, struct error *e)
{
	atomic_fetch_add(&tries, 1);
	while (!atomic_load(&go_on))
		usleep(1000);
	return error_set(e, -EIO, 9, "the disk is gone");
}

static void *want_hanging(void *unused)
{
	struct error e = { 0 };
	struct entry *entry = NULL;

	atomic_fetch_add(&started, 1);
	expect(registry_get(&registry, "hangs", hang_and_fail, NULL, &entry,
			    &e) == -EIO);
	expect(e.code == -EIO && e.off == 9 &&
	       !strcmp(e.msg, "the disk is gone"));
	expect(!entry);
	return NULL;
}

START_TEST(one_that_hangs_holds_up_who_wants_it_alone)
{
	unsigned int one = 1, n = 0;
	pthread_t threads[4];
	struct entry *e;

	for (n = 0; n < 4; n++)
		pthread_create(&threads[n], NULL, want_hanging, NULL);
	while (atomic_load(&started) < 4 || !atomic_load(&tries))
		usleep(1000);
	usleep(20000);
	/* The others go on, and see what is open. */
	must(registry_get(&registry, "1", open_object, &one, &e, &err), err);
	registry_each(&registry, look, NULL);
	registry_visit(&registry, look, NULL);
	registry_put(&registry, e);
	ck_assert_uint_eq(tries, 1);
	atomic_store(&go_on, true);
	for (n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
	ck_assert_uint_eq(wrong, 0);
	/* A failure is not kept. */
	want_hanging(NULL);
	ck_assert_uint_ge(tries, 2);
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(what_has_no_key_is_nobody_elses)
{
	unsigned int a = 1, b = 2;
	struct entry *one, *two, *found;

	must(registry_get(&registry, NULL, open_object, &a, &one, &err), err);
	must(registry_get(&registry, NULL, open_object, &b, &two, &err), err);
	ck_assert_ptr_ne(one, two);
	ck_assert(!registry_find(&registry, "1", &found));
	ck_assert_uint_eq(registry_holders(&registry, one), 1);
	registry_put(&registry, one);
	registry_close_all(&registry);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(closed, opened);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, an_object_is_open_once_however_many_want_it);
	tcase_add_test(tc, one_that_hangs_holds_up_who_wants_it_alone);
	tcase_add_test(tc, what_has_no_key_is_nobody_elses);
}

int main(void)
{
	return unit_main("registry", add);
}
