/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The supervisor with shell scripts for servers. A script gets the pidfile as
 * $2 and a file of the test's own as $3, to which it adds a line.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/server/supervise.h"
#include "tests/lib/unit.h"

static const int stops[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP };
static unsigned int told_ready;
static int signal_when_ready;

static void count_ready(void *opaque, pid_t pid)
{
	told_ready++;
	if (signal_when_ready)
		kill(getpid(), signal_when_ready);
}

static int supervise(const char *script, bool once)
{
	char notes[512];
	char *argv[] = { "sh",	      "-c", (char *)script, "sh",
			 "--pidfile", NULL, notes,	    NULL };
	struct error err = { 0 };
	struct listener l = { 0 };
	struct supervisor s = { .listener = &l,
				.once = once,
				.argv = argv,
				.pidfile_idx = 5,
				.ready = count_ready };
	unsigned int i;
	int status;

	snprintf(notes, sizeof(notes), "%s", unit_path("notes"));
	/* The tests may be run by nohup, or as a job in the background. */
	for (i = 0; i < ARRAY_SIZE(stops); i++)
		signal(stops[i], SIG_DFL);
	must(listen_unix(unit_path("s"), NULL, &l, &err), err);
	must(supervisor_hold_signals(&err), err);
	told_ready = 0;
	remove(notes);
	status = supervisor_run(&s);
	listener_done(&l);
	return status;
}

static unsigned int count_notes(void)
{
	FILE *fp = fopen(unit_path("notes"), "r");
	unsigned int n = 0;
	int c;

	ck_assert_ptr_nonnull(fp);
	while ((c = fgetc(fp)) != EOF)
		n += c == '\n';
	fclose(fp);
	return n;
}

/* $1: --pidfile, $2: the pidfile, $3: the notes */
#define NOTE  "echo $LISTEN_FDS >>\"$3\";"
#define READY "echo $$ >\"$2\";"

START_TEST(a_server_that_is_killed_is_started_again)
{
	int status =
		supervise(NOTE READY "[ $(wc -l <\"$3\") -ge 3 ] && exit 0;"
				     "kill -ABRT $$",
			  false);

	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(count_notes(), 3);
	ck_assert_uint_eq(told_ready, 1);
}
END_TEST

START_TEST(once_is_once)
{
	ck_assert_int_eq(supervise(NOTE READY "kill -ABRT $$", true),
			 128 + SIGABRT);
	ck_assert_uint_eq(count_notes(), 1);
}
END_TEST

START_TEST(what_never_was_ready_is_not_started_again)
{
	ck_assert_int_eq(supervise(NOTE "kill -ABRT $$", false), 1);
	ck_assert_uint_eq(count_notes(), 1);
	ck_assert_uint_eq(told_ready, 0);
}
END_TEST

START_TEST(a_status_is_passed_on)
{
	ck_assert_int_eq(supervise(NOTE "exit 7", false), 7);
	ck_assert_uint_eq(count_notes(), 1);
	ck_assert_int_eq(supervise("exit 0", false), 1); /* but not ready */
	ck_assert_int_eq(supervise(READY "exit 7", false), 7);
	ck_assert_int_eq(supervise(READY "exit 0", false), 0);
}
END_TEST

START_TEST(the_server_is_given_the_sockets)
{
	ck_assert_int_eq(
		supervise("[ \"$LISTEN_PID\" = $$ ] && [ \"$LISTEN_FDS\" = 1 ]"
			  " && [ -S /dev/fd/3 ] && [ ! -t 0 ] &&" READY
			  "exit 0",
			  false),
		0);
	ck_assert_uint_eq(told_ready, 1);
}
END_TEST

START_TEST(a_signal_is_passed_on_and_ends_it)
{
	signal_when_ready = stops[_i];
	ck_assert_int_eq(supervise("trap 'echo x >>\"$3\"; exit 0' "
				   "TERM INT QUIT HUP;" READY
				   "while :; do sleep 0.01; done",
				   false),
			 0);
	ck_assert_uint_eq(count_notes(), 1);
}
END_TEST

START_TEST(who_does_not_stop_is_killed)
{
	time_t began = time(NULL);

	signal_when_ready = SIGTERM;
	ck_assert_int_eq(supervise("trap '' TERM;" READY
				   "while :; do sleep 0.01; done",
				   false),
			 0);
	/* Of a machine that has time for it: five seconds. */
	ck_assert_int_le(time(NULL) - began, 60);
}
END_TEST

START_TEST(pauses_grow_when_it_keeps_dying)
{
	unsigned int n, last = 0;

	ck_assert_uint_eq(restart_pause_ms(0), 0);
	ck_assert_uint_eq(restart_pause_ms(1), 0);
	for (n = 2; n < 100; n++) {
		ck_assert_uint_ge(restart_pause_ms(n), last);
		last = restart_pause_ms(n);
		ck_assert_uint_gt(last, 0);
	}
	ck_assert_uint_eq(last, 1000);
	ck_assert_uint_eq(restart_pause_ms(UINT32_MAX), 1000);
}
END_TEST

START_TEST(errors_of_nbdkit_are_known)
{
	ck_assert_str_eq(server_error_text("nbdkit: error: bad"), "bad");
	ck_assert_str_eq(server_error_text("nbdkit: platter[1]: error: a: b"),
			 "a: b");
	ck_assert_ptr_null(server_error_text("nbdkit: debug: x"));
	ck_assert_ptr_null(server_error_text("error: x"));
}
END_TEST

static void add(TCase *tc)
{
	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, a_server_that_is_killed_is_started_again);
	tcase_add_test(tc, once_is_once);
	tcase_add_test(tc, what_never_was_ready_is_not_started_again);
	tcase_add_test(tc, a_status_is_passed_on);
	tcase_add_test(tc, the_server_is_given_the_sockets);
	LOOP(tc, a_signal_is_passed_on_and_ends_it, stops);
	tcase_add_test(tc, who_does_not_stop_is_killed);
	tcase_add_test(tc, pauses_grow_when_it_keeps_dying);
	tcase_add_test(tc, errors_of_nbdkit_are_known);
}

int main(void)
{
	return unit_main("supervise", add);
}
