/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files beneath a folder that is open, whatever anybody makes of the names in
 * it meanwhile: openat2(2) decides, and what was looked at is what is opened.
 * Any thread.
 */
#ifndef IOURING_BENEATH_H
#define IOURING_BENEATH_H

#include <stdbool.h>
#include <sys/types.h>

/* How links on the way are taken. Those of /proc lead nowhere. */
enum beneath_links {
	BENEATH_NO_LINKS, /* none, the last part included: -ELOOP */
	BENEATH_LINKS, /* those that stay beneath the folder; else -EXDEV */
};

/*
 * Opens @name, which begins at the folder @dir (no AT_FDCWD), with open(2)'s
 * @flags and, for O_CREAT, @mode. A descriptor, or a negative errno.
 */
int open_beneath(int dir, const char *name, int flags, mode_t mode,
		 enum beneath_links links);

/*
 * The regular file @name to be read: first by O_PATH, which wakes no device and
 * waits for no FIFO; then that file, not that name, is opened. -EBADF: it is
 * no regular file.
 */
int open_file_beneath(int dir, const char *name, enum beneath_links links);

#endif
