/* SPDX-License-Identifier: BSD-3-Clause */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/server/log-writer.h"
#include "tests/lib/unit.h"

static struct error err;
static char got[1 << 20];

/* All that comes until the other end is closed. */
static size_t read_all(int fd)
{
	size_t used = 0;
	ssize_t n;

	while ((n = read(fd, got + used, sizeof(got) - 1 - used)) > 0)
		used += (size_t)n;
	got[used] = '\0';
	return used;
}

static unsigned int count(const char *what)
{
	unsigned int n = 0;
	const char *p;

	for (p = got; (p = strstr(p, what)); p++)
		n++;
	return n;
}

START_TEST(what_is_written_comes_out_in_its_order)
{
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	must(log_writer_start(fds[1], false, &err), err);
	log_printf("one, %d", 1);
	log_printf("\n");
	log_write("two\nthr", 7);
	log_write("ee\nhalf a line", 14);
	log_writer_stop();
	close(fds[1]);
	read_all(fds[0]);
	ck_assert_str_eq(got, "one, 1\ntwo\nthree\nhalf a line\n");
	close(fds[0]);
}
END_TEST

static const bool all_or_not[] = { false, true };

/* Nobody reads: who writes lines must not notice. */
START_TEST(a_reader_who_has_stopped_holds_up_nobody)
{
	unsigned int i, lines = 0;
	unsigned long long n, left_out = 0;
	char *p, *end;
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	must(log_writer_start(fds[1], all_or_not[_i], &err), err);
	for (i = 0; i < 100000; i++)
		log_printf("line %u of many that nobody reads\n", i);
	usleep(100000);
	/* Whoever comes back finds whole lines, and how many are missing. */
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	while (read(fds[0], got, 65536) > 0)
		usleep(20000);
	log_printf("the last one\n");
	fcntl(fds[0], F_SETFL, 0);
	log_writer_stop();
	close(fds[1]);
	read_all(fds[0]);
	ck_assert(strstr(got, "left out here\n") || !_i);
	for (p = got; *p; p = end + 1) {
		end = strchr(p, '\n');
		ck_assert_ptr_nonnull(end);
		lines++;
		if (sscanf(p, "platter: %llu line", &n) == 1)
			left_out += n;
	}
	ck_assert_uint_lt(lines, 10000);
	close(fds[0]);
}
END_TEST

START_TEST(a_flood_is_cut_short_and_counted)
{
	char name[] = "/tmp/platter-log-XXXXXX";
	int fd = mkstemp(name), i;

	ck_assert_int_ge(fd, 0);
	unlink(name);
	must(log_writer_start(fd, false, &err), err);
	for (i = 0; i < 20000; i++)
		log_printf("accept: Too many open files\n");
	log_writer_stop();
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	read_all(fd);
	ck_assert_uint_ge(count("accept"), 1000);
	ck_assert_uint_lt(count("accept"), 3000);
	ck_assert_uint_ge(count("left out here"), 1);
	close(fd);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_is_written_comes_out_in_its_order);
	LOOP(tc, a_reader_who_has_stopped_holds_up_nobody, all_or_not);
	tcase_add_test(tc, a_flood_is_cut_short_and_counted);
}

int main(void)
{
	return unit_main("log-writer", add);
}
