/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/reference.h"
#include "iouring/beneath.h"
#include "tests/lib/unit.h"

#define OPENS 4000

static struct error err;
static int folder = -1;

/* in/file, in/sub/file, links to them and out of in/, and a FIFO. */
static void make(void)
{
	static const struct {
		const char *to, *name;
	} links[] = {
		{ "file", "in/same" },	     { "../in/file", "in/about" },
		{ "../out", "in/away" },     { "sub", "in/folder" },
		{ "/etc/passwd", "in/far" },
	};
	size_t i;

	mkdir(unit_path("in"), 0700);
	mkdir(unit_path("in/sub"), 0700);
	unit_write(unit_path("in/file"), "in", 2);
	unit_write(unit_path("in/sub/file"), "in", 2);
	unit_write(unit_path("out"), "out", 3);
	for (i = 0; i < ARRAY_SIZE(links); i++) {
		unlink(unit_path("%s", links[i].name));
		ck_assert_int_eq(
			symlink(links[i].to, unit_path("%s", links[i].name)),
			0);
	}
	unlink(unit_path("in/fifo"));
	ck_assert_int_eq(mkfifo(unit_path("in/fifo"), 0600), 0);
	folder = open(unit_path("in"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(folder, 0);
}

START_TEST(a_file_is_opened_or_refused)
{
	static const struct {
		const char *name;
		enum beneath_links links;
		int code; /* 0: it is opened */
	} rows[] = {
		{ "file", BENEATH_NO_LINKS, 0 },
		{ "sub/file", BENEATH_NO_LINKS, 0 },
		{ "sub/../file", BENEATH_NO_LINKS, 0 },
		{ "same", BENEATH_LINKS, 0 },
		{ "folder/file", BENEATH_LINKS, 0 },
		{ "same", BENEATH_NO_LINKS, -ELOOP },
		{ "folder/file", BENEATH_NO_LINKS, -ELOOP },
		{ "away", BENEATH_LINKS, -EXDEV },
		{ "about", BENEATH_LINKS, -EXDEV },
		{ "far", BENEATH_LINKS, -EXDEV },
		{ "../out", BENEATH_LINKS, -EXDEV },
		{ "sub/../../out", BENEATH_LINKS, -EXDEV },
		{ "/etc/passwd", BENEATH_LINKS, -EXDEV },
		{ "fifo", BENEATH_LINKS, -EBADF },
		{ "sub", BENEATH_LINKS, -EBADF },
		{ "none", BENEATH_LINKS, -ENOENT },
		{ "file/none", BENEATH_LINKS, -ENOTDIR },
	};
	int fd;

	make();
	fd = open_file_beneath(folder, rows[_i].name, rows[_i].links);
	if (!rows[_i].code)
		ck_assert_int_ge(fd, 0);
	else
		ck_assert_int_eq(fd, rows[_i].code);
	closep(&fd);
	close(folder);
}
END_TEST

static atomic_bool stop;

/* in/file is now a file, now a link to what is outside. */
static void *swap(void *opaque)
{
	const char *file = unit_path("in/file"), *kept = unit_path("in/kept");
	const char *link = unit_path("in/link");

	while (!atomic_load(&stop)) {
		symlink("../out", link);
		rename(file, kept);
		rename(link, file);
		rename(kept, file);
	}
	return NULL;
}

/* -1: it was refused. */
static int bytes_of(int fd)
{
	struct stat st;
	int r = fd < 0 ? -1 : fstat(fd, &st);

	closep(&fd);
	return r < 0 ? -1 : (int)st.st_size;
}

START_TEST(what_is_swapped_meanwhile_is_never_what_is_outside)
{
	CLEANUP(folder_unrefp) struct folder *f = NULL;
	char path[512];
	pthread_t t;
	int i, got, opened = 0;

	make();
	must(folder_open(unit_path("in"), &f, &err), err);
	snprintf(path, sizeof(path), "%s/file", folder_path(f));
	atomic_store(&stop, false);
	ck_assert_int_eq(pthread_create(&t, NULL, swap, NULL), 0);
	/* The other thread may be stopped while it is a link. */
	for (i = 0; i < OPENS || (!opened && i < 1000 * OPENS); i++) {
		got = bytes_of(
			_i ? folders_open_file(&f, 1, path)
			   : open_file_beneath(folder, "file", BENEATH_LINKS));
		ck_assert_msg(got == -1 || got == 2, "%d bytes", got);
		opened += got == 2;
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	ck_assert_int_gt(opened, 0);
	close(folder);
}
END_TEST

START_TEST(an_absolute_path_is_of_one_of_the_folders)
{
	struct folder *f[2] = { NULL };
	char link[512], real[512];
	int fd;

	make();
	unlink(unit_path("alias"));
	ck_assert_int_eq(symlink("in", unit_path("alias")), 0);
	must(folder_open(unit_path("in/sub"), &f[0], &err), err);
	must(folder_open(unit_path("in"), &f[1], &err), err);
	snprintf(real, sizeof(real), "%s/sub/file", folder_path(f[1]));
	snprintf(link, sizeof(link), "%s", unit_path("alias/sub/file"));
	fd = folders_open_file(f, 2, real);
	ck_assert_int_ge(fd, 0);
	closep(&fd);
	/* By way of a link above them, and from one into the other. */
	fd = folders_open_file(f, 2, link);
	ck_assert_int_ge(fd, 0);
	closep(&fd);
	snprintf(link, sizeof(link), "%s/about", folder_path(f[1]));
	fd = folders_open_file(f, 2, link);
	ck_assert_int_ge(fd, 0);
	closep(&fd);
	snprintf(link, sizeof(link), "%s/away", folder_path(f[1]));
	ck_assert_int_lt(folders_open_file(f, 2, link), 0);
	ck_assert_int_lt(folders_open_file(f, 2, unit_path("out")), 0);
	snprintf(link, sizeof(link), "%s/../out", folder_path(f[1]));
	ck_assert_int_lt(folders_open_file(f, 2, link), 0);
	ck_assert_int_eq(folders_open_file(f, 0, real), -EXDEV);
	folder_unref(f[0]);
	folder_unref(f[1]);
	close(folder);
}
END_TEST

START_TEST(a_folder_beneath_is_opened_without_links)
{
	CLEANUP(folder_unrefp) struct folder *f = NULL;
	CLEANUP(folder_unrefp) struct folder *sub = NULL;

	make();
	must(folder_open(unit_path("in"), &f, &err), err);
	must(folder_open_in(f, "sub", &sub, &err), err);
	ck_assert_int_eq(folder_open_in(f, "folder", &sub, NULL), -ELOOP);
	ck_assert_int_eq(folder_open_in(f, "..", &sub, NULL), -EXDEV);
	ck_assert_int_eq(folder_open_in(f, "file", &sub, NULL), -ENOTDIR);
	close(folder);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_file_is_opened_or_refused, 0, 17);
	tcase_add_loop_test(
		tc, what_is_swapped_meanwhile_is_never_what_is_outside, 0, 2);
	tcase_add_test(tc, an_absolute_path_is_of_one_of_the_folders);
	tcase_add_test(tc, a_folder_beneath_is_opened_without_links);
}

int main(void)
{
	return unit_main("beneath", add);
}
