/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <stdatomic.h>

#include "iouring/nowait.h"
#include "nbd/workers.h"
#include "tests/lib/unit.h"

#define MANY 32U

static pthread_barrier_t meeting;
static atomic_uint n_run, n_rests;

static void rests(void)
{
	atomic_fetch_add(&n_rests, 1);
}

static void begin(void)
{
	struct error err = { 0 };

	atomic_store(&n_run, 0);
	atomic_store(&n_rests, 0);
	pthread_barrier_init(&meeting, NULL, MANY);
	must(workers_start(rests, &err), err);
}

/* All that was added has been done then. */
static void end(void)
{
	workers_stop();
	pthread_barrier_destroy(&meeting);
	ck_assert_uint_eq(atomic_load(&n_run), MANY);
}

static void run_all(void (*run)(struct work *w))
{
	static struct work works[MANY];
	unsigned int i;

	for (i = 0; i < MANY; i++) {
		works[i] = (struct work){ .run = run };
		workers_add(&works[i]);
	}
}

static void be_short(struct work *w)
{
	atomic_fetch_add(&n_run, 1);
}

START_TEST(what_is_added_is_done_before_the_stop)
{
	begin();
	run_all(be_short);
	end();
	ck_assert_uint_gt(atomic_load(&n_rests), 0);
	ck_assert_uint_eq(workers_line(), 0);
}
END_TEST

/* All of them are needed at once: none would end if one had to wait for another. */
static void meet_telling(struct work *w)
{
	wait_begins();
	wait_begins();
	pthread_barrier_wait(&meeting);
	wait_ends();
	wait_ends();
	atomic_fetch_add(&n_run, 1);
}

START_TEST(who_tells_that_he_waits_keeps_nobody_from_work)
{
	begin();
	run_all(meet_telling);
	end();
}
END_TEST

static void meet(struct work *w)
{
	pthread_barrier_wait(&meeting);
	atomic_fetch_add(&n_run, 1);
}

START_TEST(nor_does_who_hangs_without_telling)
{
	begin();
	run_all(meet);
	end();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_is_added_is_done_before_the_stop);
	tcase_add_test(tc, who_tells_that_he_waits_keeps_nobody_from_work);
	tcase_add_test(tc, nor_does_who_hangs_without_telling);
}

int main(void)
{
	return unit_main("workers", add);
}
