/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "formats/new-file.h"
#include "iouring/util.h"
#include "nbd/keep.h"

/* The first of them, as a number. */
#define VARIABLE "PLATTER_KEPT_FD"

static int taken[KEEP_FILES] = { -1, -1, -1 };

const char *keep_folder(void)
{
	return new_file_temp_folder();
}

int keep_open(int ret[KEEP_FILES], struct error *err)
{
	int fds[KEEP_FILES] = { -1, -1, -1 }, i, fd = -1, r = 0;

	for (i = 0; i < KEEP_FILES && r >= 0; i++) {
		r = new_file_nameless(keep_folder(), &fd, err);
		if (r < 0)
			break;
		/* Out of the way of those that a server gets. */
		fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
		close(fd);
		if (fds[i] < 0)
			r = error_set(err, -errno, 0, "temporary overlay: %s",
				      errno_text(errno));
	}
	if (r < 0) {
		keep_done(fds);
		return r;
	}
	for (i = 0; i < KEEP_FILES; i++)
		ret[i] = fds[i];
	return 0;
}

void keep_done(int fds[KEEP_FILES])
{
	int i;

	for (i = 0; i < KEEP_FILES; i++) {
		closep(&fds[i]);
		fds[i] = -1;
	}
}

int keep_hand_on(const int fds[KEEP_FILES], int first)
{
	char text[16];
	int i;

	for (i = 0; i < KEEP_FILES; i++)
		if (dup2(fds[i], first + i) < 0)
			return -1;
	snprintf(text, sizeof(text), "%d", first);
	return setenv(VARIABLE, text, 1);
}

void keep_take(void)
{
	const char *text = getenv(VARIABLE);
	int first = text ? atoi(text) : 0, i;

	for (i = 0; i < KEEP_FILES && first > STDERR_FILENO; i++)
		if (!fcntl(first + i, F_SETFD, FD_CLOEXEC))
			taken[i] = first + i;
	unsetenv(VARIABLE);
}

int keep_fd(enum keep which)
{
	return taken[which];
}
