/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/new-file.h"
#include "iouring/util.h"
#include "nbd/keep.h"

/* The first of them and how many there are: "FIRST:N". */
#define VARIABLE "PLATTER_KEPT_FD"

/* Those of a server before, and what it opens, lie beneath. */
#define FD_MIN 100

static int taken_first;
static size_t taken;

const char *keep_folder(void)
{
	return new_file_temp_folder();
}

static int open_one(int min, int *ret, struct error *err)
{
	int fd = -1, r = new_file_nameless(keep_folder(), &fd, err);

	if (r < 0)
		return r;
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, min);
	if (*ret < 0)
		r = error_set(err, -errno, 0, "temporary overlay: %s",
			      errno_text(errno));
	close(fd);
	return r;
}

int keep_open(size_t overlays, struct keep *ret, struct error *err)
{
	size_t n = 1 + 2 * overlays;
	struct keep k = { 0 };
	int r = 0;

	if (overlays > KEEP_OVERLAYS_MAX)
		return error_set(err, -EINVAL, 0,
				 "%zu temporary overlays are over the limit of "
				 "%u",
				 overlays, KEEP_OVERLAYS_MAX);
	k.fds = calloc(n, sizeof(*k.fds));
	if (!k.fds)
		return error_set(err, -ENOMEM, 0, "out of memory");
	/* Out of the way of where a server gets them. */
	for (; k.n < n && r >= 0; k.n += r >= 0)
		r = open_one(FD_MIN + (int)n, &k.fds[k.n], err);
	if (r < 0)
		keep_done(&k);
	else
		*ret = k;
	return r;
}

int keep_adopt(const int *fds, size_t n, struct keep *ret, struct error *err)
{
	ret->fds = n ? malloc(n * sizeof(*fds)) : NULL;
	if (n && !ret->fds)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (n)
		memcpy(ret->fds, fds, n * sizeof(*fds));
	ret->n = n;
	return 0;
}

void keep_done(struct keep *k)
{
	while (k->n)
		close(k->fds[--k->n]);
	free(TAKE_PTR(k->fds));
}

int keep_hand_on(const struct keep *k, int first)
{
	char text[32];
	size_t i;

	for (i = 0; i < k->n; i++)
		if (dup2(k->fds[i], first + (int)i) < 0)
			return -1;
	snprintf(text, sizeof(text), "%d:%zu", first, k->n);
	return k->n ? setenv(VARIABLE, text, 1) : 0;
}

void keep_take(void)
{
	const char *text = getenv(VARIABLE);
	unsigned int n = 0, i;
	int first = 0;

	if (text && sscanf(text, "%d:%u", &first, &n) == 2 &&
	    first > STDERR_FILENO && n <= KEEP_FILES_MAX) {
		for (i = 0; i < n; i++)
			if (fcntl(first + (int)i, F_SETFD, FD_CLOEXEC))
				break;
		taken_first = first;
		taken = i;
	}
	unsetenv(VARIABLE);
}

static int keep_fd(size_t i)
{
	return i < taken ? taken_first + (int)i : -1;
}

int keep_peers(void)
{
	return keep_fd(0);
}

int keep_disk(size_t overlay)
{
	return keep_fd(1 + 2 * overlay);
}

int keep_log(size_t overlay)
{
	return keep_fd(2 + 2 * overlay);
}
