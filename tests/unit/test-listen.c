/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "nbd/server/listen-inherited.h"
#include "nbd/server/listen.h"
#include "tests/lib/unit.h"

static int connect_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

	strcpy(sa.sun_path, path);
	r = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* What a server that was killed leaves behind. */
static void leave_socket(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
}

START_TEST(a_socket_is_there_until_the_end)
{
	const char *path = unit_path("s");
	unsigned int fds = unit_open_fds();
	struct error err = { 0 };
	struct listener l = { 0 };

	must(listen_unix(path, NULL, &l, &err), err);
	ck_assert_int_ge(l.fds[0], FD_HIGH);
	ck_assert_int_eq(fcntl(l.fds[0], F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(connect_unix(path), 0);
	listener_done(&l);
	ck_assert_int_eq(connect_unix(path), -ENOENT);
	ck_assert_uint_eq(unit_open_fds(), fds);
}
END_TEST

START_TEST(a_dead_socket_is_replaced)
{
	const char *path = unit_path("s");
	struct error err = { 0 };
	struct listener l = { 0 };

	leave_socket(path);
	ck_assert_int_eq(connect_unix(path), -ECONNREFUSED);
	must(listen_unix(path, NULL, &l, &err), err);
	ck_assert_int_eq(connect_unix(path), 0);
	listener_done(&l);
}
END_TEST

START_TEST(a_live_socket_is_left_alone)
{
	const char *path = unit_path("s");
	unsigned int fds;
	struct error err = { 0 };
	struct listener l = { 0 }, second = { 0 };

	must(listen_unix(path, NULL, &l, &err), err);
	fds = unit_open_fds();
	ck_assert_int_eq(listen_unix(path, NULL, &second, &err), -EADDRINUSE);
	unit_says(&err, "another server is listening");
	ck_assert_uint_eq(unit_open_fds(), fds);
	ck_assert_int_eq(connect_unix(path), 0);
	listener_done(&l);
}
END_TEST

START_TEST(a_file_is_not_replaced)
{
	const char *path = unit_path("disk.raw");
	struct error err = { 0 };
	struct listener l = { 0 };
	struct stat st;

	unit_write(path, "x", 1);
	ck_assert_int_eq(listen_unix(path, NULL, &l, &err), -EEXIST);
	unit_says(&err, "is not a socket");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 1);
}
END_TEST

START_TEST(a_socket_of_another_is_not_removed)
{
	const char *path = unit_path("s");
	struct error err = { 0 };
	struct listener l = { 0 };
	struct stat st;

	must(listen_unix(path, NULL, &l, &err), err);
	ck_assert_int_eq(rename(path, unit_path("moved")), 0);
	leave_socket(path);
	listener_done(&l);
	ck_assert_int_eq(lstat(path, &st), 0);
}
END_TEST

START_TEST(a_path_too_long_is_refused)
{
	char name[200] = "/tmp/";
	struct error err = { 0 };
	struct listener l = { 0 };

	memset(name + 5, 'x', 103);
	ck_assert_int_eq(listen_unix(name, NULL, &l, &err), -ENAMETOOLONG);
	unit_says(&err, "has 108 bytes, at most 107");
}
END_TEST

static const struct {
	const char *text, *uri, *says;
} places[] = {
	{ "127.0.0.1:0", "nbd://127.0.0.1:", NULL },
	{ "[::1]:0", "nbd://[::1]:", NULL },
	{ "unix:", NULL, "the path is empty" },
	{ "unix:/nowhere/s", NULL, "cannot listen on /nowhere/s" },
	{ "", NULL, "none of unix:PATH" },
	{ ":1", NULL, "none of unix:PATH" },
	{ "[]:1", NULL, "none of unix:PATH" },
	{ "127.0.0.1:", NULL, "none of unix:PATH" },
	{ "127.0.0.1:65536", NULL, "none of unix:PATH" },
	{ "127.0.0.1:-1", NULL, "none of unix:PATH" },
	{ "[::1", NULL, "none of unix:PATH" },
	{ "[::1]1", NULL, "none of unix:PATH" },
	{ "vsock:x", NULL, "a vsock port is a number" },
	{ "vsock:0", NULL, "a vsock port is a number from 1" },
	{ "vsock:4294967296", NULL, "a vsock port is a number" },
	{ "no such host:1", NULL, "address \"no such host\"" },
};

START_TEST(places_are_understood)
{
	struct error err = { 0 };
	struct listener l = { 0 };
	int r = listen_at(places[_i].text, NULL, &l, &err);
	char *uri;

	if (!places[_i].uri) {
		ck_assert_int_lt(r, 0);
		unit_says(&err, places[_i].says);
		ck_assert_uint_eq(l.n_endpoints, 0);
		ck_assert_uint_eq(l.n_fds, 0);
		return;
	}
	must(r, err);
	uri = endpoint_uri(&l.endpoints[0], false, NULL, "", NULL);
	ck_assert_uint_eq(strncmp(uri, places[_i].uri, strlen(places[_i].uri)),
			  0);
	free(uri);
	listener_done(&l);
}
END_TEST

START_TEST(several_are_listened_on)
{
	struct error err = { 0 };
	struct listener l = { 0 };

	must(listen_unix(unit_path("a"), NULL, &l, &err), err);
	must(listen_tcp("127.0.0.1", 0, &l, &err), err);
	must(listen_unix(unit_path("b"), &SOCKET_PRIVATE, &l, &err), err);
	ck_assert_uint_eq(l.n_endpoints, 3);
	ck_assert_uint_eq(l.n_fds, 3);
	/* One that fails leaves the others as they are. */
	ck_assert_int_eq(listen_unix(unit_path("a"), NULL, &l, &err),
			 -EADDRINUSE);
	ck_assert_uint_eq(l.n_endpoints, 3);
	ck_assert_int_eq(connect_unix(unit_path("a")), 0);
	listener_done(&l);
	ck_assert_int_eq(connect_unix(unit_path("a")), -ENOENT);
	ck_assert_int_eq(connect_unix(unit_path("b")), -ENOENT);
}
END_TEST

START_TEST(too_few_descriptors_are_told_as_that)
{
	const struct rlimit few = { .rlim_cur = 64, .rlim_max = 64 };
	struct error err = { 0 };
	struct listener l = { 0 };

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ck_assert_int_eq(listen_tcp("127.0.0.1", 0, &l, &err), -EMFILE);
	unit_says(&err, "Too many open files");
}
END_TEST

START_TEST(port_0_takes_a_free_one)
{
	struct error err = { 0 };
	struct listener a = { 0 }, b = { 0 }, c = { 0 };

	must(listen_tcp("127.0.0.1", 0, &a, &err), err);
	must(listen_tcp("127.0.0.1", 0, &b, &err), err);
	ck_assert_uint_ne(a.endpoints[0].port, 0);
	ck_assert_uint_ne(a.endpoints[0].port, b.endpoints[0].port);
	ck_assert_int_eq(listen_tcp("127.0.0.1", (uint16_t)a.endpoints[0].port,
				    &c, &err),
			 -EADDRINUSE);
	unit_says(&err, "cannot listen on 127.0.0.1 port");
	listener_done(&a);
	listener_done(&b);
}
END_TEST

static const struct {
	struct endpoint e;
	bool tls;
	const char *export, *query, *uri;
} uris[] = {
	{ { .kind = ENDPOINT_TCP, .address = "127.0.0.1", .port = 10809 },
	  false,
	  "",
	  NULL,
	  "nbd://127.0.0.1:10809" },
	{ { .kind = ENDPOINT_TCP, .address = "127.0.0.1", .port = 1 },
	  false,
	  "@a%2Fb c",
	  NULL,
	  "nbd://127.0.0.1:1/@a%252Fb%20c" },
	{ { .kind = ENDPOINT_TCP, .address = "::1", .port = 1 },
	  false,
	  "x",
	  NULL,
	  "nbd://[::1]:1/x" },
	{ { .kind = ENDPOINT_TCP, .address = "fe80::1%eth0", .port = 1 },
	  false,
	  "",
	  NULL,
	  "nbd://[fe80::1%25eth0]:1" },
	{ { .kind = ENDPOINT_TCP,
	    .address = "0.0.0.0",
	    .any = true,
	    .port = 1 },
	  false,
	  "",
	  NULL,
	  "nbd://127.0.0.1:1" },
	{ { .kind = ENDPOINT_TCP, .address = "::", .any = true, .port = 1 },
	  false,
	  "",
	  NULL,
	  "nbd://[::1]:1" },
	{ { .kind = ENDPOINT_TCP, .address = "host", .port = 1 },
	  true,
	  "",
	  "tls-psk-file=/k",
	  "nbds://a%20b@host:1/?tls-psk-file=/k" },
	{ { .kind = ENDPOINT_VSOCK, .port = 7 },
	  false,
	  "x",
	  NULL,
	  "nbd+vsock://2:7/x" },
	{ { .file.path = "/a b/s,&" },
	  false,
	  "",
	  NULL,
	  "nbd+unix:///?socket=/a%20b/s%2C%26" },
	{ { .file.path = "/s" },
	  true,
	  "@1",
	  "tls-psk-file=/k",
	  "nbds+unix://a%20b@/@1?socket=/s&tls-psk-file=/k" },
};

START_TEST(a_uri_holds_any_name)
{
	char *uri = endpoint_uri(&uris[_i].e, uris[_i].tls,
				 uris[_i].query ? "a b" : NULL, uris[_i].export,
				 uris[_i].query);

	ck_assert_str_eq(uri, uris[_i].uri);
	free(uri);
}
END_TEST

/*
 * In a child whose descriptor 3 is ours and not Check's, so that it cannot be
 * asked to assert anything: the line that does not hold is the status.
 */
#define NEED(what)                                    \
	do {                                          \
		if (!(what))                          \
			return __LINE__ % 255 ?: 255; \
	} while (0)

static void name_fds(const char *pid, const char *fds)
{
	char own[16];

	snprintf(own, sizeof(own), "%d", getpid());
	setenv("LISTEN_PID", pid ? pid : own, 1);
	setenv("LISTEN_FDS", fds, 1);
}

/* As systemd starts a service: its sockets from 3 on. */
static int as_a_service(void *opaque)
{
	const char *path = opaque;
	struct error err = { 0 };
	struct listener l = { 0 }, again = { 0 };

	NEED(!listen_unix(path, NULL, &l, &err));
	NEED(dup2(l.fds[0], 3) == 3);
	close(l.fds[0]);
	name_fds("1", "1");
	NEED(!listen_inherited(&again, &err));
	name_fds(NULL, "1");
	NEED(listen_inherited(&again, &err) == 1);
	NEED(!getenv("LISTEN_FDS"));
	NEED(again.n_fds == 1 && again.fds[0] >= FD_HIGH);
	NEED(fcntl(again.fds[0], F_GETFD) == FD_CLOEXEC);
	NEED(!strcmp(again.endpoints[0].file.path, path));
	NEED(!connect_unix(path));
	listener_done(&again);
	/* The file is who made it's. */
	NEED(connect_unix(path) == -ECONNREFUSED);
	return 0;
}

START_TEST(a_socket_of_systemd_s_is_taken)
{
	unit_in_child(as_a_service, (void *)unit_path("s"));
}
END_TEST

static int with_other_descriptors(void *opaque)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct error err = { 0 };
	struct listener l = { 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	NEED(!bind(fd, (struct sockaddr *)&in, sizeof(in)));
	NEED(dup2(fd, 3) == 3);
	name_fds(NULL, "1");
	NEED(listen_inherited(&l, &err) == -EINVAL);
	NEED(strstr(err.msg, "descriptor 3"));
	name_fds(NULL, "65");
	NEED(listen_inherited(&l, &err) == -E2BIG);
	return 0;
}

START_TEST(what_does_not_listen_is_refused)
{
	unit_in_child(with_other_descriptors, NULL);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_socket_is_there_until_the_end);
	tcase_add_test(tc, a_dead_socket_is_replaced);
	tcase_add_test(tc, a_live_socket_is_left_alone);
	tcase_add_test(tc, a_file_is_not_replaced);
	tcase_add_test(tc, a_socket_of_another_is_not_removed);
	tcase_add_test(tc, a_path_too_long_is_refused);
	tcase_add_test(tc, too_few_descriptors_are_told_as_that);
	tcase_add_test(tc, port_0_takes_a_free_one);
	tcase_add_test(tc, several_are_listened_on);
	tcase_add_test(tc, a_socket_of_systemd_s_is_taken);
	tcase_add_test(tc, what_does_not_listen_is_refused);
	LOOP(tc, places_are_understood, places);
	LOOP(tc, a_uri_holds_any_name, uris);
}

int main(void)
{
	return unit_main("listen", add);
}
