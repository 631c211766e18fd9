/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "formats/meta-cache.h"
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
	tcase_add_test(tc, a_page_that_cannot_be_read_is_not_remembered);
}

int main(void)
{
	return unit_main("meta-cache", add);
}
