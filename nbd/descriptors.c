/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "iouring/util.h"

/* Above this, loops over all possible descriptors become slow. */
#define RAISED_MAX 524288U

#define RESERVE_MIN 24U
#define RESERVE_MAX 256U

static struct rlimit inherited;
static bool raised;

static void restore(void)
{
	setrlimit(RLIMIT_NOFILE, &inherited);
}

void descriptors_raise(void)
{
	struct rlimit now;

	if (!raised && getrlimit(RLIMIT_NOFILE, &inherited))
		return;
	now = inherited;
	now.rlim_cur = min_u64(now.rlim_max, RAISED_MAX);
	if (now.rlim_cur <= inherited.rlim_cur)
		return;
	setrlimit(RLIMIT_NOFILE, &now);
	if (!raised)
		pthread_atfork(NULL, NULL, restore);
	raised = true;
}

unsigned long descriptors_max(void)
{
	struct rlimit now;

	return getrlimit(RLIMIT_NOFILE, &now) ? 1024 : now.rlim_cur;
}

/*
 * The kernel gives the lowest one that is free: when that is below the reserve,
 * there is at least one that is no part of it.
 */
int descriptors_check(bool more, struct error *err)
{
	unsigned long max = descriptors_max();
	unsigned long reserve =
		min_u64(max_u64(max / 8, RESERVE_MIN), RESERVE_MAX);
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);

	if (fd < 0 && errno == EBADF)
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	/* Who is connected may still open his export. */
	if (more)
		reserve /= 2;
	if (fd >= 0 && (unsigned long)fd + reserve < max)
		return 0;
	return error_set(err, -EMFILE, 0,
			 "no file descriptors are left for another client "
			 "(RLIMIT_NOFILE is %lu)",
			 max);
}
