/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/new-file.h"
#include "iouring/util.h"

static int fail(struct error *err)
{
	return error_set(err, -errno, 0, "cannot be made: %s",
			 errno_text(errno));
}

static bool has_no_nameless(int code)
{
	return code == EOPNOTSUPP || code == EISDIR || code == EINVAL ||
	       code == ENOENT;
}

static int open_nameless(const char *folder)
{
	return open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Is the file that was opened still the one of that name? */
static bool is_at(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !lstat(path, &b) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino && S_ISREG(b.st_mode);
}

/* Whoever makes it holds a lock; who finds it without one takes it over. */
static int open_named(struct new_file *f, struct error *err)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (asprintf(&f->temp, "%s" NEW_FILE_SUFFIX, f->path) < 0) {
		f->temp = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	f->fd = open(f->temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (f->fd < 0)
		return fail(err);
	if ((fcntl(f->fd, F_OFD_SETLK, &all) < 0 &&
	     (errno == EAGAIN || errno == EACCES)) ||
	    !is_at(f->fd, f->temp)) {
		free(TAKE_PTR(f->temp));
		return error_set(err, -EBUSY, 0,
				 "another process is making it");
	}
	return ftruncate(f->fd, 0) < 0 ? fail(err) : 0;
}

int new_file_begin(const char *path, struct new_file *ret, struct error *err)
{
	CLEANUP(freep) char *folder = folder_of(path);
	struct new_file f = { .path = strdup(path), .fd = -1 };
	int r = 0;

	if (!folder || !f.path) {
		r = error_set(err, -ENOMEM, 0, "out of memory");
	} else {
		f.fd = open_nameless(folder);
		if (f.fd < 0)
			r = has_no_nameless(errno) ? open_named(&f, err)
						   : fail(err);
	}
	if (r < 0)
		new_file_done(&f);
	else
		*ret = f;
	return r;
}

void new_file_done(struct new_file *f)
{
	if (f->temp)
		unlink(f->temp);
	closep(&f->fd);
	f->fd = -1;
	free(TAKE_PTR(f->temp));
	free(TAKE_PTR(f->path));
}

/* Where there are no hard links: at worst two who come at once both win. */
static int name_by_rename(const struct new_file *f)
{
	if (!renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	if (!access(f->path, F_OK)) {
		errno = EEXIST;
		return -1;
	}
	return rename(f->temp, f->path);
}

static int give_name(struct new_file *f)
{
	char self[32];

	if (f->temp) {
		if (!link(f->temp, f->path))
			return 0;
		if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
			return -1;
		if (name_by_rename(f) < 0)
			return -1;
		free(TAKE_PTR(f->temp));
		return 0;
	}
	snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW);
}

int new_file_name(struct new_file *f, struct error *err)
{
	return give_name(f) < 0
		       ? error_set(err, -errno, 0, "%s", errno_text(errno))
		       : 0;
}

int new_file_nameless(const char *folder, int *ret, struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	int fd = open_nameless(folder);

	if (fd < 0 && has_no_nameless(errno)) {
		if (asprintf(&path, "%s/.platter-XXXXXX", folder) < 0)
			path = NULL;
		fd = path ? mkostemp(path, O_CLOEXEC) : -1;
		if (fd >= 0)
			unlink(path);
	}
	if (fd < 0)
		return error_set(err, -errno, 0,
				 "%s: no file can be made here: %s", folder,
				 errno_text(errno));
	*ret = fd;
	return 0;
}

const char *new_file_temp_folder(void)
{
	const char *folder = getenv("TMPDIR");

	return folder && *folder ? folder : "/var/tmp";
}
