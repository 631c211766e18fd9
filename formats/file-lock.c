/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "formats/file-lock.h"
#include "iouring/util.h"

#define RETRY_USEC    5000U
#define NSEC_PER_MSEC 1000000ULL

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

void file_unlock(const struct source *src)
{
	struct flock l = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	l.l_start = USE_AT;
	l.l_len = 2 * (BAR_AT - USE_AT);
	fcntl(source_file(src)->fd, F_OFD_SETLK, &l);
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

static int lock(const struct source *src, const struct locks *l,
		const char *hint, struct error *err)
{
	int r = lock_bytes(source_file(src)->fd, l);

	switch (r) {
	case 0:
	case -ENOLCK:
	case -EINVAL:
	case -EOPNOTSUPP:
		return 0;
	case 1:
	case -EAGAIN:
	case -EACCES:
		file_unlock(src);
		return error_set(err, -EBUSY, 0,
				 "is in use by another process, which may "
				 "write it or relies on that nobody does%s",
				 hint);
	default:
		return error_set(err, r, 0, "cannot be locked: %s",
				 errno_text(-r));
	}
}

int file_lock_writer(const struct source *src, unsigned int patience_ms,
		     struct error *err)
{
	static const int ours[] = { USE_AT + USE_READ,	 USE_AT + USE_WRITE,
				    USE_AT + USE_RESIZE, BAR_AT + USE_WRITE,
				    BAR_AT + USE_RESIZE, 0 };
	static const int theirs[] = { BAR_AT + USE_READ,   BAR_AT + USE_WRITE,
				      BAR_AT + USE_RESIZE, USE_AT + USE_WRITE,
				      USE_AT + USE_RESIZE, 0 };
	uint64_t end = now_nsec() + patience_ms * NSEC_PER_MSEC;
	int r;

	for (;;) {
		r = lock(src, &(struct locks){ ours, theirs }, "", err);
		if (r != -EBUSY || now_nsec() >= end)
			return r;
		error_clear(err);
		usleep(RETRY_USEC);
	}
}

int file_lock_reader(const struct source *src, struct error *err)
{
	static const int ours[] = { USE_AT + USE_READ, BAR_AT + USE_WRITE,
				    BAR_AT + USE_RESIZE, 0 };
	static const int theirs[] = { BAR_AT + USE_READ, USE_AT + USE_WRITE,
				      USE_AT + USE_RESIZE, 0 };

	return lock(src, &(struct locks){ ours, theirs },
		    AS_GIVEN(": force=share reads it all the same",
			     ": --force-share reads it all the same"),
		    err);
}
