/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing files, with io_uring and with pwrite, buffered and O_DIRECT. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "iouring/batch.h"
#include "iouring/write.h"
#include "tests/lib/ring-faults.h"
#include "tests/lib/unit.h"

#define FILE_BYTES (1U << 20)
#define IOS	   100U

static const struct {
	enum engine_mode mode;
	unsigned int flags;
} ways[] = {
	{ ENGINE_AUTO, 0 },
	{ ENGINE_SYNC, 0 },
	{ ENGINE_AUTO, FILE_DIRECT },
	{ ENGINE_SYNC, FILE_DIRECT },
};

static uint8_t model[FILE_BYTES], got[FILE_BYTES];
static struct error err;

/* A file of model[], or NULL where this file system cannot. */
static struct source *open_file(int way)
{
	const char *path = unit_path("write");
	struct source *s = NULL;
	int r;

	engine_configure(ways[way].mode, NULL);
	unit_fill(model, FILE_BYTES, 1);
	unit_write(path, model, FILE_BYTES);
	r = file_source_open_rw(path, ways[way].flags, &s, &err);
	if (r == -ENOTSUP)
		return NULL;
	must(r, err);
	return s;
}

static void is_as_the_model(void)
{
	int fd = open(unit_path("write"), O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(pread(fd, got, FILE_BYTES, 0), FILE_BYTES);
	close(fd);
	ck_assert_mem_eq(got, model, FILE_BYTES);
}

/* Writes of any size and alignment, each in a place of its own. */
static void make_writes(struct source *s, struct batch_io *ios, uint8_t *buf)
{
	size_t i, room = FILE_BYTES / IOS;

	unit_fill(buf, FILE_BYTES, 2);
	for (i = 0; i < IOS; i++) {
		uint32_t v[2];

		unit_fill(v, sizeof(v), 3 + (unsigned int)i);
		ios[i] = (struct batch_io){ .src = s,
					    .off = i * room + v[0] % 100,
					    .buf = buf + i * room,
					    .len = v[1] % (room - 100) + 1,
					    .op = BATCH_WRITE };
		if (i % 3 == 0) {
			ios[i].off = round_up(ios[i].off, 512);
			ios[i].len = (size_t)round_down(ios[i].len, 512);
		}
		if (!ios[i].len)
			ios[i].len = 1;
		memcpy(model + ios[i].off, ios[i].buf, ios[i].len);
	}
}

START_TEST(writes_of_any_alignment_reach_the_file)
{
	struct source *s = open_file(_i);
	static uint8_t buf[FILE_BYTES];
	struct batch_io ios[IOS];
	size_t i;

	if (!s)
		return;
	make_writes(s, ios, buf);
	ck_assert_int_eq(batch_run(ios, IOS), 0);
	is_as_the_model();
	/* One by one they take another way. */
	unit_fill(model, FILE_BYTES, 1);
	unit_write(unit_path("write"), model, FILE_BYTES);
	source_unref(s);
	s = open_file(_i);
	make_writes(s, ios, buf);
	for (i = 0; i < IOS; i++)
		must(source_write(s, ios[i].buf, ios[i].len, ios[i].off, &err),
		     err);
	must(source_sync(s, &err), err);
	is_as_the_model();
	source_unref(s);
}
END_TEST

START_TEST(aligned_writes_go_direct_from_memory_that_is_not)
{
	struct source *s = open_file(_i);
	static uint8_t buf[FILE_BYTES + 1];
	struct batch_io ios[2];

	if (!s)
		return;
	unit_fill(buf, sizeof(buf), 7);
	ios[0] = (struct batch_io){ .src = s,
				    .off = 4096,
				    .buf = buf + 1,
				    .len = 300 << 10,
				    .op = BATCH_WRITE };
	ios[1] = (struct batch_io){ .src = s,
				    .off = 512 << 10,
				    .buf = buf + 1,
				    .len = 8192,
				    .op = BATCH_WRITE };
	memcpy(model + ios[0].off, buf + 1, ios[0].len);
	memcpy(model + ios[1].off, buf + 1, ios[1].len);
	ck_assert_int_eq(batch_run(ios, 2), 0);
	is_as_the_model();
	source_unref(s);
}
END_TEST

START_TEST(short_and_interrupted_writes_are_continued)
{
	struct source *s = open_file(_i);
	static uint8_t buf[FILE_BYTES];
	struct batch_io ios[IOS];

	if (!s)
		return;
	make_writes(s, ios, buf);
	ring_faults.every = 3;
	ring_faults.code = _i % 2 ? -EINTR : 0;
	ck_assert_int_eq(batch_run(ios, IOS), 0);
	ring_faults.every = 0;
	is_as_the_model();
	source_unref(s);
}
END_TEST

START_TEST(a_write_behind_the_end_makes_the_file_longer)
{
	struct source *s = open_file(_i);
	uint64_t bytes = 0;

	if (!s)
		return;
	must(source_write(s, "new", 3, FILE_BYTES + 8192, &err), err);
	must(source_measure(s, &bytes, NULL, &err), err);
	ck_assert_uint_ge(bytes, FILE_BYTES + 8195);
	must(source_read(s, got, 3, FILE_BYTES + 8192, &err), err);
	ck_assert_mem_eq(got, "new", 3);
	must(source_truncate(s, FILE_BYTES, &err), err);
	ck_assert_int_eq(source_read(s, got, 3, FILE_BYTES + 8192, &err), -EIO);
	is_as_the_model();
	source_unref(s);
}
END_TEST

START_TEST(a_punched_hole_reads_as_zeroes)
{
	struct source *s = open_file(_i);
	uint64_t len = 0;
	bool hole = false;

	if (!s)
		return;
	must(source_punch(s, 65536, 131072, &err), err);
	memset(model + 65536, 0, 131072);
	is_as_the_model();
	must(source_find_hole(s, 65536, FILE_BYTES - 65536, &hole, &len), err);
	ck_assert(hole);
	ck_assert_uint_eq(len, 131072);
	source_unref(s);
}
END_TEST

START_TEST(what_was_opened_to_be_read_cannot_be_written)
{
	struct source *s = open_file(_i), *ro = NULL;
	struct batch_io ios[2];

	if (!s)
		return;
	must(file_source_open(unit_path("write"), ways[_i].flags, &ro, &err),
	     err);
	ios[0] = (struct batch_io){
		.src = ro, .off = 0, .buf = got, .len = 4096, .op = BATCH_WRITE
	};
	ios[1] = (struct batch_io){ .src = ro, .buf = got, .len = 4096 };
	ck_assert_int_eq(batch_run(ios, 2), -EROFS);
	ck_assert_int_eq(ios[1].ret, 0);
	ck_assert_int_eq(source_sync(ro, &err), -EROFS);
	error_clear(&err);
	ck_assert_int_eq(source_truncate(ro, 0, &err), -EROFS);
	error_clear(&err);
	is_as_the_model();
	source_unref(ro);
	source_unref(s);
}
END_TEST

/* Counts, and fails the @fail_at-th change with @code. */
struct counter {
	struct write_watcher w;
	unsigned int n[WRITE_TRUNCATE + 1], ended, fail_at, all;
	int code;
};

static int count_before(struct write_watcher *w, const struct write_event *e)
{
	struct counter *c = container_of(w, struct counter, w);

	c->n[e->op]++;
	return ++c->all == c->fail_at ? c->code : 0;
}

static void count_after(struct write_watcher *w, const struct write_event *e,
			int code)
{
	struct counter *c = container_of(w, struct counter, w);

	c->ended++;
	ck_assert_int_eq(code, c->all == c->fail_at ? c->code : 0);
}

START_TEST(the_watcher_sees_each_change_and_can_fail_it)
{
	struct source *s = open_file(_i);
	static uint8_t buf[FILE_BYTES];
	struct batch_io ios[IOS];
	struct counter c = { .w = { count_before, count_after },
			     .fail_at = 5,
			     .code = -ENOSPC };

	if (!s)
		return;
	make_writes(s, ios, buf);
	write_watch(&c.w);
	ck_assert_int_eq(batch_run(ios, IOS), -ENOSPC);
	ck_assert_int_eq(ios[4].ret, -ENOSPC);
	ck_assert_int_eq(ios[5].ret, 0);
	must(source_write(s, ios[4].buf, ios[4].len, ios[4].off, &err), err);
	must(source_sync(s, &err), err);
	must(source_punch(s, FILE_BYTES - 100, 100, &err), err);
	memset(model + FILE_BYTES - 100, 0, 100);
	must(source_truncate(s, FILE_BYTES, &err), err);
	write_watch(NULL);
	ck_assert_uint_eq(c.n[WRITE_DATA], IOS + 1);
	ck_assert_uint_eq(c.n[WRITE_SYNC], 1);
	ck_assert_uint_eq(c.n[WRITE_PUNCH], 1);
	ck_assert_uint_eq(c.n[WRITE_TRUNCATE], 1);
	ck_assert_uint_eq(c.ended, c.all);
	is_as_the_model();
	source_unref(s);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, writes_of_any_alignment_reach_the_file, ways);
	LOOP(tc, aligned_writes_go_direct_from_memory_that_is_not, ways);
	LOOP(tc, short_and_interrupted_writes_are_continued, ways);
	LOOP(tc, a_write_behind_the_end_makes_the_file_longer, ways);
	LOOP(tc, a_punched_hole_reads_as_zeroes, ways);
	LOOP(tc, what_was_opened_to_be_read_cannot_be_written, ways);
	LOOP(tc, the_watcher_sees_each_change_and_can_fail_it, ways);
}

int main(void)
{
	return unit_main("write", add);
}
