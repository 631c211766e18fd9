/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "iouring/beneath.h"
#include "iouring/util.h"

int open_beneath(int dir, const char *name, int flags, mode_t mode,
		 enum beneath_links links)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve =
			RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS |
			(links == BENEATH_NO_LINKS ? RESOLVE_NO_SYMLINKS : 0),
	};
	long r;

	/* EAGAIN: something in the path was renamed meanwhile. */
	do {
		r = syscall(SYS_openat2, dir, name, &how, sizeof(how));
	} while (r < 0 && (errno == EAGAIN || errno == EINTR));
	return r < 0 ? -errno : (int)r;
}

int open_file_beneath(int dir, const char *name, enum beneath_links links)
{
	CLEANUP(closep) int fd = open_beneath(dir, name, O_PATH, 0, links);
	char self[64];
	struct stat st;
	int r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EBADF;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	r = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return r < 0 ? -errno : r;
}
