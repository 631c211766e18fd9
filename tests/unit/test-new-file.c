/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/new-file.h"
#include "tests/lib/unit.h"

static struct error err;

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

START_TEST(a_file_has_its_name_when_it_is_whole)
{
	const char *path = unit_path("file");
	struct new_file f;
	struct stat st;

	must(new_file_begin(path, &f, &err), err);
	ck_assert(!exists(path));
	ck_assert_int_eq(write(f.fd, "all", 3), 3);
	must(new_file_name(&f, &err), err);
	new_file_done(&f);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 3);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert(!exists(unit_path("file.part")));
	unlink(path);
}
END_TEST

START_TEST(one_that_is_not_named_leaves_nothing)
{
	struct new_file f;

	must(new_file_begin(unit_path("file"), &f, &err), err);
	new_file_done(&f);
	ck_assert(!exists(unit_path("file")));
	ck_assert(!exists(unit_path("file.part")));
}
END_TEST

START_TEST(a_name_that_is_taken_stays_who_it_is)
{
	const char *path = unit_path("file");
	struct new_file f;
	struct stat st;

	must(new_file_begin(path, &f, &err), err);
	unit_write(path, "mine", 4);
	ck_assert_int_eq(new_file_name(&f, &err), -EEXIST);
	error_clear(&err);
	new_file_done(&f);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 4);
	unlink(path);
}
END_TEST

START_TEST(a_folder_that_is_not_there_is_told)
{
	struct new_file f;

	ck_assert_int_eq(new_file_begin(unit_path("no/file"), &f, &err),
			 -ENOENT);
	unit_says(&err, "cannot be made");
	error_clear(&err);
}
END_TEST

START_TEST(a_nameless_one_is_in_no_folder)
{
	struct stat st;
	int fd;

	must(new_file_nameless(unit_path("."), &fd, &err), err);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	close(fd);
	ck_assert_int_eq(new_file_nameless(unit_path("no"), &fd, &err),
			 -ENOENT);
	error_clear(&err);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_file_has_its_name_when_it_is_whole);
	tcase_add_test(tc, one_that_is_not_named_leaves_nothing);
	tcase_add_test(tc, a_name_that_is_taken_stays_who_it_is);
	tcase_add_test(tc, a_folder_that_is_not_there_is_told);
	tcase_add_test(tc, a_nameless_one_is_in_no_folder);
}

int main(void)
{
	return unit_main("new-file", add);
}
