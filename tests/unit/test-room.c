/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "formats/room.h"
#include "tests/lib/unit.h"

#define THREADS 12U
#define ROOM	(1U << 20)

static atomic_uint wrong;
static atomic_size_t taken, most;

static void note(size_t bytes)
{
	size_t now = atomic_fetch_add(&taken, bytes) + bytes;
	size_t m = atomic_load(&most);

	while (now > m && !atomic_compare_exchange_weak(&most, &m, now))
		;
}

static void take_and_give(unsigned int number)
{
	struct room r = { 0 };
	uint32_t v;
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		unit_fill(&v, sizeof(v), number * 10000 + i);
		/* Now and then more than there is. */
		if (room_take(i % 100 ? v % (ROOM / 2) + 1 : ROOM + 1 + v % 99,
			      &r))
			atomic_fetch_add(&wrong, 1);
		if (!r.alone)
			note(r.bytes);
		r.data[0] = r.data[r.bytes - 1] = (uint8_t)number;
		if (i % 16 == 0)
			usleep(100);
		if (r.data[0] != (uint8_t)number ||
		    r.data[r.bytes - 1] != (uint8_t)number)
			atomic_fetch_add(&wrong, 1);
		if (!r.alone)
			atomic_fetch_sub(&taken, r.bytes);
		room_give(&r);
		if (r.data)
			atomic_fetch_add(&wrong, 1);
		room_give(&r); /* of nothing */
	}
}

START_TEST(who_finds_none_waits_and_no_more_is_taken)
{
	struct room_stats st;

	room_configure(ROOM);
	unit_threads(THREADS, take_and_give);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_le(most, ROOM);
	room_get_stats(&st);
	ck_assert_uint_eq(st.bytes, 0);
	ck_assert_uint_gt(st.waits, 0);
	room_shutdown();
}
END_TEST

static atomic_uint turn, big_turn, small_turns;

static void *want_all(void *unused)
{
	struct room r;

	if (room_take(ROOM, &r))
		atomic_fetch_add(&wrong, 1);
	atomic_store(&big_turn, atomic_fetch_add(&turn, 1) + 1);
	room_give(&r);
	return NULL;
}

static void *want_little(void *unused)
{
	struct room r;

	if (room_take(4096, &r))
		atomic_fetch_add(&wrong, 1);
	atomic_fetch_add(&turn, 1);
	atomic_fetch_add(&small_turns, 1);
	room_give(&r);
	return NULL;
}

static void wait_for_waiters(uint64_t n)
{
	struct room_stats st;

	do {
		usleep(1000);
		room_get_stats(&st);
	} while (st.waits < n);
}

START_TEST(who_wants_much_is_not_passed_by_who_wants_little)
{
	struct room_stats before;
	pthread_t big, small[4];
	struct room half;
	unsigned int i;

	room_configure(ROOM);
	ck_assert_int_eq(room_take(ROOM / 2, &half), 0);
	room_get_stats(&before);
	pthread_create(&big, NULL, want_all, NULL);
	wait_for_waiters(before.waits + 1);
	/* There would be room for these, but he came first. */
	for (i = 0; i < 4; i++) {
		pthread_create(&small[i], NULL, want_little, NULL);
		wait_for_waiters(before.waits + 2 + i);
	}
	ck_assert_uint_eq(turn, 0);
	room_give(&half);
	pthread_join(big, NULL);
	for (i = 0; i < 4; i++)
		pthread_join(small[i], NULL);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(big_turn, 1);
	ck_assert_uint_eq(small_turns, 4);
	room_shutdown();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, who_finds_none_waits_and_no_more_is_taken);
	tcase_add_test(tc, who_wants_much_is_not_passed_by_who_wants_little);
}

int main(void)
{
	return unit_main("room", add);
}
