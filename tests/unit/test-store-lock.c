/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "glance/store-lock.h"
#include "tests/lib/unit.h"

static struct error err;
static const char *folder;
static int fd;
static bool no_locks;

/* A file system without locks: in place of the C library's. */
int fcntl64(int on, int cmd, ...);
int fcntl64(int on, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	if (no_locks && (cmd == F_OFD_SETLK || cmd == F_OFD_GETLK)) {
		errno = ENOLCK;
		return -1;
	}
	return (int)syscall(SYS_fcntl, on, cmd, arg);
}

static void begin(void)
{
	static unsigned int n;

	no_locks = false;
	folder = unit_path("store-%d-%u", (int)getpid(), n++);
	ck_assert_int_eq(mkdir(folder, 0700), 0);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}

static struct store_lock *take(void)
{
	struct store_lock *l = NULL;

	must(store_lock_take(fd, folder, &l, &err), err);
	return l;
}

static void refused(const char *part)
{
	struct store_lock *l = NULL;

	ck_assert_int_eq(store_lock_take(fd, folder, &l, &err), -EBUSY);
	ck_assert_ptr_null(l);
	unit_says(&err, part);
	error_clear(&err);
}

static char *name_of(int64_t pid)
{
	static char text[64];

	snprintf(text, sizeof(text), "process %lld on ", (long long)pid);
	return text;
}

static void write_lease(const char *host, int64_t pid, const char *boot,
			const char *pids, int64_t age_sec)
{
	char path[512];
	FILE *f;
	struct timespec at[2] = { { .tv_sec = time(NULL) - age_sec } };

	at[1] = at[0];
	snprintf(path, sizeof(path), "%s/lock", folder);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f,
		"platter-store-lock 1\nhost %s\npid %lld\nsince 1\n"
		"machine other\nboot %s\npids %s\nnonce 00\n",
		host, (long long)pid, boot, pids);
	fclose(f);
	ck_assert_int_eq(utimensat(AT_FDCWD, path, at, 0), 0);
}

START_TEST(the_second_is_told_who_the_first_is)
{
	struct store_lock *l;

	begin();
	no_locks = _i;
	l = take();
	refused(name_of(getpid()));
	refused(folder);
	store_lock_drop(l);
	store_lock_drop(take());
	close(fd);
}
END_TEST

static int take_and_die(void *opaque)
{
	struct store_lock *l = NULL;

	if (store_lock_take(fd, folder, &l, &err) < 0)
		return 1;
	_exit(0); /* as if it had been killed */
}

START_TEST(the_dead_keep_nobody_out)
{
	begin();
	no_locks = _i;
	unit_in_child(take_and_die, NULL);
	store_lock_drop(take());
	close(fd);
}
END_TEST

static int keep_for_long(void *opaque)
{
	/* Forked from who took it, who has it no more. */
	if (store_lock_keep(opaque, &err) < 0)
		return 1;
	store_lock_drop(opaque);
	return 0;
}

START_TEST(who_serves_has_it_and_not_who_forked_him)
{
	struct store_lock *l;
	int ends[2];
	char c;
	pid_t pid;

	begin();
	no_locks = _i;
	l = take();
	ck_assert_int_eq(pipe(ends), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct error e = { 0 };
		bool ok = store_lock_keep(l, &e) >= 0;

		if (write(ends[1], ok ? "y" : "n", 1) != 1 || !ok)
			_exit(1);
		pause();
		_exit(0);
	}
	ck_assert_int_eq(read(ends[0], &c, 1), 1);
	ck_assert_int_eq(c, 'y');
	refused(name_of(pid));
	/* The parent ends, as nbdkit's does in the background. */
	store_lock_drop(l);
	refused(name_of(pid));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	l = take();
	unit_in_child(keep_for_long, l);
	store_lock_drop(l);
	store_lock_drop(take());
	close(ends[0]);
	close(ends[1]);
	close(fd);
}
END_TEST

static const struct {
	const char *host;
	int64_t age_sec;
	bool refused;
} leases[] = {
	{ "far.example", 0, true },
	{ "far.example", STORE_LEASE_SEC - 5, true },
	{ "far.example", STORE_LEASE_SEC + 5, false },
	{ "far.example", -2 * STORE_LEASE_SEC, false }, /* of no clock */
};

/* Its locks are not seen here, or there are none. */
START_TEST(another_hosts_lease_holds_while_it_is_fresh)
{
	int i = _i % (int)ARRAY_SIZE(leases);

	begin();
	no_locks = _i >= (int)ARRAY_SIZE(leases);
	write_lease(leases[i].host, 7, "another-boot", "pid:[1]",
		    leases[i].age_sec);
	if (leases[i].refused)
		refused("process 7 on far.example");
	else
		store_lock_drop(take());
	close(fd);
}
END_TEST

static const char *const no_leases[] = {
	"",
	"\n\n\n",
	"platter-store-lock 2\nhost a\n",
	"platter-store-lock 1\nhost a\npid x\n",
	"\xff\xfe\0\0",
};

START_TEST(what_is_no_lease_keeps_nobody_out)
{
	char path[512];

	begin();
	snprintf(path, sizeof(path), "%s/lock", folder);
	unit_write(path, no_leases[_i], strlen(no_leases[_i]));
	store_lock_drop(take());
	close(fd);
}
END_TEST

START_TEST(a_lock_that_is_no_file_is_refused)
{
	struct store_lock *l = NULL;
	char path[512];

	begin();
	snprintf(path, sizeof(path), "%s/lock", folder);
	if (_i)
		ck_assert_int_eq(symlink("/dev/null", path), 0);
	else
		ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_lt(store_lock_take(fd, folder, &l, &err), 0);
	unit_says(&err, "lock");
	error_clear(&err);
	close(fd);
}
END_TEST

START_TEST(the_holder_is_shown_as_long_as_he_is_there)
{
	struct store_holder h = { 0 };
	struct store_lock *l;
	struct stat st;
	char path[512];

	begin();
	ck_assert_int_eq(store_lock_holder(fd, &h, &err), 0);
	l = take();
	ck_assert_int_eq(store_lock_holder(fd, &h, &err), 1);
	ck_assert_int_eq(h.pid, getpid());
	snprintf(path, sizeof(path), "%s/lock", folder);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	store_lock_drop(l);
	ck_assert_int_eq(store_lock_holder(fd, &h, &err), 0);
	write_lease("far.example", 7, "another-boot", "pid:[1]", 0);
	ck_assert_int_eq(store_lock_holder(fd, &h, &err), 1);
	ck_assert_str_eq(h.host, "far.example");
	close(fd);
}
END_TEST

START_TEST(a_lock_that_was_removed_is_lost)
{
	struct store_lock *l, *other;
	char path[512];
	int i;

	begin();
	l = take();
	must(store_lock_keep(l, &err), err);
	ck_assert(!store_lock_lost(l));
	snprintf(path, sizeof(path), "%s/lock", folder);
	ck_assert_int_eq(unlink(path), 0);
	other = take();
	for (i = 0; i < 2 * STORE_LEASE_BEAT_SEC * 10 && !store_lock_lost(l);
	     i++)
		usleep(100000);
	ck_assert(store_lock_lost(l));
	ck_assert(!store_lock_lost(other));
	store_lock_drop(l);
	refused(name_of(getpid()));
	store_lock_drop(other);
	close(fd);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, the_second_is_told_who_the_first_is, 0, 2);
	tcase_add_loop_test(tc, the_dead_keep_nobody_out, 0, 2);
	tcase_add_loop_test(tc, who_serves_has_it_and_not_who_forked_him, 0, 2);
	tcase_add_loop_test(tc, another_hosts_lease_holds_while_it_is_fresh, 0,
			    2 * (int)ARRAY_SIZE(leases));
	LOOP(tc, what_is_no_lease_keeps_nobody_out, no_leases);
	tcase_add_loop_test(tc, a_lock_that_is_no_file_is_refused, 0, 2);
	tcase_add_test(tc, the_holder_is_shown_as_long_as_he_is_there);
	tcase_add_test(tc, a_lock_that_was_removed_is_lost);
}

int main(void)
{
	return unit_main("store-lock", add);
}
