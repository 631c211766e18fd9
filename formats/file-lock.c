/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "formats/file-lock.h"

enum { USE_AT = 100, BAR_AT = 200 };
enum { USE_READ = 0, USE_WRITE = 1, USE_RESIZE = 3 };

static struct flock one_byte(short type, int at)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1
	};
}

static int hold(int fd, int at)
{
	struct flock l = one_byte(F_RDLCK, at);

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* Does somebody else hold this byte? */
static int is_held(int fd, int at)
{
	struct flock l = one_byte(F_WRLCK, at);

	if (fcntl(fd, F_OFD_GETLK, &l) < 0)
		return -errno;
	return l.l_type != F_UNLCK;
}

struct locks {
	const int *ours, *theirs; /* bytes, ended by 0 */
};

/*
 * First all that we hold, then a look at what others do: of two who come at
 * once at least one sees the other.
 */
static int lock_bytes(int fd, const struct locks *l)
{
	const int *at;
	int r = 0;

	for (at = l->ours; *at && r >= 0; at++)
		r = hold(fd, *at);
	for (at = l->theirs; *at && !r; at++)
		r = is_held(fd, *at);
	return r;
}

/* @flags: what the file is opened with once more. */
static int lock(const struct source *src, int flags, const struct locks *l,
		int *ret_fd, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	char again[32];
	int r;

	snprintf(again, sizeof(again), "/proc/self/fd/%d", src->fd);
	fd = open(again, flags | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, 0, "cannot be locked: %s",
				 errno_text(errno));
	r = lock_bytes(fd, l);
	switch (r) {
	case 0:
	case -ENOLCK:
	case -EINVAL:
	case -EOPNOTSUPP:
		*ret_fd = TAKE_FD(fd);
		return 0;
	case 1:
	case -EAGAIN:
	case -EACCES:
		return error_set(err, -EBUSY, 0,
				 "is in use by another process, which may "
				 "write it or relies on that nobody does");
	default:
		return error_set(err, r, 0, "cannot be locked: %s",
				 errno_text(-r));
	}
}

int file_lock_writer(const struct source *src, int *ret_fd, struct error *err)
{
	static const int ours[] = { USE_AT + USE_READ,	 USE_AT + USE_WRITE,
				    USE_AT + USE_RESIZE, BAR_AT + USE_WRITE,
				    BAR_AT + USE_RESIZE, 0 };
	static const int theirs[] = { BAR_AT + USE_READ,   BAR_AT + USE_WRITE,
				      BAR_AT + USE_RESIZE, USE_AT + USE_WRITE,
				      USE_AT + USE_RESIZE, 0 };

	return lock(src, O_RDWR, &(struct locks){ ours, theirs }, ret_fd, err);
}

int file_lock_reader(const struct source *src, int *ret_fd, struct error *err)
{
	static const int ours[] = { USE_AT + USE_READ, BAR_AT + USE_WRITE,
				    BAR_AT + USE_RESIZE, 0 };
	static const int theirs[] = { BAR_AT + USE_READ, USE_AT + USE_WRITE,
				      USE_AT + USE_RESIZE, 0 };

	return lock(src, O_RDONLY, &(struct locks){ ours, theirs }, ret_fd,
		    err);
}
