/* SPDX-License-Identifier: BSD-3-Clause */
#include "iouring/own-folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int own_folder_open(int at, const char *name, mode_t open_to, int *ret,
		    struct error *err)
{
	struct stat st;
	int fd;

	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, 0, "%s cannot be made: %s", name,
				 errno_text(errno));
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int code = -errno;

		if (fd >= 0)
			close(fd);
		return error_set(err, code, 0, "%s: %s", name,
				 errno_text(-code));
	}
	if (st.st_uid != geteuid() || st.st_mode & open_to) {
		close(fd);
		return error_set(err, -EPERM, 0,
				 "%s: others may %s it: its owner must be who "
				 "runs this, and its mode 0700",
				 name, open_to & 044 ? "read" : "write into");
	}
	*ret = fd;
	return 0;
}
