/* SPDX-License-Identifier: BSD-3-Clause */
/* The qcow2 writer: against a model in memory, failing disks, power cuts. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/boot-id.h"
#include "formats/cache.h"
#include "formats/overlay/overlay.h"
#include "iouring/write.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define BASE_BYTES ((3U << 20) + 1536)
#define DISK_BYTES ((5U << 20) + 512)
#define CLUSTER	   (128U << 10)

static uint8_t base_data[BASE_BYTES], model[DISK_BYTES], got[DISK_BYTES];
static struct error err;
static struct image *base;
static struct overlay *ov;
static unsigned int seed;

/* The same numbers for the same seed. */
static uint32_t rnd(uint32_t below)
{
	seed = seed * 1664525U + 1013904223U;
	return (uint32_t)(((uint64_t)(seed >> 1) * below) >> 31);
}

static const char *top(void)
{
	return unit_path("top.qcow2");
}

static void open_base(void)
{
	struct open_options options = { .format = "raw" };

	unit_fill(base_data, BASE_BYTES, 7);
	memset(base_data + 300000, 0, 200000);
	unit_write(unit_path("base.raw"), base_data, BASE_BYTES);
	must(image_open(unit_path("base.raw"), &options, &base, &err), err);
}

static void reopen(unsigned int detect)
{
	struct overlay_options options = { .detect = detect, .log = true };

	must(overlay_open(top(), base, base ? "base.raw" : NULL, &options, &ov,
			  &err),
	     err);
}

static void make(uint64_t bytes, bool with_base)
{
	struct overlay_new n = { .bytes = bytes };

	if (with_base) {
		open_base();
		n.base_name = "base.raw";
		n.base_format = "raw";
	}
	memset(model, 0, sizeof(model));
	if (with_base)
		memcpy(model, base_data, BASE_BYTES);
	unlink(top());
	must(overlay_create(top(), &n, &err), err);
}

static void done(void)
{
	overlay_unref(TAKE_PTR(ov));
	image_unref(TAKE_PTR(base));
	cache_shutdown();
	unlink(top());
}

/* What our own checker finds in the file. */
static struct check_report check_file(void)
{
	struct open_options options = { .format = "qcow2", .share = true };
	struct check_report report = { 0 };
	struct layer *l;

	must(chain_open_top(top(), &options, &l, &err), err);
	must(l->ops->check(l, &report, &err), err);
	layer_unref(l);
	cache_shutdown();
	return report;
}

static void is_sound(uint64_t leaks_allowed)
{
	struct check_report r = check_file();

	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.check_errors, 0);
	ck_assert_uint_le(r.leaks, leaks_allowed);
}

static void is_as_the_model(void)
{
	size_t i;

	must(overlay_read(ov, got, DISK_BYTES, 0, &err), err);
	if (!memcmp(got, model, DISK_BYTES))
		return;
	for (i = 0; i < DISK_BYTES && got[i] == model[i]; i++)
		;
	ck_assert_msg(i == DISK_BYTES, "differs at %zu", i);
}

/* Aligned in a third of the cases each: not at all, 4 KiB, a cluster. */
static void pick_range(uint32_t *off, uint32_t *len, uint32_t max)
{
	uint32_t align = (uint32_t[]){ 1, 4096, CLUSTER }[rnd(3)];

	*len = (rnd(max) / align + 1) * align;
	*off = rnd(DISK_BYTES) / align * align;
	if (*len > DISK_BYTES - *off)
		*len = DISK_BYTES - *off;
}

static void step(void)
{
	static uint8_t buf[DISK_BYTES];
	uint32_t off, len, at;

	pick_range(&off, &len, rnd(4) ? 16384 : 400000);
	switch (rnd(10)) {
	case 0:
		must(overlay_zero(ov, off, len, rnd(2) ? OVERLAY_MAY_TRIM : 0,
				  &err),
		     err);
		memset(model + off, 0, len);
		break;
	case 1:
		must(overlay_trim(ov, off, len, false, &err), err);
		/* Whole subclusters read as zeroes, the rest as before. */
		must(overlay_read(ov, got, len, off, &err), err);
		for (at = 0; at < len; at++)
			if (got[at] != model[off + at] && got[at])
				ck_abort_msg("byte %u: neither", off + at);
		memcpy(model + off, got, len);
		break;
	case 2:
		must(overlay_flush(ov, &err), err);
		break;
	case 3:
		must(overlay_read(ov, got, len, off, &err), err);
		ck_assert_mem_eq(got, model + off, len);
		break;
	case 4:
		memset(buf, 0, len);
		must(overlay_write(ov, buf, len, off, false, &err), err);
		memset(model + off, 0, len);
		break;
	case 5: /* what is there already */
		memcpy(buf, model + off, len);
		must(overlay_write(ov, buf, len, off, false, &err), err);
		break;
	default:
		unit_fill(buf, len, rnd(1U << 30));
		must(overlay_write(ov, buf, len, off, rnd(20) == 0, &err), err);
		memcpy(model + off, buf, len);
	}
}

static const struct {
	bool with_base;
	unsigned int detect;
} kinds[] = {
	{ true, 0 },
	{ false, 0 },
	{ true, OVERLAY_DETECT_ZEROES | OVERLAY_DETECT_BASE },
};

START_TEST(reads_what_the_model_has_after_any_steps)
{
	unsigned int rounds = unit_rounds(12), round, i;

	seed = 4711 + (unsigned int)_i;
	make(DISK_BYTES, kinds[_i].with_base);
	for (round = 0; round < rounds; round++) {
		reopen(kinds[_i].detect);
		is_as_the_model();
		for (i = 0; i < 150; i++)
			step();
		is_as_the_model();
		overlay_unref(TAKE_PTR(ov));
		is_sound(0);
	}
	done();
}
END_TEST

#define THREADS 4U

/* Each thread has every fourth piece of 1000 bytes: neighbours share much. */
static void write_mine(unsigned int number)
{
	unsigned int i, k, s = 99 + number;
	uint8_t buf[1000];
	struct error e = { 0 };

	for (i = 0; i < 1500; i++) {
		uint32_t piece;

		s = s * 1664525U + 1013904223U;
		piece = (s >> 8) % (DISK_BYTES / 4000) * 4 + number;
		if (piece * 1000 + 1000 > DISK_BYTES)
			continue;
		for (k = 0; k < sizeof(buf); k++)
			buf[k] = (uint8_t)(s >> (k % 24));
		must(overlay_write(ov, buf, sizeof(buf), piece * 1000, false,
				   &e),
		     e);
		memcpy(model + piece * 1000, buf, sizeof(buf));
		if (i % 100 == 0)
			must(overlay_flush(ov, &e), e);
	}
}

START_TEST(neighbours_written_by_many_threads_keep_their_bytes)
{
	make(DISK_BYTES, true);
	reopen(0);
	unit_threads(THREADS, write_mine);
	is_as_the_model();
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

START_TEST(trimmed_room_goes_back_and_the_file_shrinks)
{
	struct overlay_stats before, after;
	static uint8_t buf[4U << 20];

	make(DISK_BYTES, false);
	reopen(0);
	unit_fill(buf, sizeof(buf), 1);
	must(overlay_write(ov, buf, sizeof(buf), 0, true, &err), err);
	overlay_get_stats(ov, &before);
	must(overlay_trim(ov, 0, sizeof(buf), true, &err), err);
	overlay_get_stats(ov, &after);
	ck_assert_uint_ge(before.room_bytes, sizeof(buf));
	ck_assert_uint_le(after.room_bytes, before.room_bytes - (3U << 20));
	/* A part of a cluster, too. */
	must(overlay_write(ov, buf, CLUSTER, 0, true, &err), err);
	overlay_get_stats(ov, &before);
	must(overlay_trim(ov, 8192, 65536, true, &err), err);
	overlay_get_stats(ov, &after);
	ck_assert_uint_le(after.room_bytes, before.room_bytes - 65536 + 8192);
	done();
}
END_TEST

START_TEST(a_page_costs_a_page_of_room)
{
	struct overlay_stats before, after;
	uint8_t buf[4096];
	unsigned int i;

	make(DISK_BYTES, true);
	reopen(0);
	overlay_get_stats(ov, &before);
	for (i = 0; i < 20; i++) {
		unit_fill(buf, sizeof(buf), i);
		must(overlay_write(ov, buf, sizeof(buf), i * CLUSTER, false,
				   &err),
		     err);
	}
	must(overlay_flush(ov, &err), err);
	overlay_get_stats(ov, &after);
	ck_assert_uint_le(after.room_bytes,
			  before.room_bytes + 20 * 4096 + CLUSTER + 65536);
	done();
}
END_TEST

START_TEST(a_quota_is_kept_and_costs_only_the_write_that_meets_it)
{
	struct overlay_options options = { .bytes_max = 2U << 20 };
	static uint8_t buf[CLUSTER];
	unsigned int i;
	int r = 0;

	make(DISK_BYTES, false);
	must(overlay_open(top(), NULL, NULL, &options, &ov, &err), err);
	unit_fill(buf, sizeof(buf), 3);
	for (i = 0; i < 39 && !r; i++) {
		r = overlay_write(ov, buf, CLUSTER, i * CLUSTER, false, &err);
		if (!r)
			memcpy(model + i * CLUSTER, buf, CLUSTER);
	}
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.msg, "as large as it may be"));
	error_clear(&err);
	is_as_the_model();
	must(overlay_flush(ov, &err), err);
	/* What is given up may be used again. */
	must(overlay_trim(ov, 0, CLUSTER, true, &err), err);
	memset(model, 0, CLUSTER);
	must(overlay_write(ov, buf, CLUSTER, 38 * CLUSTER, false, &err), err);
	memcpy(model + 38 * CLUSTER, buf, CLUSTER);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

START_TEST(two_writers_do_not_meet)
{
	struct overlay_options options = { 0 };
	struct overlay *second = NULL;

	make(DISK_BYTES, false);
	reopen(0);
	ck_assert_int_eq(
		overlay_open(top(), NULL, NULL, &options, &second, &err),
		-EBUSY);
	ck_assert_ptr_nonnull(strstr(err.msg, "in use by another process"));
	done();
}
END_TEST

START_TEST(an_overlay_of_another_image_is_refused)
{
	struct overlay_options options = { 0 };
	struct overlay_new n = { .bytes = 4096,
				 .base_name = "other.raw",
				 .base_format = "raw" };

	open_base();
	unit_write(unit_path("other.raw"), base_data, 4096);
	must(overlay_create(top(), &n, &err), err);
	ck_assert_int_eq(
		overlay_open(top(), base, "base.raw", &options, &ov, &err),
		-EEXIST);
	ck_assert_ptr_nonnull(strstr(err.msg, "other.raw, not of base.raw"));
	done();
}
END_TEST

static uint64_t field_at(const struct qb *q, size_t at)
{
	uint64_t v;

	memcpy(&v, q->buf + at, sizeof(v));
	return be64toh(v);
}

/* The file's first @len bytes are still those of @wanted. */
static void file_begins(const uint8_t *wanted, size_t len)
{
	uint8_t *has = malloc(len);
	FILE *fp = fopen(top(), "r");

	ck_assert_ptr_nonnull(has);
	ck_assert_ptr_nonnull(fp);
	ck_assert_uint_eq(fread(has, 1, len, fp), len);
	ck_assert_int_eq(memcmp(has, wanted, len), 0);
	fclose(fp);
	free(has);
}

START_TEST(metadata_are_not_written_as_data)
{
	static const char *const fields[] = { "header", "L1 table",
					      "refcount table",
					      "refcount block", "L2 table" };
	static const uint8_t data[65536] = { 1 };
	/* An extension that says nothing; see qcow2-log.c. */
	static const uint8_t mark[40] = "pltr\0\0\0\40";
	const uint64_t flags = _i % 2 ? 0 : QB_COPIED;
	size_t at = (size_t)_i / 2 % ARRAY_SIZE(fields);
	CLEANUP(qb_done) struct qb q;
	uint64_t places[ARRAY_SIZE(fields)] = { 0 };

	qb_init(&q, DISK_BYTES, 16, NULL, NULL);
	places[1] = field_at(&q, 40);
	places[2] = field_at(&q, 48);
	places[3] = field_at(&q, places[2]);
	places[4] = q.l2_off;
	/* The header's place would say: nothing is here. */
	qb_entry(&q, 0, at ? places[at] | flags : QB_COMPRESSED | 512);
	unit_write(top(), q.buf, q.len);
	reopen(0);
	ck_assert_msg(overlay_write(ov, data, sizeof(data), 0, false, &err) ==
			      -EBADMSG,
		      "a write to the %s: %s", fields[at], err.msg);
	ck_assert_ptr_nonnull(strstr(err.msg, "lies on metadata"));
	error_clear(&err);
	ck_assert_int_eq(overlay_write(ov, data, 512, 0, false, &err),
			 -EBADMSG);
	error_clear(&err);
	ck_assert_int_eq(overlay_zero(ov, 0, 65536, 0, &err), -EBADMSG);
	error_clear(&err);
	ck_assert_int_eq(overlay_trim(ov, 0, 65536, false, &err), -EBADMSG);
	error_clear(&err);
	overlay_unref(TAKE_PTR(ov));
	memcpy(q.buf + (field_at(&q, 96) & UINT32_MAX), mark, sizeof(mark));
	file_begins(q.buf, q.len);
	done();
}
END_TEST

START_TEST(a_temporary_one_is_gone_at_once)
{
	struct overlay_options options = { 0 };
	uint8_t buf[5000];

	open_base();
	must(overlay_open_temp(unit_path("."), base, &options, &ov, &err), err);
	unit_fill(buf, sizeof(buf), 3);
	must(overlay_write(ov, buf, sizeof(buf), 12345, true, &err), err);
	must(overlay_read(ov, got, BASE_BYTES, 0, &err), err);
	memcpy(base_data + 12345, buf, sizeof(buf));
	ck_assert_mem_eq(got, base_data, BASE_BYTES);
	done();
}
END_TEST

/* ---- snapshots ---- */

static void snapshot_reads(const char *name, const uint8_t *wanted)
{
	struct image *snap;

	must(overlay_open_snapshot(ov, name, &snap, &err), err);
	must(image_read(snap, got, DISK_BYTES, 0, &err), err);
	image_unref(snap);
	ck_assert_msg(!memcmp(got, wanted, DISK_BYTES),
		      "snapshot %s reads otherwise", name);
}

static int count_snapshot(void *opaque, const char *name, uint64_t bytes)
{
	unsigned int *n = opaque;

	ck_assert_uint_eq(bytes, DISK_BYTES);
	ck_assert_str_eq(name, *n ? "one" : "two");
	++*n;
	return 0;
}

START_TEST(snapshots_stay_as_they_were)
{
	static uint8_t one[DISK_BYTES], two[DISK_BYTES];
	unsigned int i, n = 0;

	seed = 5;
	unlink(unit_path("top@one.qcow2"));
	unlink(unit_path("top@two.qcow2"));
	make(DISK_BYTES, _i == 0);
	reopen(0);
	for (i = 0; i < 60; i++)
		step();
	must(overlay_snapshot(ov, "one", &err), err);
	memcpy(one, model, DISK_BYTES);
	is_as_the_model();
	for (i = 0; i < 60; i++)
		step();
	must(overlay_snapshot(ov, "two", &err), err);
	memcpy(two, model, DISK_BYTES);
	for (i = 0; i < 60; i++)
		step();
	ck_assert_int_eq(overlay_snapshot(ov, "one", &err), -EEXIST);
	error_clear(&err);
	is_as_the_model();
	snapshot_reads("one", one);
	snapshot_reads("two", two);
	overlay_each_snapshot(ov, count_snapshot, &n);
	ck_assert_uint_eq(n, 2);
	ck_assert_int_eq(overlay_open_snapshot(ov, "three", NULL, &err),
			 -ENOENT);
	error_clear(&err);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	/* Another server finds them by their files. */
	reopen(0);
	is_as_the_model();
	snapshot_reads("one", one);
	snapshot_reads("two", two);
	for (i = 0; i < 60; i++)
		step();
	is_as_the_model();
	done();
}
END_TEST

/* Writers, and one who makes snapshots meanwhile. */
static void write_or_snapshot(unsigned int number)
{
	struct error e = { 0 };
	char name[16];
	unsigned int i;

	if (number < THREADS) {
		write_mine(number);
		return;
	}
	for (i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		unlink(unit_path("top@%s.qcow2", name));
		must(overlay_snapshot(ov, name, &e), e);
	}
}

START_TEST(snapshots_under_load_lose_nothing)
{
	make(DISK_BYTES, true);
	reopen(0);
	unit_threads(THREADS + 1, write_or_snapshot);
	is_as_the_model();
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

static int go_on(void *opaque, uint64_t done_bytes)
{
	uint64_t *last = opaque;

	ck_assert_uint_ge(done_bytes, *last);
	ck_assert_uint_le(done_bytes, DISK_BYTES);
	*last = done_bytes;
	return 0;
}

static int give_up(void *opaque, uint64_t done_bytes)
{
	unsigned int *left = opaque;

	return (*left)-- ? 0 : -EINTR;
}

static void delete_snapshot(const char *name)
{
	uint64_t last = 0;

	must(overlay_delete(ov, name, go_on, &last, &err), err);
	ck_assert_int_lt(access(unit_path("top@%s.qcow2", name), F_OK), 0);
	ck_assert_int_eq(overlay_open_snapshot(ov, name, NULL, &err), -ENOENT);
	error_clear(&err);
}

/* Of three: which goes, and then which. */
static const char *const order[][2] = {
	{ "a", "b" }, { "a", "c" }, { "b", "a" },
	{ "b", "c" }, { "c", "a" }, { "c", "b" },
};

static void make_three(uint8_t *then, unsigned int detect)
{
	static const char *const names[] = { "a", "b", "c" };
	unsigned int i, k;

	for (i = 0; i < 3; i++)
		unlink(unit_path("top@%s.qcow2", names[i]));
	reopen(detect);
	for (i = 0; i < 3; i++) {
		for (k = 0; k < 40; k++)
			step();
		must(overlay_snapshot(ov, names[i], &err), err);
		memcpy(then + (size_t)i * DISK_BYTES, model, DISK_BYTES);
	}
	for (k = 0; k < 40; k++)
		step();
}

static void those_left_are_as_they_were(const uint8_t *then, const char *gone,
					const char *gone_too)
{
	static const char *const names[] = { "a", "b", "c" };
	unsigned int i;

	is_as_the_model();
	for (i = 0; i < 3; i++)
		if (strcmp(names[i], gone) != 0 &&
		    (!gone_too || strcmp(names[i], gone_too) != 0))
			snapshot_reads(names[i], then + i * DISK_BYTES);
}

START_TEST(a_deleted_snapshot_takes_nothing_along)
{
	const char *const *which = order[_i % 6];
	unsigned int detect = kinds[_i / 6].detect;
	static uint8_t then[3 * DISK_BYTES];
	struct image *held;
	unsigned int left = 1;

	seed = 77 + (unsigned int)_i;
	make(DISK_BYTES, kinds[_i / 6].with_base);
	make_three(then, detect);
	must(overlay_open_snapshot(ov, which[0], &held, &err), err);
	ck_assert_int_eq(overlay_delete(ov, which[0], give_up, &left, &err),
			 -EINTR);
	error_clear(&err);
	those_left_are_as_they_were(then, "", NULL);
	delete_snapshot(which[0]);
	those_left_are_as_they_were(then, which[0], NULL);
	/* Who had it open has it. */
	must(image_read(held, got, DISK_BYTES, 0, &err), err);
	ck_assert_mem_eq(got, then + (*which[0] - 'a') * DISK_BYTES,
			 DISK_BYTES);
	image_unref(held);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(detect);
	those_left_are_as_they_were(then, which[0], NULL);
	delete_snapshot(which[1]);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(detect);
	those_left_are_as_they_were(then, which[0], which[1]);
	ck_assert_int_eq(overlay_delete(ov, which[1], give_up, &left, &err),
			 -ENOENT);
	error_clear(&err);
	/* What a crash left of one that was merged. */
	unit_write(unit_path("top@%s.qcow2", which[1]), "x", 1);
	delete_snapshot(which[1]);
	done();
}
END_TEST

/* A history of up to eight snapshots, and a way back to any of them. */
START_TEST(a_revert_goes_back_to_any_snapshot)
{
	static uint8_t then[8 * DISK_BYTES];
	char name[2] = { 0 };
	unsigned int rounds = unit_rounds(40), n = 0, at, round, i;

	seed = 177 + (unsigned int)_i;
	make(DISK_BYTES, kinds[_i].with_base);
	reopen(kinds[_i].detect);
	for (i = 0; i < 8; i++)
		unlink(unit_path("top@%c.qcow2", 'a' + (int)i));
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < 15; i++)
			step();
		if (n < 8 && (!n || rnd(3))) {
			name[0] = (char)('a' + (int)n);
			must(overlay_snapshot(ov, name, &err), err);
			memcpy(then + (size_t)n++ * DISK_BYTES, model,
			       DISK_BYTES);
			continue;
		}
		at = rnd(n);
		name[0] = (char)('a' + (int)at);
		if (at + 1 < n) {
			ck_assert_int_eq(overlay_revert(ov, name, false, &err),
					 -EINVAL);
			error_clear(&err);
			is_as_the_model();
		}
		must(overlay_revert(ov, name, true, &err), err);
		memcpy(model, then + (size_t)at * DISK_BYTES, DISK_BYTES);
		is_as_the_model();
		for (i = at + 1; i < n; i++)
			ck_assert_int_lt(
				access(unit_path("top@%c.qcow2", 'a' + (int)i),
				       F_OK),
				0);
		n = at + 1;
		if (rnd(4) == 0) {
			overlay_unref(TAKE_PTR(ov));
			is_sound(0);
			reopen(kinds[_i].detect);
			is_as_the_model();
		}
		for (i = 0; i < n; i++) {
			name[0] = (char)('a' + (int)i);
			snapshot_reads(name, then + (size_t)i * DISK_BYTES);
		}
	}
	done();
}
END_TEST

START_TEST(a_revert_makes_the_disk_as_long_as_it_was)
{
	make(DISK_BYTES, true);
	reopen(0);
	unlink(unit_path("top@short.qcow2"));
	must(overlay_snapshot(ov, "short", &err), err);
	must(overlay_resize(ov, 2 * DISK_BYTES, &err), err);
	must(overlay_write(ov, model, 4096, 2 * DISK_BYTES - 4096, true, &err),
	     err);
	must(overlay_revert(ov, "short", false, &err), err);
	ck_assert_uint_eq(overlay_bytes(ov), DISK_BYTES);
	is_as_the_model();
	ck_assert_int_eq(overlay_write(ov, model, 512, DISK_BYTES, false, &err),
			 -EINVAL);
	error_clear(&err);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	ck_assert_uint_eq(overlay_bytes(ov), DISK_BYTES);
	is_as_the_model();
	done();
}
END_TEST

static void write_or_delete(unsigned int number)
{
	struct error e = { 0 };
	unsigned int i;
	uint64_t last;

	if (number < THREADS) {
		write_mine(number);
		return;
	}
	for (i = 0; i < 4; i++) {
		unlink(unit_path("top@s.qcow2"));
		must(overlay_snapshot(ov, "s", &e), e);
		last = 0;
		must(overlay_delete(ov, "s", go_on, &last, &e), e);
	}
}

START_TEST(deleting_under_load_loses_nothing)
{
	make(DISK_BYTES, true);
	reopen(_i ? OVERLAY_DETECT_BASE : 0);
	unit_threads(THREADS + 1, write_or_delete);
	is_as_the_model();
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

/* ---- growing ---- */

/* The header alone says how long the table is. */
START_TEST(a_disk_grows_by_zeroes)
{
	static const uint64_t sizes[] = { DISK_BYTES + 5000, 3ULL << 30,
					  20ULL << 40, 100ULL << 40 };
	static const uint8_t zeroes[65536];
	uint64_t bytes = 1 << 20;
	unsigned int i;

	/* Shorter than its base, whose data must not come to light. */
	make(bytes, true);
	reopen(0);
	must(overlay_write(ov, model, 3000, bytes - 3000, false, &err), err);
	memcpy(model + bytes - 3000, model, 3000);
	ck_assert_int_eq(overlay_resize(ov, bytes - 1, &err), -EINVAL);
	ck_assert_int_eq(overlay_resize(ov, UINT64_MAX, &err), -EFBIG);
	error_clear(&err);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		must(overlay_resize(ov, sizes[i], &err), err);
		ck_assert_uint_eq(overlay_bytes(ov), sizes[i]);
		must(overlay_read(ov, got, sizeof(zeroes), bytes, &err), err);
		ck_assert_mem_eq(got, zeroes, min_u64(sizes[i] - bytes, 5000));
		if (i % 2) {
			overlay_unref(TAKE_PTR(ov));
			is_sound(0);
			reopen(0);
		}
		must(overlay_write(ov, model, 4096, sizes[i] - 4096, false,
				   &err),
		     err);
		bytes = sizes[i];
	}
	must(overlay_read(ov, got, 1 << 20, 0, &err), err);
	ck_assert_mem_eq(got, model, 1 << 20);
	must(overlay_read(ov, got, DISK_BYTES - (1 << 20), 1 << 20, &err), err);
	ck_assert(is_all_zero(got, DISK_BYTES - (1 << 20)));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		must(overlay_read(ov, got, 4096, sizes[i] - 4096, &err), err);
		ck_assert_mem_eq(got, model, 4096);
	}
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

/* ---- a disk that fails ---- */

struct failing {
	struct write_watcher w;
	atomic_int left; /* changes until one fails */
	int code;
};

static int fail_one(struct write_watcher *w, const struct write_event *e)
{
	struct failing *f = container_of(w, struct failing, w);

	/* A failed sync is for ever: see the next test. */
	if (e->op == WRITE_SYNC)
		return 0;
	return atomic_fetch_sub(&f->left, 1) == 0 ? f->code : 0;
}

static void watch_nothing(struct write_watcher *w, const struct write_event *e,
			  int code)
{
}

/* Writes that fail may be there or not, by sectors; the rest is as it was. */
START_TEST(a_failing_write_fails_alone)
{
	struct failing f = { .w = { fail_one, watch_nothing },
			     .code = _i % 2 ? -EIO : -ENOSPC };
	static uint8_t buf[200000], before[DISK_BYTES];
	uint32_t off, len, at;
	unsigned int i;
	int r;

	seed = 1 + (unsigned int)_i;
	make(DISK_BYTES, true);
	reopen(0);
	atomic_store(&f.left, _i);
	write_watch(&f.w);
	for (i = 0; i < 40; i++) {
		pick_range(&off, &len, 150000);
		if (len > sizeof(buf))
			len = sizeof(buf);
		unit_fill(buf, len, rnd(1U << 30));
		memcpy(before, model, sizeof(model));
		r = overlay_write(ov, buf, len, off, false, &err);
		error_clear(&err);
		memcpy(model + off, buf, len);
		if (r < 0)
			must(overlay_read(ov, model + off, len, off, &err),
			     err);
		else if (!(i % 4)) /* it may fail as well */
			overlay_flush(ov, &err);
		error_clear(&err);
		if (!memcmp(model + off, buf, len))
			continue;
		for (at = 0; at < len; at++)
			if (model[off + at] != buf[at] &&
			    model[off + at] != before[off + at])
				ck_abort_msg("neither old nor new: byte %u",
					     off + at);
	}
	write_watch(NULL);
	is_as_the_model();
	must(overlay_flush(ov, &err), err);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

static int fail_sync(struct write_watcher *w, const struct write_event *e)
{
	struct failing *f = container_of(w, struct failing, w);

	return e->op == WRITE_SYNC && atomic_fetch_sub(&f->left, 1) == 0
		       ? f->code
		       : 0;
}

/*
 * The kernel tells of it once, and then takes the data for written: nobody
 * may be told of success from then on, and the snapshot is not made.
 */
START_TEST(a_failed_sync_is_for_ever)
{
	struct failing f = { .w = { fail_sync, watch_nothing }, .code = -EIO };
	static uint8_t flushed[DISK_BYTES];
	unsigned int i;
	bool failed = false;
	int r;

	seed = 5 + (unsigned int)_i;
	make(DISK_BYTES, true);
	reopen(0);
	unlink(unit_path("top@late.qcow2"));
	atomic_store(&f.left, _i);
	write_watch(&f.w);
	for (i = 0; i < 20; i++) {
		if (!failed)
			memcpy(flushed, model, DISK_BYTES);
		unit_fill(got, 70000, rnd(1U << 30));
		r = overlay_write(ov, got, 70000, i * 200000, false, &err);
		memcpy(model + i * 200000, got, 70000);
		if (r < 0) {
			/* It needed a sync for the room it takes. */
			ck_assert_int_eq(r, -EIO);
			ck_assert_int_lt(atomic_load(&f.left), 0);
			error_clear(&err);
			must(overlay_read(ov, model + i * 200000, 70000,
					  i * 200000, &err),
			     err);
		}
		if (atomic_load(&f.left) < 0) {
			failed = true;
			ck_assert_int_eq(overlay_flush(ov, &err), -EIO);
			unit_says(&err, "an earlier flush failed");
			error_clear(&err);
			ck_assert_int_eq(
				overlay_write(ov, model, 512, 0, true, &err),
				-EIO);
			error_clear(&err);
		} else if (overlay_flush(ov, &err) < 0) {
			ck_assert_int_eq(err.code, -EIO);
			failed = true;
			error_clear(&err);
		}
	}
	ck_assert(failed);
	/* All that was written can be read, and nothing more kept. */
	is_as_the_model();
	ck_assert_int_eq(overlay_snapshot(ov, "late", &err), -EIO);
	error_clear(&err);
	ck_assert_int_lt(access(unit_path("top@late.qcow2"), F_OK), 0);
	write_watch(NULL);
	ck_assert_int_eq(overlay_flush(ov, &err), -EIO);
	error_clear(&err);
	overlay_unref(TAKE_PTR(ov));
	is_sound(UINT64_MAX);
	reopen(0);
	must(overlay_read(ov, got, DISK_BYTES, 0, &err), err);
	for (i = 0; i < DISK_BYTES; i++)
		if (got[i] != flushed[i] && got[i] != model[i])
			ck_abort_msg("byte %u is neither old nor new", i);
	must(overlay_write(ov, got, 4096, 0, true, &err), err);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

/* ---- power cuts ---- */

/*
 * The disk behind a cache: what is written is kept by sectors until a sync
 * that began after it ends. A cut keeps any of them.
 */
#define CUT_FILE_BYTES (16U << 20)
#define SECTOR	       512U

struct recorded {
	uint64_t off;
	uint64_t len; /* a sector at most; TRUNCATE: 0 */
	uint8_t data[SECTOR];
	bool punch, truncate;
	uint64_t number;
};

struct powered {
	struct write_watcher w;
	pthread_mutex_t lock;
	uint8_t *durable;
	uint64_t durable_bytes;
	struct recorded *log;
	size_t n, room;
	uint64_t n_gone; /* that were in the log */
	bool ends; /* after this many events, of which the cut is one */
	unsigned int left;
};

static void record(struct powered *p, const struct recorded *r)
{
	if (p->n == p->room) {
		p->room = p->room ? 2 * p->room : 4096;
		p->log = realloc(p->log, p->room * sizeof(*p->log));
		ck_assert_ptr_nonnull(p->log);
	}
	p->log[p->n++] = *r;
}

static void apply(struct powered *p, const struct recorded *r)
{
	if (r->truncate) {
		if (r->off < p->durable_bytes)
			memset(p->durable + r->off, 0,
			       p->durable_bytes - r->off);
		p->durable_bytes = r->off;
		return;
	}
	ck_assert_uint_le(r->off + r->len, CUT_FILE_BYTES);
	if (r->punch)
		memset(p->durable + r->off, 0, r->len);
	else
		memcpy(p->durable + r->off, r->data, r->len);
	if (!r->punch && r->off + r->len > p->durable_bytes)
		p->durable_bytes = r->off + r->len;
}

/* What had ended when this thread's sync began. */
static _Thread_local uint64_t synced;

/* The log means nothing after a cut, whatever the disk has of it. */
static bool is_of_the_log(const struct write_event *e)
{
	static const char end[] = ".platter-log";
	char link[32], path[4096];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d",
		 source_file(e->src)->fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	return n > (ssize_t)strlen(end) && !strcmp(path + n - strlen(end), end);
}

static int before(struct write_watcher *w, const struct write_event *e)
{
	struct powered *p = container_of(w, struct powered, w);

	if (e->op != WRITE_SYNC || is_of_the_log(e))
		return 0;
	pthread_mutex_lock(&p->lock);
	synced = p->n_gone + p->n;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* The log up to there is on the disk. */
static void make_durable(struct powered *p, uint64_t end)
{
	size_t i, n = end > p->n_gone ? (size_t)(end - p->n_gone) : 0;

	ck_assert_uint_le(n, p->n);
	for (i = 0; i < n; i++)
		apply(p, &p->log[i]);
	p->n -= n;
	p->n_gone += n;
	memmove(p->log, p->log + n, p->n * sizeof(*p->log));
}

static void after(struct write_watcher *w, const struct write_event *e,
		  int code)
{
	struct powered *p = container_of(w, struct powered, w);
	struct recorded r = { 0 };
	uint64_t at, n;

	if (is_of_the_log(e))
		return;
	pthread_mutex_lock(&p->lock);
	if (p->ends && !p->left) {
		pthread_mutex_unlock(&p->lock);
		return;
	}
	p->left -= p->ends;
	switch (e->op) {
	case WRITE_DATA:
		for (at = 0; at < e->len; at += n) {
			n = min_u64(e->len - at,
				    SECTOR - (e->off + at) % SECTOR);
			r.off = e->off + at;
			r.len = n;
			memcpy(r.data, (const uint8_t *)e->buf + at, n);
			record(p, &r);
		}
		break;
	case WRITE_PUNCH:
		for (at = 0; at < e->len; at += SECTOR) {
			r = (struct recorded){ .off = e->off + at,
					       .len = SECTOR,
					       .punch = true };
			record(p, &r);
		}
		break;
	case WRITE_ZERO: /* of devices only */
	case WRITE_ALLOCATE: /* changes nothing */
		break;
	case WRITE_TRUNCATE:
		r.truncate = true;
		r.off = e->off;
		record(p, &r);
		break;
	case WRITE_SYNC:
		if (!code)
			make_durable(p, synced);
		break;
	}
	pthread_mutex_unlock(&p->lock);
}

/*
 * The file after a cut: what is durable, and of the rest every sector that a
 * coin says (0: none, 1: all), the last of each place or an earlier one.
 */
static void write_cut(struct powered *p, unsigned int coin)
{
	struct powered cut = { .durable = calloc(1, CUT_FILE_BYTES),
			       .durable_bytes = p->durable_bytes };
	size_t i;

	ck_assert_ptr_nonnull(cut.durable);
	memcpy(cut.durable, p->durable, p->durable_bytes);
	for (i = 0; i < p->n; i++)
		if (coin == 1 || (coin > 1 && !rnd(coin)))
			apply(&cut, &p->log[i]);
	unlink(top());
	unit_write(top(), cut.durable, cut.durable_bytes);
	free(cut.durable);
}

static void read_durable(struct powered *p)
{
	int fd = open(top(), O_RDONLY | O_CLOEXEC);
	ssize_t n = pread(fd, p->durable, CUT_FILE_BYTES, 0);

	ck_assert_int_ge(n, 0);
	p->durable_bytes = (uint64_t)n;
	close(fd);
}

/* What was there for a while since the last flush. */
struct version {
	uint32_t off, len;
	uint8_t *data;
};

static struct version versions[256];
static size_t n_versions;

static void forget_versions(void)
{
	while (n_versions)
		free(versions[--n_versions].data);
}

static void keep_version(uint32_t off, uint32_t len)
{
	struct version *v = &versions[n_versions++];

	ck_assert_uint_le(n_versions, ARRAY_SIZE(versions));
	*v = (struct version){ off, len, malloc(len) };
	ck_assert_ptr_nonnull(v->data);
	memcpy(v->data, model + off, len);
}

/* Bytes that never were what they are now: torn. */
static void is_old_or_new(const uint8_t *flushed, unsigned int round)
{
	static bool known[DISK_BYTES];
	uint32_t i, k;

	for (i = 0; i < DISK_BYTES; i++)
		known[i] = got[i] == flushed[i];
	for (i = 0; i < n_versions; i++) {
		const struct version *v = &versions[i];

		for (k = 0; k < v->len; k++)
			if (got[v->off + k] == v->data[k])
				known[v->off + k] = true;
	}
	for (i = 0; i < DISK_BYTES; i++)
		if (!known[i])
			ck_abort_msg("round %u: byte %u is neither old nor new",
				     round, i);
}

/* Every byte is what it was at the last flush, or what came after. */
static void cut_is_sound(const uint8_t *flushed, const uint8_t *touched,
			 unsigned int round)
{
	size_t i;

	is_sound(UINT64_MAX);
	reopen(0);
	must(overlay_read(ov, got, DISK_BYTES, 0, &err), err);
	for (i = 0; i < DISK_BYTES; i++)
		if (got[i] != flushed[i] && !touched[i / SECTOR])
			ck_abort_msg("round %u: byte %zu was flushed and lost",
				     round, i);
	is_old_or_new(flushed, round);
	forget_versions();
	/* And it goes on from there. */
	must(overlay_write(ov, got, 4096, 8192, true, &err), err);
	overlay_unref(TAKE_PTR(ov));
	/* What leaked was given back. */
	is_sound(0);
}

/* The kernel that starts afterwards. */
static void boot(void)
{
	static uint8_t id[BOOT_ID_BYTES] = { 1 };

	id[1] = (uint8_t)(id[1] + 1 ? id[1] + 1 : 1);
	boot_id_fake(id);
}

/* Ends a round, of which ten share a file. */
static void cut_power(struct powered *p, const uint8_t *flushed,
		      const uint8_t *touched, unsigned int round)
{
	bool has_log;

	write_watch(NULL);
	has_log = !link(unit_path("top.qcow2.platter-log"), unit_path("log"));
	overlay_unref(TAKE_PTR(ov));
	write_cut(p, rnd(4));
	if (has_log)
		ck_assert_int_eq(rename(unit_path("log"),
					unit_path("top.qcow2.platter-log")),
				 0);
	boot();
	cut_is_sound(flushed, touched, round);
	if (round % 10 == 9)
		image_unref(TAKE_PTR(base));
}

static void write_some(uint8_t *touched, uint8_t *flushed)
{
	static uint8_t buf[200000];
	uint32_t off, len;
	unsigned int i, n = rnd(12);

	for (i = 0; i < n; i++) {
		pick_range(&off, &len, 60000);
		if (len > sizeof(buf))
			len = sizeof(buf);
		unit_fill(buf, len, rnd(1U << 30));
		memset(touched + off / SECTOR, 1,
		       (off + len - 1) / SECTOR - off / SECTOR + 1);
		switch (rnd(6)) {
		case 0:
			memset(buf, 0, len);
			must(overlay_zero(ov, off, len, OVERLAY_MAY_TRIM, &err),
			     err);
			break;
		case 1: /* less than it says, perhaps */
			must(overlay_trim(ov, off, len, false, &err), err);
			must(overlay_read(ov, buf, len, off, &err), err);
			break;
		default:
			must(overlay_write(ov, buf, len, off, false, &err),
			     err);
		}
		memcpy(model + off, buf, len);
		keep_version(off, len);
		if (!rnd(3)) {
			must(overlay_flush(ov, &err), err);
			memcpy(flushed, model, DISK_BYTES);
			memset(touched, 0, DISK_BYTES / SECTOR + 1);
			forget_versions();
		}
	}
}

START_TEST(a_power_cut_loses_nothing_that_was_flushed)
{
	static uint8_t flushed[DISK_BYTES], touched[DISK_BYTES / SECTOR + 1];
	struct powered p = { .w = { before, after },
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .durable = calloc(1, CUT_FILE_BYTES) };
	unsigned int cuts = unit_rounds(40), i;

	ck_assert_ptr_nonnull(p.durable);
	seed = 815 + (unsigned int)_i;
	for (i = 0; i < cuts; i++) {
		if (i % 10 == 0)
			make(DISK_BYTES, true);
		read_durable(&p);
		p.n = 0;
		reopen(0);
		must(overlay_read(ov, model, DISK_BYTES, 0, &err), err);
		memcpy(flushed, model, DISK_BYTES);
		memset(touched, 0, sizeof(touched));
		write_watch(&p.w);
		write_some(touched, flushed);
		/* At times, in the middle of a close. */
		if (!rnd(4)) {
			must(overlay_flush(ov, &err), err);
			memcpy(flushed, model, DISK_BYTES);
			memset(touched, 0, sizeof(touched));
			forget_versions();
			overlay_unref(TAKE_PTR(ov));
		}
		cut_power(&p, flushed, touched, i);
	}
	free(p.log);
	free(p.durable);
	done();
}
END_TEST

/* Pages that a thread has for itself; their neighbours are others'. */
#define PAGE 4096U

static struct powered *cutting;
static uint8_t cut_flushed[DISK_BYTES], cut_touched[DISK_BYTES / SECTOR + 1];

static bool power_is_gone(void)
{
	bool gone;

	pthread_mutex_lock(&cutting->lock);
	gone = !cutting->left;
	pthread_mutex_unlock(&cutting->lock);
	return gone;
}

/* Under @cutting's lock, as others do it too. */
static void going_to_be(uint32_t off, uint32_t len, const uint8_t *data)
{
	pthread_mutex_lock(&cutting->lock);
	memcpy(model + off, data, len);
	keep_version(off, len);
	memset(cut_touched + off / SECTOR, 1,
	       (off + len - 1) / SECTOR - off / SECTOR + 1);
	pthread_mutex_unlock(&cutting->lock);
}

/* The flush has ended; before the power went? Then its pages are there. */
static void is_flushed(const uint32_t *pages, unsigned int n)
{
	unsigned int i;

	pthread_mutex_lock(&cutting->lock);
	for (i = 0; i < n && cutting->left; i++) {
		memcpy(cut_flushed + pages[i], model + pages[i], PAGE);
		memset(cut_touched + pages[i] / SECTOR, 0, PAGE / SECTOR);
	}
	pthread_mutex_unlock(&cutting->lock);
}

static void write_until_cut(unsigned int number)
{
	unsigned int i, n = 0, s = seed + 7919 * number;
	uint32_t pages[8], page, off, len;
	static _Thread_local uint8_t buf[PAGE];
	struct error e = { 0 };

	for (i = 0; i < 60 && !power_is_gone(); i++) {
		s = s * 1664525U + 1013904223U;
		page = (s >> 8) % (DISK_BYTES / PAGE / THREADS) * THREADS +
		       number;
		page = page % (8 * THREADS) * PAGE; /* much shared */
		off = (s >> 3) % 3 ? 0 : (s >> 5) % (PAGE - 700);
		len = off ? 700 : PAGE;
		pages[n++] = page;
		memset(buf, s % 5 ? (int)(s >> 24) : 0, len);
		going_to_be(page + off, len, buf);
		if (s % 5)
			must(overlay_write(ov, buf, len, page + off, false, &e),
			     e);
		else
			must(overlay_zero(ov, page + off, len, OVERLAY_MAY_TRIM,
					  &e),
			     e);
		if (n == ARRAY_SIZE(pages) || s % 7 == 0) {
			must(overlay_flush(ov, &e), e);
			is_flushed(pages, n);
			n = 0;
		}
	}
}

/* The power goes at any write of any thread. */
START_TEST(a_power_cut_under_load_loses_nothing_that_was_flushed)
{
	struct powered p = { .w = { before, after },
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .durable = calloc(1, CUT_FILE_BYTES),
			     .ends = true };
	unsigned int cuts = unit_rounds(20), i;

	ck_assert_ptr_nonnull(p.durable);
	cutting = &p;
	seed = 1815 + (unsigned int)_i;
	for (i = 0; i < cuts; i++) {
		if (i % 10 == 0)
			make(DISK_BYTES, true);
		reopen(0);
		must(overlay_read(ov, model, DISK_BYTES, 0, &err), err);
		memcpy(cut_flushed, model, DISK_BYTES);
		memset(cut_touched, 0, sizeof(cut_touched));
		/* What a change of its size says is durable is so by now. */
		must(overlay_flush(ov, &err), err);
		read_durable(&p);
		p.n = 0;
		p.left = 1 + rnd(250);
		write_watch(&p.w);
		unit_threads(THREADS, write_until_cut);
		cut_power(&p, cut_flushed, cut_touched, i);
	}
	free(p.log);
	free(p.durable);
	done();
}
END_TEST

/* At any moment the file leads to the snapshot, which is still there, or not. */
START_TEST(a_power_cut_in_a_merge_harms_nothing)
{
	struct powered p = { .w = { before, after },
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .durable = calloc(1, CUT_FILE_BYTES) };
	uint64_t last;
	unsigned int cuts = unit_rounds(40), i, k;

	ck_assert_ptr_nonnull(p.durable);
	seed = 31 + (unsigned int)_i;
	for (i = 0; i < cuts; i++) {
		unlink(unit_path("top@cut.qcow2"));
		unlink(unit_path("kept.qcow2"));
		make(DISK_BYTES, true);
		reopen(0);
		for (k = 0; k < 10; k++)
			step();
		must(overlay_snapshot(ov, "cut", &err), err);
		ck_assert_int_eq(link(unit_path("top@cut.qcow2"),
				      unit_path("kept.qcow2")),
				 0);
		for (k = 0; k < 10; k++)
			step();
		must(overlay_flush(ov, &err), err);
		read_durable(&p);
		p.n = 0;
		p.ends = true;
		p.left = rnd(40);
		write_watch(&p.w);
		last = 0;
		must(overlay_delete(ov, "cut", go_on, &last, &err), err);
		write_watch(NULL);
		overlay_unref(TAKE_PTR(ov));
		write_cut(&p, rnd(4));
		boot();
		/* It was there when the cut came, if that was in the middle. */
		if (!p.left)
			ck_assert_int_eq(rename(unit_path("kept.qcow2"),
						unit_path("top@cut.qcow2")),
					 0);
		is_sound(UINT64_MAX);
		reopen(0);
		is_as_the_model();
		if (!p.left)
			delete_snapshot("cut");
		is_as_the_model();
		overlay_unref(TAKE_PTR(ov));
		is_sound(UINT64_MAX);
		image_unref(TAKE_PTR(base));
	}
	free(p.log);
	free(p.durable);
	done();
}
END_TEST

static void drain_nobody(void *opaque, uint64_t epoch)
{
	uint64_t *seen = opaque;

	/* Lower ones are refused before those under way are waited for. */
	ck_assert_uint_eq(overlay_epoch(ov), epoch);
	ck_assert(!overlay_has_epoch(ov, epoch));
	*seen = epoch;
}

static int fence(uint64_t epoch)
{
	uint64_t seen = 0;
	int r = overlay_fence(ov, epoch, drain_nobody, &seen, &err);

	if (!r && seen)
		ck_assert_uint_eq(seen, epoch);
	return r;
}

START_TEST(an_epoch_rises_alone_and_stays_with_the_disk)
{
	make(DISK_BYTES, true);
	reopen(0);
	ck_assert_uint_eq(overlay_epoch(ov), 0);
	/* What the header is written for names the base that it has by now. */
	must(overlay_snapshot(ov, "s", &err), err);
	delete_snapshot("s");
	must(fence(3), err);
	must(fence(3), err);
	ck_assert_int_eq(fence(2), -ESTALE);
	unit_says(&err, "epoch 2 is over: the overlay is at 3");
	error_clear(&err);
	must(overlay_snapshot(ov, "s", &err), err);
	must(overlay_revert(ov, "s", false, &err), err);
	delete_snapshot("s");
	must(fence(4), err);
	must(overlay_resize(ov, DISK_BYTES + 4096, &err), err);
	must(overlay_empty(ov, &err), err);
	overlay_unref(TAKE_PTR(ov));
	reopen(0);
	ck_assert_uint_eq(overlay_epoch(ov), 4);
	ck_assert(overlay_has_epoch(ov, 4));
	done();
}
END_TEST

/* At any moment it is at the old one or the new, and the disk is whole. */
START_TEST(a_power_cut_in_a_fence_harms_nothing)
{
	struct powered p = { .w = { before, after },
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .durable = calloc(1, CUT_FILE_BYTES) };
	uint64_t was = 0, epoch = 0;
	unsigned int i, k;

	ck_assert_ptr_nonnull(p.durable);
	seed = 77;
	for (i = 0; i < unit_rounds(40); i++) {
		if (i % 10 == 0)
			make(DISK_BYTES, true);
		reopen(0);
		for (k = 0; k < 5; k++)
			step();
		must(overlay_flush(ov, &err), err);
		was = overlay_epoch(ov);
		epoch = was + 1;
		read_durable(&p);
		p.n = 0;
		p.ends = true;
		p.left = rnd(12);
		write_watch(&p.w);
		must(fence(epoch), err);
		write_watch(NULL);
		overlay_unref(TAKE_PTR(ov));
		write_cut(&p, rnd(4));
		boot();
		is_sound(UINT64_MAX);
		reopen(0);
		if (overlay_epoch(ov) != was || p.left)
			ck_assert_uint_eq(overlay_epoch(ov), epoch);
		is_as_the_model();
		overlay_unref(TAKE_PTR(ov));
		if (i % 10 == 9)
			image_unref(TAKE_PTR(base));
	}
	free(p.log);
	free(p.durable);
	done();
}
END_TEST

/* Over far.raw, the model, until it is whole, and over base.raw then. */
static void make_pulled(bool held)
{
	const struct overlay_new n = { .bytes = DISK_BYTES,
				       .base_name = "far.raw",
				       .base_format = "raw",
				       .pulling = true,
				       .pull_held = held };

	open_base();
	unit_fill(model, sizeof(model), 99);
	memset(model + 1000000, 0, 1500000);
	unit_write(unit_path("far.raw"), model, sizeof(model));
	unlink(top());
	must(overlay_create(top(), &n, &err), err);
}

static int pull(int (*progress)(void *opaque, uint64_t done_bytes),
		void *opaque)
{
	const struct overlay_pull_to to = { base, "base.raw", "raw", false };

	return overlay_pull(ov, &to, progress, opaque, &err);
}

static int pull_whole(void)
{
	uint64_t last = 0;

	return pull(go_on, &last);
}

START_TEST(what_was_pulled_needs_its_source_no_more)
{
	unsigned int left = 3, k;

	seed = 5;
	make_pulled(true);
	reopen(0);
	ck_assert_int_eq(overlay_read(ov, got, 512, 0, &err), -EBUSY);
	unit_says(&err, "another server's disk still");
	error_clear(&err);
	ck_assert_int_eq(overlay_write(ov, got, 512, 0, false, &err), -EBUSY);
	error_clear(&err);
	ck_assert_int_eq(overlay_snapshot(ov, "s", &err), -EBUSY);
	error_clear(&err);
	/* It begins, and is given up. */
	ck_assert_int_eq(pull(give_up, &left), -EINTR);
	error_clear(&err);
	for (k = 0; k < 10; k++)
		step();
	is_as_the_model();
	overlay_unref(TAKE_PTR(ov));
	reopen(0);
	ck_assert(overlay_is_pulled(ov));
	must(pull_whole(), err);
	ck_assert(!overlay_is_pulled(ov));
	ck_assert_int_eq(pull_whole(), -EINVAL);
	error_clear(&err);
	unlink(unit_path("far.raw"));
	for (k = 0; k < 10; k++)
		step();
	is_as_the_model();
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	reopen(0);
	is_as_the_model();
	done();
}
END_TEST

START_TEST(what_was_read_of_a_pull_is_not_fetched_again)
{
	static uint8_t other[DISK_BYTES];
	const size_t from = 171 * 4096, to = 732 * 4096;

	make_pulled(false);
	reopen(0);
	must(overlay_read(ov, got, to - from, from, &err), err);
	ck_assert_mem_eq(got, model + from, to - from);
	/* What is changed afar shows where nobody has read, and there alone. */
	memset(other, 0xee, sizeof(other));
	unit_write(unit_path("far.raw"), other, sizeof(other));
	must(overlay_read(ov, got, DISK_BYTES, 0, &err), err);
	ck_assert_mem_eq(got + from, model + from, to - from);
	ck_assert_mem_eq(got, other, from);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

/* At any moment the file leads to what is afar, or has all of it. */
START_TEST(a_power_cut_in_a_pull_harms_nothing)
{
	struct powered p = { .w = { before, after },
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .durable = calloc(1, CUT_FILE_BYTES) };
	unsigned int i, k;

	ck_assert_ptr_nonnull(p.durable);
	seed = 41;
	for (i = 0; i < unit_rounds(40); i++) {
		make_pulled(i % 2);
		reopen(0);
		if (i % 2 == 0)
			for (k = 0; k < 5; k++)
				step();
		must(overlay_flush(ov, &err), err);
		read_durable(&p);
		p.n = 0;
		p.ends = true;
		p.left = rnd(60);
		write_watch(&p.w);
		must(pull_whole(), err);
		write_watch(NULL);
		overlay_unref(TAKE_PTR(ov));
		write_cut(&p, rnd(4));
		boot();
		is_sound(UINT64_MAX);
		reopen(0);
		if (overlay_is_pulled(ov))
			must(pull_whole(), err);
		is_as_the_model();
		overlay_unref(TAKE_PTR(ov));
		is_sound(UINT64_MAX);
		image_unref(TAKE_PTR(base));
	}
	free(p.log);
	free(p.durable);
	done();
}
END_TEST

static void add(TCase *tc)
{
	tcase_set_timeout(tc, 1200);
	LOOP(tc, reads_what_the_model_has_after_any_steps, kinds);
	tcase_add_test(tc, neighbours_written_by_many_threads_keep_their_bytes);
	tcase_add_test(tc, trimmed_room_goes_back_and_the_file_shrinks);
	tcase_add_test(tc, a_page_costs_a_page_of_room);
	tcase_add_test(tc,
		       a_quota_is_kept_and_costs_only_the_write_that_meets_it);
	tcase_add_test(tc, two_writers_do_not_meet);
	tcase_add_test(tc, an_overlay_of_another_image_is_refused);
	tcase_add_loop_test(tc, metadata_are_not_written_as_data, 0, 10);
	tcase_add_test(tc, a_temporary_one_is_gone_at_once);
	tcase_add_loop_test(tc, snapshots_stay_as_they_were, 0, 2);
	tcase_add_test(tc, snapshots_under_load_lose_nothing);
	tcase_add_loop_test(tc, a_deleted_snapshot_takes_nothing_along, 0, 18);
	tcase_add_loop_test(tc, a_revert_goes_back_to_any_snapshot, 0, 3);
	tcase_add_test(tc, a_revert_makes_the_disk_as_long_as_it_was);
	tcase_add_loop_test(tc, deleting_under_load_loses_nothing, 0, 2);
	tcase_add_test(tc, a_disk_grows_by_zeroes);
	tcase_add_loop_test(tc, a_power_cut_in_a_merge_harms_nothing, 0, 2);
	tcase_add_test(tc, an_epoch_rises_alone_and_stays_with_the_disk);
	tcase_add_test(tc, a_power_cut_in_a_fence_harms_nothing);
	tcase_add_test(tc, what_was_pulled_needs_its_source_no_more);
	tcase_add_test(tc, what_was_read_of_a_pull_is_not_fetched_again);
	tcase_add_test(tc, a_power_cut_in_a_pull_harms_nothing);
	tcase_add_loop_test(tc, a_failed_sync_is_for_ever, 0, 6);
	tcase_add_loop_test(
		tc, a_power_cut_under_load_loses_nothing_that_was_flushed, 0,
		3);
	tcase_add_loop_test(tc, a_failing_write_fails_alone, 0, 24);
	tcase_add_loop_test(tc, a_power_cut_loses_nothing_that_was_flushed, 0,
			    3);
}

int main(void)
{
	return unit_main("overlay", add);
}
