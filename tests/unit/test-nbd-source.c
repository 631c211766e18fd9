/* SPDX-License-Identifier: BSD-3-Clause */
/* Exports of an nbdkit that is made slow; skipped where there is none. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iouring/batch.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/remote-options.h"
#include "tests/lib/unit.h"

#define FILE_BYTES (1U << 20)
#define DELAY_MS   20U
#define READS	   64U

static uint8_t data[FILE_BYTES];
static struct error err;
static char uri[512];
static pid_t server;

/* Serves data as @uri, each read @delay_ms late. */
static void serve(unsigned int delay_ms)
{
	char delay[32], file[300], sock[300];
	unsigned int tries;

	snprintf(delay, sizeof(delay), "rdelay=%ums", delay_ms);
	snprintf(file, sizeof(file), "%s", unit_path("data"));
	snprintf(sock, sizeof(sock), "%s", unit_path("sock"));
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", sock);
	if (!data[0] && !data[1])
		unit_fill(data, sizeof(data), 9);
	unit_write(file, data, sizeof(data));
	server = fork();
	ck_assert_int_ge(server, 0);
	if (!server) {
		execlp("nbdkit", "nbdkit", "-f", "--exit-with-parent", "-t",
		       "100", "-U", sock, "--filter=delay", "file", file, delay,
		       NULL);
		_exit(127);
	}
	for (tries = 0; access(sock, F_OK) && tries < 500; tries++)
		usleep(20000);
	ck_assert_int_eq(access(sock, F_OK), 0);
}

static void stop_serving(void)
{
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	unlink(unit_path("sock"));
}

static struct source *open_export(void)
{
	struct source *s = NULL;

	must(nbd_source_open(uri, &s, &err), err);
	ck_assert_uint_eq(s->bytes, FILE_BYTES);
	return s;
}

static uint8_t got[READS][4096];

static void make_reads(struct batch_io *ios, struct source *s)
{
	size_t i;

	for (i = 0; i < READS; i++)
		ios[i] = (struct batch_io){ s, i * 29 % READS * 12000, got[i],
					    4096 - i };
}

static bool is_right(const struct batch_io *io)
{
	return !io->ret &&
	       !memcmp(io->buf, data + io->src->root_off + io->off, io->len);
}

START_TEST(many_reads_of_an_export_are_under_way_at_once)
{
	struct batch_io ios[READS];
	struct source *s, *w = NULL;
	uint64_t began;
	size_t i;

	serve(DELAY_MS);
	s = open_export();
	must(window_source_new(s, 77777, 900000, &w, &err), err);
	make_reads(ios, s);
	for (i = 1; i < READS; i += 2)
		ios[i].src = w;
	began = now_nsec();
	ck_assert_int_eq(batch_run(ios, READS), 0);
	ck_assert_uint_lt(now_nsec() - began,
			  READS / 4 * DELAY_MS * 1000000ULL);
	for (i = 0; i < READS; i++)
		ck_assert(is_right(&ios[i]));
	must(source_read(w, got, 4096, 5, &err), err);
	ck_assert_mem_eq(got, data + 77782, 4096);
	source_unref(w);
	source_unref(s);
	stop_serving();
}
END_TEST

static struct source *shared;
static atomic_uint wrong;

static void read_shared(unsigned int number)
{
	uint8_t bytes[3][5000];
	struct batch_io ios[3];
	unsigned int i, k;

	for (i = 0; i < 30; i++) {
		for (k = 0; k < 3; k++)
			ios[k] = (struct batch_io){ shared,
						    (number * 7919 +
						     i * 104729 + k * 20011) %
							    (FILE_BYTES - 5000),
						    bytes[k], 5000 };
		if (batch_run(ios, 3))
			atomic_fetch_add(&wrong, 1);
		for (k = 0; k < 3; k++)
			if (!is_right(&ios[k]))
				atomic_fetch_add(&wrong, 1);
	}
}

START_TEST(more_threads_than_connections_read_it)
{
	serve(1);
	shared = open_export();
	unit_threads(12, read_shared);
	ck_assert_uint_eq(wrong, 0);
	source_unref(shared);
	stop_serving();
}
END_TEST

START_TEST(a_server_that_dies_is_eio_for_what_is_in_flight_and_after)
{
	struct batch_io ios[READS];
	struct source *s;
	size_t i;

	remote_configure(&(struct remote_options){ .seconds = 1 });
	serve(2000);
	s = open_export();
	make_reads(ios, s);
	if (!fork()) {
		usleep(300000);
		kill(server, SIGKILL);
		_exit(0);
	}
	ck_assert_int_eq(batch_run(ios, READS), -EIO);
	for (i = 0; i < READS; i++)
		ck_assert_int_eq(ios[i].ret, -EIO);
	ck_assert_int_eq(batch_run(ios, READS), -EIO);
	ck_assert_int_eq(source_read(s, got, 10, 0, NULL), -EIO);
	source_unref(s);
	stop_serving();
	wait(NULL);
}
END_TEST

static char lines[4096];

static void say(const char *line)
{
	strncat(lines, line, sizeof(lines) - strlen(lines) - 1);
}

static void *run_reads(void *ios)
{
	return (void *)(intptr_t)batch_run(ios, READS);
}

START_TEST(a_server_that_comes_back_is_asked_again)
{
	pthread_t thread;
	void *ret;
	struct batch_io ios[READS];
	struct source *s;
	size_t i;

	remote_configure(&(struct remote_options){ .seconds = 20, .say = say });
	serve(500);
	s = open_export();
	make_reads(ios, s);
	ck_assert(!pthread_create(&thread, NULL, run_reads, ios));
	usleep(200000);
	stop_serving();
	usleep(300000);
	/* By this thread: nbdkit ends with the one that started it. */
	serve(0);
	pthread_join(thread, &ret);
	ck_assert_int_eq((int)(intptr_t)ret, 0);
	for (i = 0; i < READS; i++)
		ck_assert(is_right(&ios[i]));
	ck_assert_ptr_nonnull(strstr(lines, "the connection is lost"));
	ck_assert_ptr_nonnull(strstr(lines, "can be read again"));
	source_unref(s);
	stop_serving();
}
END_TEST

/* It takes connections, and says nothing more. */
START_TEST(a_server_that_is_silent_is_eio)
{
	struct source *s = NULL;
	uint64_t began = now_nsec();

	remote_configure(&(struct remote_options){ .seconds = 1 });
	serve(60000);
	s = open_export();
	ck_assert_int_eq(source_read(s, got, 10, 0, NULL), -EIO);
	ck_assert_uint_lt(now_nsec() - began, 20000000000ULL);
	kill(server, SIGSTOP);
	source_unref(s);
	ck_assert_int_eq(nbd_source_open(uri, &s, &err), -EIO);
	unit_says(&err, "the server is silent");
	stop_serving();
}
END_TEST

START_TEST(an_export_is_known_by_its_uri)
{
	struct source_identity a, b;
	struct source *s, *again;

	serve(0);
	s = open_export();
	again = open_export();
	source_identity(s, &a);
	source_identity(again, &b);
	ck_assert_int_eq(a.kind, SOURCE_EXPORT);
	ck_assert_str_eq(a.name, uri);
	ck_assert(identity_is_unchanged(&a, &b));
	source_unref(s);
	source_unref(again);
	stop_serving();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, many_reads_of_an_export_are_under_way_at_once);
	tcase_add_test(tc, more_threads_than_connections_read_it);
	tcase_add_test(
		tc, a_server_that_dies_is_eio_for_what_is_in_flight_and_after);
	tcase_add_test(tc, a_server_that_comes_back_is_asked_again);
	tcase_add_test(tc, a_server_that_is_silent_is_eio);
	tcase_add_test(tc, an_export_is_known_by_its_uri);
}

int main(void)
{
	if (system("nbdkit --dump-plugin file > /dev/null 2>&1")) {
		printf("SKIP: there is no nbdkit\n");
		return 77;
	}
	return unit_main("nbd-source", add);
}
