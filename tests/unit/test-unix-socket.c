/* SPDX-License-Identifier: BSD-3-Clause */
/* iouring/unix-socket.c; what NBD makes of it is test-listen.c's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iouring/unix-socket.h"
#include "iouring/util.h"
#include "tests/lib/unit.h"

static int fd;
static struct socket_file file;
static struct error err;

static int listen_on(const char *path, bool private_)
{
	err = (struct error){ 0 };
	return socket_listen(path, private_ ? &SOCKET_PRIVATE : NULL, &file,
			     &fd, &err);
}

static void teardown(void)
{
	socket_file_done(&file);
	closep(&fd);
}

static void setup(void)
{
	fd = -1;
	file = (struct socket_file){ 0 };
}

START_TEST(private_is_the_owners_alone)
{
	const char *path = unit_path("private");
	mode_t mask = umask(0);
	struct stat st;

	ck_assert_int_eq(listen_on(path, true), 0);
	ck_assert_int_eq(umask(mask), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(rights_are_the_files)
{
	const struct socket_rights rights = { 0660, (uid_t)-1, 65534 };
	const char *path = unit_path("rights");
	struct stat st;

	ck_assert_int_eq(socket_listen(path, &rights, &file, &fd, &err),
			 geteuid() ? -EPERM : 0);
	if (geteuid()) {
		unit_says(&err, "cannot be given");
		ck_assert_int_eq(access(path, F_OK), -1);
		return;
	}
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0660);
	ck_assert_uint_eq(st.st_gid, 65534);
	ck_assert_uint_eq(st.st_uid, geteuid());
}
END_TEST

START_TEST(one_that_nobody_listens_on_is_replaced)
{
	const char *path = unit_path("stale");

	ck_assert_int_eq(listen_on(path, false), 0);
	closep(&fd);
	free(TAKE_PTR(file.path));
	ck_assert_int_eq(listen_on(path, false), 0);
}
END_TEST

START_TEST(one_in_use_is_refused_and_stays)
{
	const char *path = unit_path("used");
	struct socket_file other = { 0 };
	int other_fd = -1;

	ck_assert_int_eq(listen_on(path, false), 0);
	ck_assert_int_eq(
		socket_listen(path, &SOCKET_PRIVATE, &other, &other_fd, &err),
		-EADDRINUSE);
	ck_assert_int_eq(other_fd, -1);
	ck_assert_ptr_null(other.path);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(what_is_no_socket_is_refused_and_stays)
{
	const char *path = unit_path("file");

	unit_write(path, "x", 1);
	ck_assert_int_eq(listen_on(path, true), -EEXIST);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(the_file_of_who_came_after_stays)
{
	const char *path = unit_path("ours");

	ck_assert_int_eq(listen_on(path, false), 0);
	unlink(path);
	unit_write(path, "x", 1);
	socket_file_done(&file);
	ck_assert_int_eq(access(path, F_OK), 0);
	unlink(path);
	closep(&fd);
	ck_assert_int_eq(listen_on(path, false), 0);
	socket_file_done(&file);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(a_path_that_no_socket_can_have_is_refused)
{
	char path[200];

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	ck_assert_int_eq(listen_on(path, false), -ENAMETOOLONG);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, private_is_the_owners_alone);
	tcase_add_test(tc, rights_are_the_files);
	tcase_add_test(tc, one_that_nobody_listens_on_is_replaced);
	tcase_add_test(tc, one_in_use_is_refused_and_stays);
	tcase_add_test(tc, what_is_no_socket_is_refused_and_stays);
	tcase_add_test(tc, the_file_of_who_came_after_stays);
	tcase_add_test(tc, a_path_that_no_socket_can_have_is_refused);
}

int main(void)
{
	return unit_main("unix-socket", add);
}
