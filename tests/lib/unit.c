/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/unit.h"

#define THREADS_MAX 64

static char folder[PATH_MAX / 2];

const char *__tsan_default_suppressions(void);

/*
 * liburing maps and unmaps rings by system calls that ThreadSanitizer does
 * not see. A ring at the address of one whose thread has ended looks to it
 * like the same memory. Only a ring's own thread ever writes to its queue.
 */
__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void)
{
	return "race:io_uring_\n";
}

static int remove_one(const char *path, const struct stat *st, int kind,
		      struct FTW *f)
{
	return remove(path);
}

int unit_main(const char *name, void (*add)(TCase *tc))
{
	const char *tmp = getenv("TMPDIR");
	Suite *s = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *sr;
	int failed;

	snprintf(folder, sizeof(folder), "%s/platter-unit.XXXXXX",
		 tmp ? tmp : "/tmp");
	if (!mkdtemp(folder)) {
		perror(folder);
		return EXIT_FAILURE;
	}
	tcase_set_timeout(tc, 1200); /* meson has the limit of the whole */
	add(tc);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

unsigned int unit_rounds(unsigned int usual)
{
	const char *percent = getenv("PLATTER_ROUNDS");
	unsigned int n =
		percent ? usual * (unsigned int)atoi(percent) / 100 : usual;

	return n ? n : 1;
}

const char *unit_path(const char *fmt, ...)
{
	static char paths[32][PATH_MAX];
	static unsigned int next;
	char name[PATH_MAX / 2];
	char *path = paths[next++ % ARRAY_SIZE(paths)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

void unit_fill(void *buf, size_t len, unsigned int seed)
{
	uint8_t *p = buf;
	size_t i;

	seed = seed * 2654435761U + 1;
	for (i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (uint8_t)(seed >> 16);
	}
}

void unit_write(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	ck_assert_uint_eq(fwrite(data, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
}

void unit_need_openat2(void)
{
	struct open_how how = { .flags = O_PATH };
	long fd = syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof(how));

	if (fd < 0 && errno == ENOSYS) {
		puts("SKIP: no openat2() here");
		exit(77);
	}
	if (fd >= 0)
		close((int)fd);
}

unsigned int unit_open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

void unit_in_child(int (*fn)(void *opaque), void *opaque)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(fn(opaque));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status),
		      "the child ended with status 0x%x", status);
}

struct start {
	void (*fn)(unsigned int number);
	unsigned int number;
};

static void *run_start(void *opaque)
{
	struct start *s = opaque;

	s->fn(s->number);
	return NULL;
}

void unit_threads(unsigned int n, void (*fn)(unsigned int number))
{
	struct start starts[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	unsigned int i;

	ck_assert_uint_le(n, THREADS_MAX);
	for (i = 0; i < n; i++) {
		starts[i] = (struct start){ .fn = fn, .number = i };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, run_start,
						&starts[i]),
				 0);
	}
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

void unit_says(const struct error *err, const char *part)
{
	ck_assert_msg(strstr(err->msg, part) != NULL, "\"%s\" is not in: %s",
		      part, err->msg);
}
