/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "iouring/source.h"
#include "iouring/sources/pieces.h"
#include "tests/lib/unit.h"

#define BYTES (256U << 10)

static uint8_t data[BYTES], got[BYTES];
static struct error err;

static struct source *memory(size_t bytes)
{
	struct source *s = NULL;

	unit_fill(data, sizeof(data), 1);
	must(memory_source_new(data, bytes, &s, &err), err);
	return s;
}

static struct source *file(const char *name)
{
	struct source *s = NULL;

	unit_fill(data, sizeof(data), 1);
	unit_write(unit_path("%s", name), data, sizeof(data));
	must(file_source_open(unit_path("%s", name), 0, &s, &err), err);
	return s;
}

START_TEST(memory_is_read_as_it_is)
{
	CLEANUP(source_unrefp) struct source *s = memory(1000);

	ck_assert_uint_eq(s->bytes, 1000);
	must(source_read(s, got, 1000, 0, &err), err);
	ck_assert_mem_eq(got, data, 1000);
	must(source_read(s, got, 1, 999, &err), err);
	ck_assert_uint_eq(got[0], data[999]);
	must(source_read(s, got, 0, 1000, &err), err);
}
END_TEST

static const struct {
	uint64_t off;
	size_t len;
} outside[] = {
	{ 0, 1001 },	   { 1000, 1 },		  { 999, 2 },	   { 1001, 0 },
	{ UINT64_MAX, 1 }, { UINT64_MAX - 1, 2 }, { 1, SIZE_MAX },
};

START_TEST(a_range_that_is_not_inside_is_refused)
{
	CLEANUP(source_unrefp) struct source *s = memory(1000);
	struct source *w = NULL;

	ck_assert_int_eq(
		source_read(s, got, outside[_i].len, outside[_i].off, &err),
		-EBADMSG);
	unit_says(&err, "1000 bytes");
	error_clear(&err);
	ck_assert_int_eq(window_source_new(s, outside[_i].off, outside[_i].len,
					   &w, &err),
			 -EBADMSG);
	ck_assert_ptr_null(w);
}
END_TEST

START_TEST(a_file_is_read_as_it_is)
{
	CLEANUP(source_unrefp) struct source *s = file("f");

	ck_assert_uint_eq(s->bytes, BYTES);
	ck_assert_ptr_nonnull(source_file(s));
	must(source_read(s, got, BYTES, 0, &err), err);
	ck_assert_mem_eq(got, data, BYTES);
	must(source_read(s, got, 77, BYTES - 77, &err), err);
	ck_assert_mem_eq(got, data + BYTES - 77, 77);
}
END_TEST

START_TEST(a_window_begins_where_it_says)
{
	CLEANUP(source_unrefp)
	struct source *s = _i ? file("w") : memory(BYTES);
	CLEANUP(source_unrefp) struct source *w = NULL;
	CLEANUP(source_unrefp) struct source *ww = NULL;

	must(window_source_new(s, 1001, 5000, &w, &err), err);
	must(window_source_new(w, 17, 4983, &ww, &err), err);
	must(source_read(w, got, 5000, 0, &err), err);
	ck_assert_mem_eq(got, data + 1001, 5000);
	must(source_read(ww, got, 4983, 0, &err), err);
	ck_assert_mem_eq(got, data + 1018, 4983);
	ck_assert_int_eq(source_read(ww, got, 1, 4983, NULL), -EBADMSG);
	ck_assert_int_eq(window_source_new(w, 17, 4984, &ww, NULL), -EBADMSG);
	ck_assert_uint_ne(w->id, s->id);
	ck_assert_uint_ne(w->id, ww->id);
}
END_TEST

START_TEST(pieces_are_one_and_zeroes_between)
{
	CLEANUP(source_unrefp) struct source *s = file("pieces"), *p = NULL;
	const struct piece all[] = { { 100, 50, s, 1000 },
				     { 150, 0, s, 0 },
				     { 150, 10, s, 7 },
				     { 4000, 96, s, BYTES - 96 } };
	static uint8_t want[4200];
	uint64_t len;
	bool hole;

	must(pieces_source_new(all, 4, sizeof(want), &p, &err), err);
	memcpy(want + 100, data + 1000, 50);
	memcpy(want + 150, data + 7, 10);
	memcpy(want + 4000, data + BYTES - 96, 96);
	must(source_read(p, got, sizeof(want), 0, &err), err);
	ck_assert_mem_eq(got, want, sizeof(want));
	must(source_read(p, got, 80, 120, &err), err);
	ck_assert_mem_eq(got, want + 120, 80);
	ck_assert_int_eq(source_find_hole(p, 160, 4040, &hole, &len), 0);
	ck_assert(hole && len == 4000 - 160);
	ck_assert_int_eq(source_find_hole(p, 149, 4000, &hole, &len), 0);
	ck_assert(!hole && len == 1);
	ck_assert_int_eq(source_find_hole(p, 4096, 104, &hole, &len), 0);
	ck_assert(hole && len == 104);
}
END_TEST

START_TEST(pieces_that_contradict_are_refused)
{
	static const struct {
		uint64_t at, len, off;
	} second[] = {
		{ 149, 2, 0 }, /* in the first */
		{ 99, 1, 0 }, /* before it */
		{ 990, 11, 0 }, /* behind the end */
		{ UINT64_MAX, 2, 0 },
		{ 200, 1, BYTES }, /* behind its source's */
		{ 200, 2, UINT64_MAX },
	};
	CLEANUP(source_unrefp) struct source *s = file("wrong");
	struct source *p = NULL;
	struct piece all[2] = { { 100, 50, s, 0 } };

	all[1] = (struct piece){ second[_i].at, second[_i].len, s,
				 second[_i].off };
	ck_assert_int_eq(pieces_source_new(all, 2, 1000, &p, &err), -EBADMSG);
	ck_assert_ptr_null(p);
	unit_says(&err, "are no piece of 1000");
}
END_TEST

START_TEST(a_window_keeps_its_parent)
{
	struct source *s = file("k"), *w = NULL;

	must(window_source_new(s, 10, 10, &w, &err), err);
	source_unref(s);
	must(source_read(w, got, 10, 0, &err), err);
	ck_assert_mem_eq(got, data + 10, 10);
	source_unref(w);
	source_unref(NULL);
}
END_TEST

/* 64 KiB of data, 64 KiB of hole, data, hole to the end at 250 KiB. */
static struct source *sparse(void)
{
	const char *path = unit_path("sparse");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct source *s = NULL;

	unit_fill(data, sizeof(data), 3);
	ck_assert_int_eq(ftruncate(fd, 250 << 10), 0);
	ck_assert_int_eq(pwrite(fd, data, 64 << 10, 0), 64 << 10);
	ck_assert_int_eq(pwrite(fd, data, 64 << 10, 128 << 10), 64 << 10);
	ck_assert_int_eq(fsync(fd), 0);
	close(fd);
	must(file_source_open(path, 0, &s, &err), err);
	return s;
}

static const struct {
	uint64_t off, len;
	bool hole;
	uint64_t ret_len;
} holes[] = {
	{ 0, 250 << 10, false, 64 << 10 },
	{ 0, 100, false, 100 },
	{ (64 << 10) - 1, 2, false, 1 },
	{ 64 << 10, 250 - 64, true, 250 - 64 },
	{ 64 << 10, 180 << 10, true, 64 << 10 },
	{ 100 << 10, 100 << 10, true, 28 << 10 },
	{ 128 << 10, 122 << 10, false, 64 << 10 },
	{ 192 << 10, 58 << 10, true, 58 << 10 },
	{ (250 << 10) - 1, 1, true, 1 },
};

START_TEST(holes_are_found_from_either_side)
{
	CLEANUP(source_unrefp) struct source *s = sparse();
	CLEANUP(source_unrefp) struct source *w = NULL;
	uint64_t len;
	bool hole;
	size_t i, n = ARRAY_SIZE(holes);

	/* In order and backwards: an answer must not depend on the last. */
	for (i = 0; i < 2 * n; i++) {
		size_t k = i < n ? i : 2 * n - 1 - i;

		ck_assert_int_eq(source_find_hole(s, holes[k].off, holes[k].len,
						  &hole, &len),
				 0);
		ck_assert_msg(hole == holes[k].hole && len == holes[k].ret_len,
			      "row %zu: hole %d of %lu", k, hole,
			      (unsigned long)len);
	}
	must(window_source_new(s, 60 << 10, 100 << 10, &w, &err), err);
	ck_assert_int_eq(source_find_hole(w, 0, 100 << 10, &hole, &len), 0);
	ck_assert(!hole && len == 4 << 10);
	ck_assert_int_eq(source_find_hole(w, 5 << 10, 95 << 10, &hole, &len),
			 0);
	ck_assert(hole && len == 63 << 10);
}
END_TEST

START_TEST(what_has_no_holes_is_all_data)
{
	CLEANUP(source_unrefp)
	struct source *s = _i ? file("d") : memory(BYTES);
	uint64_t len = 0;
	bool hole = true;

	ck_assert_int_eq(source_find_hole(s, 5, BYTES - 5, &hole, &len), 0);
	ck_assert(!hole && len == BYTES - 5);
	source_prefetch(s, 0, BYTES);
}
END_TEST

START_TEST(a_file_is_the_same_by_any_name_and_until_it_is_written)
{
	CLEANUP(source_unrefp) struct source *s = file("one");
	CLEANUP(source_unrefp) struct source *other = file("other");
	CLEANUP(source_unrefp) struct source *m = memory(BYTES);
	CLEANUP(source_unrefp) struct source *again = NULL;
	CLEANUP(source_unrefp) struct source *w = NULL;
	struct source_identity a, b;
	struct stat st;

	ck_assert_int_eq(link(unit_path("one"), unit_path("hard")), 0);
	must(file_source_open(unit_path("hard"), 0, &again, &err), err);
	must(window_source_new(again, 4097, 5000, &w, &err), err);
	source_identity(s, &a);
	ck_assert_uint_eq(a.bytes, BYTES);
	source_identity(again, &b);
	ck_assert(identity_is_same(&a, &b) && identity_is_unchanged(&a, &b));
	source_identity(w, &b);
	ck_assert(identity_is_same(&a, &b) && identity_is_unchanged(&a, &b));
	source_identity(other, &b);
	ck_assert(!identity_is_same(&a, &b) && !identity_is_unchanged(&a, &b));
	source_identity(m, &b);
	ck_assert(!identity_is_same(&a, &b) && !identity_is_same(&b, &b));
	ck_assert_int_eq(stat(unit_path("one"), &st), 0);
	ck_assert(identity_is_file(&a, &st) && !identity_is_file(&b, &st));
	/* One byte more; and the time alone. */
	ck_assert_int_eq(truncate(unit_path("one"), BYTES + 1), 0);
	source_identity(s, &b);
	ck_assert(identity_is_same(&a, &b) && !identity_is_unchanged(&a, &b));
	ck_assert_int_eq(truncate(unit_path("one"), BYTES), 0);
	ck_assert_int_eq(utimensat(AT_FDCWD, unit_path("one"),
				   (struct timespec[]){ { 1, 0 }, { 1, 0 } },
				   0),
			 0);
	source_identity(s, &b);
	ck_assert(identity_is_same(&a, &b) && !identity_is_unchanged(&a, &b));
}
END_TEST

static const struct {
	struct source_identity a, b;
	bool same, unchanged;
} identities[] = {
	{ { .kind = SOURCE_EXPORT, .name = "nbd://h/a" },
	  { .kind = SOURCE_EXPORT, .name = "nbd://h/a" },
	  true,
	  true },
	{ { .kind = SOURCE_EXPORT, .name = "nbd://h/a" },
	  { .kind = SOURCE_EXPORT, .name = "nbd://h/b" },
	  false,
	  false },
	{ { .kind = SOURCE_EXPORT, .name = "nbd://h/a" },
	  { .kind = SOURCE_OBJECT, .name = "nbd://h/a" },
	  false,
	  false },
	{ { .kind = SOURCE_OBJECT, .name = "u", .version = "1" },
	  { .kind = SOURCE_OBJECT, .name = "u", .version = "1" },
	  true,
	  true },
	{ { .kind = SOURCE_OBJECT, .name = "u", .version = "1" },
	  { .kind = SOURCE_OBJECT, .name = "u", .version = "2" },
	  true,
	  false },
	{ { .kind = SOURCE_OBJECT, .name = "u", .version = "1" },
	  { .kind = SOURCE_OBJECT, .name = "u" },
	  true,
	  false },
	{ { .kind = SOURCE_OBJECT, .name = "u", .bytes = 1 },
	  { .kind = SOURCE_OBJECT, .name = "u", .bytes = 2 },
	  true,
	  false },
	{ { .kind = SOURCE_FILE, .dev = 1, .ino = 2 },
	  { .kind = SOURCE_FILE, .dev = 1, .ino = 3 },
	  false,
	  false },
	{ { .kind = SOURCE_FILE, .dev = 1, .ino = 2 },
	  { .kind = SOURCE_FILE, .dev = 2, .ino = 2 },
	  false,
	  false },
};

START_TEST(what_is_elsewhere_is_known_by_its_name_and_version)
{
	const struct source_identity *a = &identities[_i].a;
	const struct source_identity *b = &identities[_i].b;

	ck_assert_int_eq(identity_is_same(a, b), identities[_i].same);
	ck_assert_int_eq(identity_is_same(b, a), identities[_i].same);
	ck_assert_int_eq(identity_is_unchanged(a, b), identities[_i].unchanged);
	ck_assert_int_eq(identity_is_unchanged(b, a), identities[_i].unchanged);
}
END_TEST

static void make_socket(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
}

START_TEST(only_files_are_sources_and_nothing_waits)
{
	const char *fifo = unit_path("fifo"), *dir = unit_path("dir");
	const char *sock = unit_path("sock");
	unsigned int before = unit_open_fds();
	struct source *s = NULL;

	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	make_socket(sock);
	ck_assert_int_eq(file_source_open(fifo, 0, &s, &err), -EPERM);
	unit_says(&err, "not a regular file");
	error_clear(&err);
	ck_assert_int_eq(file_source_open(fifo, FILE_BLOCK_DEVICE, &s, NULL),
			 -EPERM);
	ck_assert_int_eq(file_source_open(dir, 0, &s, &err), -EISDIR);
	unit_says(&err, "folder");
	ck_assert_int_eq(file_source_open("/dev/zero", 0, &s, NULL), -EPERM);
	ck_assert_int_eq(
		file_source_open("/dev/zero", FILE_BLOCK_DEVICE, &s, NULL),
		-EPERM);
	ck_assert_int_lt(file_source_open(sock, 0, &s, NULL), 0);
	ck_assert_int_eq(file_source_open(unit_path("none"), 0, &s, NULL),
			 -ENOENT);
	ck_assert_ptr_null(s);
	/* What was refused has been closed. */
	ck_assert_uint_eq(unit_open_fds(), before);
}
END_TEST

START_TEST(links_are_followed)
{
	struct source *s = file("target");

	source_unref(s);
	ck_assert_int_eq(symlink("target", unit_path("link")), 0);
	must(file_source_open(unit_path("link"), 0, &s, &err), err);
	ck_assert_uint_eq(s->bytes, BYTES);
	source_unref(s);
}
END_TEST

START_TEST(a_file_system_without_o_direct_is_told_of)
{
	struct source *s = NULL;

	/* proc files are regular ones, and never take O_DIRECT. */
	ck_assert_int_eq(
		file_source_open("/proc/self/status", FILE_DIRECT, &s, &err),
		-ENOTSUP);
	unit_says(&err, "O_DIRECT");
	unit_says(&err, "direct=true");
}
END_TEST

START_TEST(an_empty_file_has_nothing_to_read)
{
	CLEANUP(source_unrefp) struct source *s = NULL;

	unit_write(unit_path("empty"), "", 0);
	must(file_source_open(unit_path("empty"), 0, &s, &err), err);
	ck_assert_uint_eq(s->bytes, 0);
	must(source_read(s, got, 0, 0, &err), err);
	ck_assert_int_eq(source_read(s, got, 1, 0, &err), -EBADMSG);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, memory_is_read_as_it_is);
	LOOP(tc, a_range_that_is_not_inside_is_refused, outside);
	tcase_add_test(tc, a_file_is_read_as_it_is);
	tcase_add_loop_test(tc, a_window_begins_where_it_says, 0, 2);
	tcase_add_test(tc, pieces_are_one_and_zeroes_between);
	tcase_add_loop_test(tc, pieces_that_contradict_are_refused, 0, 6);
	tcase_add_test(tc, a_window_keeps_its_parent);
	tcase_add_test(tc, holes_are_found_from_either_side);
	tcase_add_loop_test(tc, what_has_no_holes_is_all_data, 0, 2);
	tcase_add_test(tc,
		       a_file_is_the_same_by_any_name_and_until_it_is_written);
	LOOP(tc, what_is_elsewhere_is_known_by_its_name_and_version,
	     identities);
	tcase_add_test(tc, only_files_are_sources_and_nothing_waits);
	tcase_add_test(tc, links_are_followed);
	tcase_add_test(tc, a_file_system_without_o_direct_is_told_of);
	tcase_add_test(tc, an_empty_file_has_nothing_to_read);
}

int main(void)
{
	return unit_main("source", add);
}
