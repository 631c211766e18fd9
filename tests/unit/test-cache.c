/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "formats/cache.h"
#include "tests/lib/unit.h"

#define THREADS 8U

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
	cache_fill(c, content(1, 10), 10);
	cache_put(c);
	ck_assert_int_eq(cache_wait(b), -ENOMEM);
	cache_put(a);
	cache_put(b);
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
	uint64_t budget = 64 << 20, share = budget / 16, i;
	struct cache_key key = { source_new_id(), 0 };
	struct cache_blob *b, *held;
	struct cache_stats st;
	unsigned int kept = 0;

	cache_configure(budget);
	ck_assert_int_eq(cache_get(&key, &held), CACHE_CLAIMED);
	cache_fill(held, content(0, 9000), 9000);
	for (i = 1; i < 2000; i++) {
		key.at = i;
		ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
		cache_fill(b, content(i, 9000), 9000);
		cache_put(b);
		cache_get_stats(&st);
		ck_assert_uint_le(st.bytes, share + 20000);
	}
	/* What is in use stays. */
	ck_assert(is_content(held, 0, 9000));
	cache_put(held);
	ck_assert_uint_ge(st.bytes, share / 2);
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

	cache_configure(budgets[_i]);
	owner = source_new_id();
	unit_threads(THREADS, churn);
	ck_assert_uint_eq(wrong, 0);
	cache_get_stats(&st);
	ck_assert_uint_le(st.bytes, budgets[_i]);
	cache_shutdown();
}
END_TEST

#define UNIT_BYTES 20000U

static bool fill_unit(struct cache_blob *b, uint64_t at)
{
	uint8_t *block = cache_block(UNIT_BYTES);

	if (!block) {
		cache_fail(b, -EAGAIN);
		return false;
	}
	unit_fill(block, UNIT_BYTES, (unsigned int)at);
	cache_fill_block(b, block, UNIT_BYTES);
	return true;
}

START_TEST(units_keep_to_their_share_and_the_oldest_go_first)
{
	uint64_t share = 2 << 20, i;
	struct cache_key key = { source_new_id(), 0 };
	struct cache_blob *b, *held;
	struct cache_stats st;
	unsigned int kept = 0;

	cache_configure(2 * share);
	ck_assert_int_eq(cache_get(&key, &held), CACHE_CLAIMED);
	ck_assert(fill_unit(held, 0));
	for (i = 1; i < 1000; i++) {
		key.at = i;
		ck_assert_int_eq(cache_get(&key, &b), CACHE_CLAIMED);
		ck_assert(fill_unit(b, i));
		cache_put(b);
		cache_get_stats(&st);
		ck_assert_uint_le(st.bytes, share);
	}
	ck_assert_uint_ge(st.bytes, share / 2);
	ck_assert(is_content(held, 0, UNIT_BYTES));
	cache_put(held);
	for (i = 960; i < 1000; i++) {
		key.at = i;
		if (!cache_peek(&key, &b))
			continue;
		ck_assert(is_content(b, i, UNIT_BYTES));
		cache_put(b);
		kept++;
	}
	ck_assert_uint_ge(kept, 30);
	key.at = 1;
	ck_assert(!cache_peek(&key, &b));
	cache_shutdown();
}
END_TEST

START_TEST(what_is_held_is_not_taken_for_a_block)
{
	struct cache_key key = { source_new_id(), 0 };
	struct cache_blob *held[64];
	unsigned int n;
	void *block;

	cache_configure(1 << 20);
	for (n = 0; n < ARRAY_SIZE(held); n++) {
		key.at = n;
		ck_assert_int_eq(cache_get(&key, &held[n]), CACHE_CLAIMED);
		if (!fill_unit(held[n], n))
			break;
	}
	ck_assert_uint_gt(n, 10);
	ck_assert_uint_lt(n, ARRAY_SIZE(held));
	ck_assert_int_eq(cache_wait(held[n]), -EAGAIN);
	cache_put(held[n]);
	ck_assert_ptr_null(cache_block(UNIT_BYTES));
	ck_assert_ptr_null(cache_block(1 << 30));
	while (n--) {
		ck_assert(is_content(held[n], n, UNIT_BYTES));
		cache_put(held[n]);
	}
	block = cache_block(UNIT_BYTES);
	ck_assert_ptr_nonnull(block);
	cache_block_free(block, UNIT_BYTES);
	cache_block_free(NULL, UNIT_BYTES);
	cache_shutdown();
}
END_TEST

/* Units of many sizes, more of them than there is room for. */
static void churn_units(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < 3000; i++) {
		struct cache_key key = { owner, (i * 7 + number) % 97 };
		size_t bytes = 3000 + key.at * 800;
		struct cache_blob *b;
		void *block;
		int r = 0;

		switch (cache_get(&key, &b)) {
		case CACHE_CLAIMED:
			block = cache_block(bytes);
			if (!block) {
				cache_fail(b, r = -EAGAIN);
				break;
			}
			unit_fill(block, bytes, (unsigned int)key.at);
			cache_fill_block(b, block, bytes);
			break;
		case CACHE_BUSY:
			r = cache_wait(b);
			expect(!r || r == -EAGAIN);
			break;
		case CACHE_HIT:
			break;
		}
		expect(r || is_content(b, key.at, bytes));
		atomic_fetch_add(&fills, !r);
		cache_put(b);
	}
}

START_TEST(units_of_many_sizes_are_never_mixed_up)
{
	fills = 0;
	cache_configure(4 << 20);
	owner = source_new_id();
	unit_threads(THREADS, churn_units);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_gt(fills, THREADS * 3000 / 2);
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

static void add(TCase *tc)
{
	tcase_add_test(tc, the_first_one_fills_and_the_next_one_hits);
	tcase_add_test(tc, a_peek_finds_what_is_ready_and_claims_nothing);
	tcase_add_test(tc, after_a_failure_the_next_one_tries);
	tcase_add_test(tc, one_thread_fills_and_the_others_wait);
	tcase_add_test(tc, the_budget_is_kept_and_the_oldest_go_first);
	LOOP(tc, a_cache_of_any_size_works_for_many_threads, budgets);
	tcase_add_test(tc, units_keep_to_their_share_and_the_oldest_go_first);
	tcase_add_test(tc, what_is_held_is_not_taken_for_a_block);
	tcase_add_test(tc, units_of_many_sizes_are_never_mixed_up);
	tcase_add_test(tc, what_is_dropped_is_not_found);
}

int main(void)
{
	return unit_main("cache", add);
}
