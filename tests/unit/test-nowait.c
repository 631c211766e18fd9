/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may not wait does what can be done at once, and changes nothing else. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "formats/cache.h"
#include "iouring/batch.h"
#include "iouring/nowait.h"
#include "tests/lib/unit.h"

#define FILE_BYTES (1U << 20)

static uint8_t want[FILE_BYTES], got[FILE_BYTES];
static struct error err;

static struct source *open_file(void)
{
	struct source *src;

	unit_fill(want, sizeof(want), 7);
	unit_write(unit_path("f"), want, sizeof(want));
	must(file_source_open(unit_path("f"), 0, &src, &err), err);
	return src;
}

static int try_read(struct source *src, size_t len, uint64_t off)
{
	int r;

	engine_nowait = true;
	r = source_read(src, got, len, off, NULL);
	engine_nowait = false;
	return r;
}

START_TEST(what_is_in_memory_is_read)
{
	struct source *src = open_file();
	int r = try_read(src, 70000, 12345);

	/* A file system may not know how: then somebody else does it. */
	ck_assert(!r || (r == -EAGAIN && !source_file(src)->in_memory));
	if (!r)
		ck_assert_mem_eq(got, want + 12345, 70000);
	source_unref(src);
}
END_TEST

START_TEST(what_is_not_in_memory_would_wait)
{
	struct source *src = open_file();
	int fd = open(unit_path("f"), O_RDONLY);

	ck_assert_int_ge(fd, 0);
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	if (try_read(src, FILE_BYTES, 0) == 0)
		ck_assert_mem_eq(got, want, FILE_BYTES); /* tmpfs */
	must(source_read(src, got, FILE_BYTES, 0, &err), err);
	ck_assert_mem_eq(got, want, FILE_BYTES);
	source_unref(src);
}
END_TEST

START_TEST(direct_reads_and_writes_are_never_at_once)
{
	struct source *src;
	struct batch_io io = { .buf = got, .len = 4096 };

	unit_write(unit_path("w"), want, 65536);
	must(file_source_open_rw(unit_path("w"), 0, &src, &err), err);
	io.src = src;
	io.op = BATCH_WRITE;
	engine_nowait = true;
	ck_assert_int_eq(batch_run(&io, 1), -EAGAIN);
	engine_nowait = false;
	ck_assert_int_eq(io.ret, -EAGAIN);
	source_unref(src);
}
END_TEST

START_TEST(a_lock_that_is_held_is_not_waited_for)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;

	pthread_mutex_lock(&m);
	pthread_rwlock_wrlock(&rw);
	engine_nowait = true;
	ck_assert_int_eq(lock_or_again(&m), -EAGAIN);
	ck_assert_int_eq(rdlock_or_again(&rw), -EAGAIN);
	pthread_mutex_unlock(&m);
	pthread_rwlock_unlock(&rw);
	ck_assert_int_eq(lock_or_again(&m), 0);
	ck_assert_int_eq(rdlock_or_again(&rw), 0);
	engine_nowait = false;
	pthread_mutex_unlock(&m);
	pthread_rwlock_unlock(&rw);
}
END_TEST

START_TEST(a_unit_that_is_being_filled_is_not_waited_for)
{
	struct cache_key key = { .owner = source_new_id(), .at = 1 };
	struct cache_blob *mine, *his;

	ck_assert_int_eq(cache_get(&key, &mine), CACHE_CLAIMED);
	ck_assert_int_eq(cache_get(&key, &his), CACHE_BUSY);
	cache_fail(mine, -EAGAIN);
	cache_put(mine);
	engine_nowait = true;
	ck_assert_int_eq(cache_wait(his), -EAGAIN);
	engine_nowait = false;
	cache_put(his);
	cache_shutdown();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_is_in_memory_is_read);
	tcase_add_test(tc, what_is_not_in_memory_would_wait);
	tcase_add_test(tc, direct_reads_and_writes_are_never_at_once);
	tcase_add_test(tc, a_lock_that_is_held_is_not_waited_for);
	tcase_add_test(tc, a_unit_that_is_being_filled_is_not_waited_for);
}

int main(void)
{
	return unit_main("nowait", add);
}
