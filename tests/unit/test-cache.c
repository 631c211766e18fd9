/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "formats/cache.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/unit.h"

#define THREADS 8U

static struct error err;
static atomic_uint wrong, fills, misses;

static void expect(bool ok)
{
	if (!ok)
		atomic_fetch_add(&wrong, 1);
}

/* Content that tells its key. */
static void *content(uint64_t at, size_t bytes)
{
	void *data = malloc(bytes);

	unit_fill(data, bytes, (unsigned int)at);
	return data;
}

static bool is_content(const struct cache_blob *b, uint64_t at, size_t bytes)
{
	CLEANUP(freep) void *data = content(at, bytes);

	return b->bytes == bytes && !memcmp(b->data, data, bytes);
}

START_TEST(the_first_one_fills_and_the_next_one_hits)
{
	struct cache_key key = { source_new_id(), 5 }, other = key;
	struct cache_blob *a, *b;
	struct cache_stats st;

	ck_assert_int_eq(cache_get(&key, &a), CACHE_CLAIMED);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_BUSY);
	cache_fill(a, content(5, 100), 100);
	ck_assert_int_eq(cache_wait(b), 0);
	ck_assert(is_content(b, 5, 100));
	cache_put(a);
	cache_put(b);
	ck_assert_int_eq(cache_get(&key, &a), CACHE_HIT);
	ck_assert(is_content(a, 5, 100));
	cache_put(a);
	other.at = 6;
	ck_assert_int_eq(cache_get(&other, &a), CACHE_CLAIMED);
	cache_fail(a, -EIO);
	cache_put(a);
	other = key;
	other.owner = source_new_id();
	ck_assert_int_eq(cache_get(&other, &a), CACHE_CLAIMED);
	cache_fail(a, -EIO);
	cache_put(a);
	cache_get_stats(&st);
	ck_assert_uint_eq(st.hits, 2);
	ck_assert_uint_eq(st.misses, 3);
	ck_assert_uint_ge(st.bytes, 100);
	cache_shutdown();
	cache_get_stats(&st);
	ck_assert_uint_eq(st.bytes, 0);
}
END_TEST

START_TEST(a_peek_finds_what_is_ready_and_claims_nothing)
{
	struct cache_key key = { source_new_id(), 5 };
	struct cache_blob *a, *b;

	ck_assert(!cache_peek(&key, &b));
	ck_assert_int_eq(cache_get(&key, &a), CACHE_CLAIMED);
	ck_assert(!cache_peek(&key, &b));
	cache_fill(a, content(5, 100), 100);
	cache_put(a);
	ck_assert(cache_peek(&key, &b));
	ck_assert(is_content(b, 5, 100));
	cache_put(b);
	cache_shutdown();
}
END_TEST

START_TEST(after_a_failure_the_next_one_tries)
{
	struct cache_key key = { source_new_id(), 1 };
	struct cache_blob *a, *b, *c;

	ck_assert_int_eq(cache_get(&key, &a), CACHE_CLAIMED);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_BUSY);
	cache_fail(a, -ENOMEM);
	/* Whoever comes now does not see the failure of old. */
	ck_assert_int_eq(cache_get(&key, &c), CACHE_CLAIMED);
	ck_assert_int_eq(cache_wait(b), -ENOMEM);
	cache_put(a);
	cache_put(b);
	cache_fill(c, content(1, 10), 10);
	cache_put(c);
	ck_assert_int_eq(cache_get(&key, &a), CACHE_HIT);
	cache_put(a);
	cache_shutdown();
}
END_TEST

#define KEYS 40U

static uint64_t owner;

/* Every key is asked for by every thread; 3 of 7 first fills fail. */
static void ask_for_all(unsigned int number)
{
	unsigned int i, tries;

	for (i = 0; i < KEYS; i++) {
		struct cache_key key = { owner, i };
		bool done = false;

		for (tries = 0; !done && tries < 1000; tries++) {
			struct cache_blob *b;

			switch (cache_get(&key, &b)) {
			case CACHE_CLAIMED:
				usleep(300);
				if (atomic_fetch_add(&misses, 1) % 7 < 3) {
					cache_fail(b, -EIO);
					break;
				}
				atomic_fetch_add(&fills, 1);
				cache_fill(b, content(i, 500), 500);
				done = true;
				break;
			case CACHE_BUSY:
				done = !cache_wait(b);
				break;
			case CACHE_HIT:
				done = true;
				break;
			}
			expect(!done || is_content(b, i, 500));
			cache_put(b);
		}
		expect(done);
	}
}

START_TEST(one_thread_fills_and_the_others_wait)
{
	owner = source_new_id();
	unit_threads(THREADS, ask_for_all);
	ck_assert_uint_eq(wrong, 0);
	/* Nothing was evicted, so nothing was filled twice. */
	ck_assert_uint_eq(fills, KEYS);
	cache_shutdown();
}
END_TEST

START_TEST(the_budget_is_kept_and_the_oldest_go_first)
{
	uint64_t budget = 4 << 20, i;
	struct cache_key key = { source_new_id(), 0 };
	struct cache_blob *b, *held;
	struct cache_stats st;
	unsigned int kept = 0;

	cache_configure(budget, 0);
	ck_assert_int_eq(cache_get(&key, &held), CACHE_CLAIMED);
	cache_fill(held, content(0, 9000), 9000);
	for (i = 1; i < 2000; i++) {
		key.at = i;
		ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
		cache_fill(b, content(i, 9000), 9000);
		cache_put(b);
		cache_get_stats(&st);
		ck_assert_uint_le(st.bytes, budget + 20000);
	}
	/* What is in use stays. */
	ck_assert(is_content(held, 0, 9000));
	cache_put(held);
	ck_assert_uint_ge(st.bytes, budget / 2);
	for (i = 1900; i < 2000; i++) {
		key.at = i;
		if (cache_get(&key, &b) == CACHE_HIT)
			kept++;
		else
			cache_fail(b, -EIO);
		cache_put(b);
	}
	/* Shards drop their own oldest: nearly all of the newest are there. */
	ck_assert_uint_ge(kept, 80);
	key.at = 1;
	ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
	cache_fail(b, -EIO);
	cache_put(b);
	cache_shutdown();
}
END_TEST

static void churn(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		struct cache_key key = { owner, (i * 7 + number) % 97 };
		struct cache_blob *b;

		switch (cache_get(&key, &b)) {
		case CACHE_CLAIMED:
			cache_fill(b, content(key.at, 3000), 3000);
			break;
		case CACHE_BUSY:
			expect(!cache_wait(b));
			break;
		case CACHE_HIT:
			break;
		}
		expect(is_content(b, key.at, 3000));
		cache_put(b);
	}
}

static const uint64_t budgets[] = { 0, 1, 300000, 1 << 20 };

START_TEST(a_cache_of_any_size_works_for_many_threads)
{
	struct cache_stats st;

	cache_configure(budgets[_i], 0);
	owner = source_new_id();
	unit_threads(THREADS, churn);
	ck_assert_uint_eq(wrong, 0);
	cache_get_stats(&st);
	ck_assert_uint_le(st.bytes, budgets[_i]);
	cache_shutdown();
}
END_TEST

#define LENT_BYTES 20000U

static struct cache_key lent_key(uint64_t at)
{
	return (struct cache_key){ owner, at };
}

static void fill_to_lend(struct cache_blob *b, uint64_t at)
{
	CLEANUP(freep) void *data = content(at, LENT_BYTES);
	uint8_t *pages = cache_alloc(LENT_BYTES);

	memcpy(pages, data, LENT_BYTES);
	if (at % 5 == 1)
		memset(pages, 0, 9000); /* two pages have no witness */
	cache_fill_spare(b, pages, LENT_BYTES);
}

/* 1: as it was, 0: it is gone, -1: something else */
static int copy_lent(struct cache_blob *b, uint64_t at, size_t off, size_t len)
{
	CLEANUP(freep) uint8_t *data = content(at, LENT_BYTES);
	CLEANUP(freep) uint8_t *copy = malloc(len);

	if (at % 5 == 1)
		memset(data, 0, 9000);
	if (!cache_copy(b, copy, off, len))
		return 0;
	return memcmp(copy, data + off, len) ? -1 : 1;
}

/* How many of [0, n) are there, read whole. */
static unsigned int count_lent(unsigned int n)
{
	unsigned int i, found = 0;
	struct cache_blob *b;

	for (i = 0; i < n; i++) {
		struct cache_key key = lent_key(i);
		int r;

		if (!cache_peek(&key, &b))
			continue;
		r = copy_lent(b, i, 0, LENT_BYTES);
		ck_assert_int_ge(r, 0);
		found += (unsigned int)r;
		cache_put(b);
	}
	return found;
}

static void lend_some(unsigned int n)
{
	struct cache_blob *b;
	unsigned int i;

	owner = source_new_id();
	for (i = 0; i < n; i++) {
		struct cache_key key = lent_key(i);

		ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
		fill_to_lend(b, i);
		cache_put(b);
	}
}

START_TEST(what_the_budget_has_no_room_for_is_lent)
{
	struct cache_stats st;

	cache_configure(0, 16 << 20);
	lend_some(100);
	cache_get_stats(&st);
	ck_assert_uint_eq(st.bytes, 0);
	ck_assert_uint_ge(st.spare_bytes, 100 * LENT_BYTES);
	ck_assert_uint_le(st.spare_bytes, 16 << 20);
	ck_assert_uint_eq(count_lent(100), 100);
	cache_shutdown();
	cache_get_stats(&st);
	ck_assert_uint_eq(st.spare_bytes, 0);
}
END_TEST

START_TEST(no_more_is_lent_than_was_allowed)
{
	struct cache_stats st;

	cache_configure(0, 1 << 20);
	lend_some(500);
	cache_get_stats(&st);
	ck_assert_uint_le(st.spare_bytes, 1 << 20);
	ck_assert_uint_ge(count_lent(500), 30);
	cache_shutdown();
	cache_configure(0, 0);
	lend_some(100);
	cache_get_stats(&st);
	ck_assert_uint_eq(st.spare_bytes + st.bytes, 0);
	ck_assert_uint_eq(count_lent(100), 0);
	cache_shutdown();
}
END_TEST

START_TEST(what_the_kernel_has_taken_is_not_found_again)
{
	struct cache_key key;
	struct cache_blob *b, *other;
	struct cache_stats st;

	cache_configure(0, 16 << 20);
	lend_some(100);
	unit_take_lent();
	key = lent_key(7);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_HIT);
	ck_assert(cache_peek(&key, &other));
	ck_assert_int_eq(copy_lent(b, 7, 19999, 1), 0);
	ck_assert_int_eq(copy_lent(other, 7, 0, 1), 0);
	cache_put(b);
	cache_put(other);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
	fill_to_lend(b, 7);
	/* Held, so it cannot be lent. */
	unit_take_lent();
	ck_assert_int_eq(copy_lent(b, 7, 0, LENT_BYTES), 1);
	cache_put(b);
	/* Zeroes are zeroes, whoever has them. */
	key = lent_key(11);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_HIT);
	ck_assert_int_eq(copy_lent(b, 11, 10, 8000), 1);
	ck_assert_int_eq(copy_lent(b, 11, 10, 9000), 0);
	cache_put(b);
	ck_assert_uint_eq(count_lent(100), 1);
	ck_assert_uint_eq(count_lent(100), 1);
	cache_get_stats(&st);
	ck_assert_uint_lt(st.spare_bytes, 2 * LENT_BYTES + 10000);
	cache_shutdown();
}
END_TEST

START_TEST(what_is_dropped_is_not_found)
{
	struct cache_key key = { source_new_id(), 3 };
	struct cache_blob *b, *again;

	cache_drop(&key);
	ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
	cache_drop(&key); /* not while it is being filled */
	cache_fill(b, content(3, 100), 100);
	cache_put(b);
	ck_assert(cache_peek(&key, &b));
	cache_drop(&key);
	ck_assert(is_content(b, 3, 100));
	ck_assert_int_eq(cache_get(&key, &again), CACHE_CLAIMED);
	cache_put(b);
	cache_fail(again, -EIO);
	cache_put(again);
	cache_shutdown();
}
END_TEST

static atomic_uint readers_left, taken;

/* The last thread is the kernel's hand. */
static void read_what_is_taken(unsigned int number)
{
	unsigned int i;

	if (number == THREADS - 1)
		while (atomic_load(&readers_left))
			unit_take_lent();
	for (i = 0; number < THREADS - 1 && i < 6000; i++) {
		struct cache_key key = lent_key((i * 7 + number * 31) % 300);
		struct cache_blob *b;
		int r;

		switch (cache_get(&key, &b)) {
		case CACHE_CLAIMED:
			fill_to_lend(b, key.at);
			break;
		case CACHE_BUSY:
			expect(!cache_wait(b));
			break;
		case CACHE_HIT:
			break;
		}
		r = copy_lent(b, key.at, i % 9000, LENT_BYTES - i % 9000);
		expect(r >= 0);
		if (!r)
			atomic_fetch_add(&taken, 1);
		cache_put(b);
	}
	if (number < THREADS - 1)
		atomic_fetch_sub(&readers_left, 1);
}

START_TEST(readers_see_all_or_nothing_while_the_kernel_takes)
{
	cache_configure(1 << 20, 4 << 20);
	owner = source_new_id();
	readers_left = THREADS - 1;
	unit_threads(THREADS, read_what_is_taken);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_gt(taken, 0);
	cache_shutdown();
}
END_TEST

#define SOURCES	     3U
#define SOURCE_BYTES ((1U << 20) + 333)

static uint8_t tables[SOURCES][SOURCE_BYTES];
static struct fault_source *sources[SOURCES];

static void make_sources(void)
{
	unsigned int i;

	for (i = 0; i < SOURCES; i++) {
		unit_fill(tables[i], SOURCE_BYTES, i);
		sources[i] = fault_source_new(tables[i], SOURCE_BYTES);
	}
}

static void free_sources(void)
{
	unsigned int i;

	for (i = 0; i < SOURCES; i++)
		source_unref(&sources[i]->base);
	cache_shutdown();
}

static void read_tables(unsigned int number)
{
	uint32_t state = number * 77 + 1;
	uint8_t buf[9000];
	unsigned int i;

	for (i = 0; i < 20000; i++) {
		unsigned int k, len, off;

		state = state * 1664525 + 1013904223;
		k = state >> 8 & 0xff;
		state = state * 1664525 + 1013904223;
		off = (state >> 4) % SOURCE_BYTES;
		len = i % 50 ? (i & 1 ? 8 : 512) : 9000;
		len = (unsigned int)min_u64(len, SOURCE_BYTES - off);
		expect(!cache_read_meta(&sources[k % SOURCES]->base, buf, len,
					off, NULL));
		expect(!memcmp(buf, tables[k % SOURCES] + off, len));
	}
}

START_TEST(pages_that_are_recycled_are_never_mixed_up)
{
	struct cache_stats st;

	/* The arena's least: 64 pages for 3 MiB of tables. */
	cache_configure(0, 0);
	make_sources();
	unit_threads(THREADS, read_tables);
	ck_assert_uint_eq(wrong, 0);
	cache_get_stats(&st);
	ck_assert_uint_gt(st.meta_misses, 1000);
	free_sources();
}
END_TEST

START_TEST(a_page_is_read_once_when_there_is_room)
{
	struct cache_stats st;
	unsigned int i;
	uint8_t v[8];

	make_sources();
	for (i = 0; i + 8 <= SOURCE_BYTES; i += 8)
		must(cache_read_meta(&sources[0]->base, v, 8, i, &err), err);
	cache_get_stats(&st);
	ck_assert_uint_eq(st.meta_misses, SOURCE_BYTES / 4096 + 1);
	ck_assert_uint_eq(sources[0]->calls, SOURCE_BYTES / 4096 + 1);
	free_sources();
}
END_TEST

START_TEST(a_page_that_cannot_be_read_is_not_remembered)
{
	uint8_t v[8];

	make_sources();
	sources[0]->fail_call = 1;
	sources[0]->fail_code = -EIO;
	ck_assert_int_eq(cache_read_meta(&sources[0]->base, v, 8, 4092, &err),
			 -EIO);
	ck_assert_int_eq(err.code, -EIO);
	error_clear(&err);
	must(cache_read_meta(&sources[0]->base, v, 8, 4092, &err), err);
	ck_assert_mem_eq(v, tables[0] + 4092, 8);
	ck_assert_int_eq(cache_read_meta(&sources[0]->base, v, 8,
					 SOURCE_BYTES - 7, &err),
			 -EBADMSG);
	free_sources();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, the_first_one_fills_and_the_next_one_hits);
	tcase_add_test(tc, a_peek_finds_what_is_ready_and_claims_nothing);
	tcase_add_test(tc, after_a_failure_the_next_one_tries);
	tcase_add_test(tc, one_thread_fills_and_the_others_wait);
	tcase_add_test(tc, the_budget_is_kept_and_the_oldest_go_first);
	LOOP(tc, a_cache_of_any_size_works_for_many_threads, budgets);
	tcase_add_test(tc, what_the_budget_has_no_room_for_is_lent);
	tcase_add_test(tc, no_more_is_lent_than_was_allowed);
	tcase_add_test(tc, what_the_kernel_has_taken_is_not_found_again);
	tcase_add_test(tc, what_is_dropped_is_not_found);
	tcase_add_test(tc, readers_see_all_or_nothing_while_the_kernel_takes);
	tcase_add_test(tc, pages_that_are_recycled_are_never_mixed_up);
	tcase_add_test(tc, a_page_is_read_once_when_there_is_room);
	tcase_add_test(tc, a_page_that_cannot_be_read_is_not_remembered);
}

int main(void)
{
	return unit_main("cache", add);
}
