/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "formats/meta-cache.h"
#include "iouring/write.h"
#include "tests/lib/delay-source.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/unit.h"

#define THREADS 8U

static struct error err;
static atomic_uint wrong;

static void expect(bool ok)
{
	if (!ok)
		atomic_fetch_add(&wrong, 1);
}

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
	meta_cache_shutdown();
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
		expect(!meta_cache_read(&sources[k % SOURCES]->base, buf, len,
					off, NULL));
		expect(!memcmp(buf, tables[k % SOURCES] + off, len));
	}
}

START_TEST(pages_that_are_recycled_are_never_mixed_up)
{
	/* The arena's least: 64 pages for 3 MiB of tables. */
	meta_cache_configure(0);
	make_sources();
	unit_threads(THREADS, read_tables);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_gt(meta_cache_misses(), 1000);
	free_sources();
}
END_TEST

START_TEST(a_page_is_read_once_when_there_is_room)
{
	unsigned int i;
	uint8_t v[8];

	make_sources();
	for (i = 0; i + 8 <= SOURCE_BYTES; i += 8)
		must(meta_cache_read(&sources[0]->base, v, 8, i, &err), err);
	ck_assert_uint_eq(meta_cache_misses(), SOURCE_BYTES / 4096 + 1);
	/* 1, 2, 4, 8 pages, then 16 at a time. */
	ck_assert_uint_eq(sources[0]->calls,
			  4 + div_round_up(SOURCE_BYTES / 4096 + 1 - 15, 16));
	ck_assert_uint_eq(sources[0]->bytes, SOURCE_BYTES);
	free_sources();
}
END_TEST

START_TEST(pages_in_no_order_are_read_alone)
{
	unsigned int i, k;
	uint8_t v[8];

	make_sources();
	for (i = 0; i < 50; i++) {
		k = i * 29 % 50 * 4;
		must(meta_cache_read(&sources[0]->base, v, 8, k * 4096, &err),
		     err);
		ck_assert_mem_eq(v, tables[0] + k * 4096, 8);
	}
	ck_assert_uint_eq(sources[0]->calls, 50);
	ck_assert_uint_eq(sources[0]->bytes, 50 * 4096);
	free_sources();
}
END_TEST

START_TEST(tables_that_are_read_in_order_side_by_side_are_read_ahead)
{
	unsigned int i, k;
	uint8_t v[8];

	make_sources();
	for (i = 0; i < 31; i++)
		for (k = 0; k < 6; k++)
			must(meta_cache_read(&sources[k % 2]->base, v, 8,
					     (k / 2 * 80 + i) * 4096, &err),
			     err);
	/*
	 * Each of the six begins with 1, 2, 4, 8 and 16 pages, unless two are
	 * taken for one.
	 */
	ck_assert_uint_le(sources[0]->calls, 20);
	ck_assert_uint_le(sources[1]->calls, 20);
	free_sources();
}
END_TEST

static const struct {
	uint32_t bytes;
	unsigned int calls; /* for four pages far apart, and one beside each */
	unsigned int most; /* bytes a call */
} likings[] = {
	{ 0, 8, 2 * 4096 },	    { 4096, 8, 2 * 4096 },
	{ 65536, 4, 65536 },	    { 131072, 4, 131072 },
	{ 1 << 30, 4, 512 * 4096 }, { 65535, 8, 2 * 4096 },
	{ 3 * 4096, 8, 2 * 4096 },
};

START_TEST(a_source_is_read_as_much_at_a_time_as_it_likes)
{
	CLEANUP(source_unrefp) struct source *w = NULL;
	unsigned int i;
	uint8_t v[8];

	make_sources();
	sources[0]->base.read_bytes = likings[_i].bytes;
	must(window_source_new(&sources[0]->base, 4096 + 17,
			       SOURCE_BYTES - 4096 - 17, &w, &err),
	     err);
	for (i = 0; i < 8; i++) {
		uint64_t at = (i % 4 * 64 + i / 4) * 4096 + 5;
		unsigned long before = sources[0]->bytes;

		must(meta_cache_read(w, v, 8, at, &err), err);
		ck_assert_mem_eq(v, tables[0] + 4096 + 17 + at, 8);
		ck_assert_uint_le(sources[0]->bytes - before, likings[_i].most);
	}
	/* A large one has all of them in one. */
	ck_assert_uint_le(sources[0]->calls, likings[_i].calls);
	ck_assert_uint_ge(sources[0]->calls,
			  likings[_i].bytes > 131072 ? 1 : likings[_i].calls);
	free_sources();
}
END_TEST

START_TEST(what_is_written_is_not_read_ahead)
{
	struct source *s = NULL, *w = NULL;
	uint64_t before;
	unsigned int i;
	uint8_t v[8];

	unit_fill(tables[0], SOURCE_BYTES, 7);
	unit_write(unit_path("rw"), tables[0], SOURCE_BYTES);
	must(file_source_open_rw(unit_path("rw"), 0, &s, &err), err);
	must(window_source_new(s, 0, SOURCE_BYTES, &w, &err), err);
	s->read_bytes = 65536;
	before = meta_cache_misses();
	for (i = 0; i < 10; i++)
		must(meta_cache_read(w, v, 8, i * 4096, &err), err);
	ck_assert_uint_eq(meta_cache_misses() - before, 10);
	source_unref(w);
	source_unref(s);
	meta_cache_shutdown();
}
END_TEST

static struct delay_source *slow;

static void read_slow(unsigned int number)
{
	uint8_t v[600];
	uint64_t at = number % 4 * 40 * 4096 + number;

	expect(!meta_cache_read(&slow->base, v, sizeof(v), at, NULL));
	expect(!memcmp(v, tables[0] + at, sizeof(v)));
}

START_TEST(threads_that_miss_a_page_read_it_once)
{
	unit_fill(tables[0], SOURCE_BYTES, 8);
	slow = delay_source_new(tables[0], SOURCE_BYTES, 50);
	slow->base.read_bytes = _i ? 65536 : 0;
	unit_threads(32, read_slow);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(slow->reads, 4);
	source_unref(&slow->base);
	meta_cache_shutdown();
}
END_TEST

static int first;

static void fail_slow(unsigned int number)
{
	struct error own = { 0 };
	uint8_t v[8];
	/* The even ones ask for the page that can be read. */
	uint64_t at = number % 2 ? 7 * 4096 : 3 * 4096;
	int r;

	/* Who comes first reads for the others. */
	if (number != (unsigned int)first)
		usleep(8000);
	r = meta_cache_read(&slow->base, v, 8, at, &own);
	expect(r == (number % 2 ? -EIO : 0));
	expect(own.code == r);
	expect(r || !memcmp(v, tables[0] + at, 8));
	expect(!r || strstr(own.msg, "cannot be read"));
}

START_TEST(what_cannot_be_read_beside_a_page_is_no_fault_of_it)
{
	unit_fill(tables[0], SOURCE_BYTES, 8);
	slow = delay_source_new(tables[0], SOURCE_BYTES, 20);
	slow->base.read_bytes = 65536;
	slow->bad_off = 7 * 4096 + 4;
	slow->bad_end = 7 * 4096 + 5;
	slow->bad_code = -EIO;
	slow->bad_late = true;
	first = _i;
	unit_threads(16, fail_slow);
	ck_assert_uint_eq(wrong, 0);
	source_unref(&slow->base);
	meta_cache_shutdown();
}
END_TEST

static void read_slow_tables(unsigned int number)
{
	unsigned int i;
	uint8_t v[8];

	for (i = 0; i < 200; i++) {
		uint64_t at = (number % 3 * 7 + i) * 4096 + number;

		expect(!meta_cache_read(&slow->base, v, 8, at, NULL));
		expect(!memcmp(v, tables[0] + at, 8));
	}
}

START_TEST(threads_that_read_one_table_in_order_share_what_is_read)
{
	meta_cache_configure(_i ? 0 : META_CACHE_BYTES_DEFAULT);
	unit_fill(tables[0], SOURCE_BYTES, 8);
	slow = delay_source_new(tables[0], SOURCE_BYTES, 1);
	unit_threads(THREADS, read_slow_tables);
	ck_assert_uint_eq(wrong, 0);
	/* Of the 214 pages each was read once, and a few behind them. */
	ck_assert_uint_ge(meta_cache_misses(), 214);
	if (!_i)
		ck_assert_uint_le(meta_cache_misses(), 214 + 16);
	source_unref(&slow->base);
	meta_cache_shutdown();
}
END_TEST

START_TEST(a_page_that_cannot_be_read_is_not_remembered)
{
	uint8_t v[8];

	make_sources();
	sources[0]->fail_call = 1;
	sources[0]->fail_code = -EIO;
	ck_assert_int_eq(meta_cache_read(&sources[0]->base, v, 8, 4092, &err),
			 -EIO);
	ck_assert_int_eq(err.code, -EIO);
	error_clear(&err);
	must(meta_cache_read(&sources[0]->base, v, 8, 4092, &err), err);
	ck_assert_mem_eq(v, tables[0] + 4092, 8);
	ck_assert_int_eq(meta_cache_read(&sources[0]->base, v, 8,
					 SOURCE_BYTES - 7, &err),
			 -EBADMSG);
	free_sources();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, pages_that_are_recycled_are_never_mixed_up);
	tcase_add_test(tc, a_page_is_read_once_when_there_is_room);
	tcase_add_test(tc, pages_in_no_order_are_read_alone);
	tcase_add_test(
		tc, tables_that_are_read_in_order_side_by_side_are_read_ahead);
	LOOP(tc, a_source_is_read_as_much_at_a_time_as_it_likes, likings);
	tcase_add_test(tc, what_is_written_is_not_read_ahead);
	tcase_add_loop_test(tc, threads_that_miss_a_page_read_it_once, 0, 2);
	tcase_add_loop_test(
		tc, what_cannot_be_read_beside_a_page_is_no_fault_of_it, 0, 2);
	tcase_add_loop_test(
		tc, threads_that_read_one_table_in_order_share_what_is_read, 0,
		2);
	tcase_add_test(tc, a_page_that_cannot_be_read_is_not_remembered);
}

int main(void)
{
	return unit_main("meta-cache", add);
}
