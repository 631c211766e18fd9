/* SPDX-License-Identifier: BSD-3-Clause */
/* Files and block devices as sources. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "iouring/engine.h"
#include "iouring/nowait.h"

atomic_uint files_closed;

struct open_file {
	struct source base;
	struct file_source file;
	bool holes; /* a regular file that takes less room than its size */

	/*
	 * The data run that lseek() found last, [run_off, run_end): walks go
	 * forwards, and most steps end in the run of the step before.
	 */
	pthread_mutex_t run_lock;
	uint64_t run_off, run_end;
};

static void file_free(struct source *s)
{
	struct open_file *f = container_of(s, struct open_file, base);

	struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	/*
	 * A ring may keep the file for a while; locks on it end now. (The
	 * kernel keeps them for a process that is killed, until nothing is
	 * in flight.)
	 */
	fcntl(f->file.fd, F_OFD_SETLK, &all);
	atomic_fetch_add(&files_closed, 1);
	close(f->file.fd);
	pthread_mutex_destroy(&f->run_lock);
	free(f);
}

/* Asks the file system; the run of data or hole at @off ends at *ret_end. */
static int seek_run(struct source *s, uint64_t off, bool *ret_hole,
		    uint64_t *ret_end)
{
	off_t data, hole;

	data = lseek(s->file->fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {
		*ret_hole = true;
		*ret_end = s->bytes;
		return 0;
	}
	if (data < 0)
		return -errno;
	if ((uint64_t)data > off) {
		*ret_hole = true;
		*ret_end = (uint64_t)data;
		return 0;
	}
	hole = lseek(s->file->fd, (off_t)off, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_hole = false;
	*ret_end = max_u64((uint64_t)hole, off + 1);
	return 0;
}

static int file_find_hole(struct source *s, uint64_t off, uint64_t len,
			  bool *ret_hole, uint64_t *ret_len)
{
	struct open_file *f = container_of(s, struct open_file, base);
	uint64_t end = off + len;
	int r = 0;

	*ret_hole = false;
	*ret_len = len;
	if (!f->holes)
		return 0;
	if (lock_or_again(&f->run_lock) < 0)
		return -EAGAIN;
	if (off >= f->run_off && off < f->run_end) {
		end = f->run_end;
	} else if (!may_wait()) {
		r = -EAGAIN; /* lseek() may read the file system's tables */
	} else {
		r = seek_run(s, off, ret_hole, &end);
		/* What is written soon changes. */
		if (!r && !*ret_hole && !f->file.writable) {
			f->run_off = off;
			f->run_end = end;
		}
	}
	pthread_mutex_unlock(&f->run_lock);
	/* A file system that cannot say (r < 0) has no holes to tell of. */
	if (!r)
		*ret_len = min_u64(len, end - off);
	return r == -EAGAIN ? r : 0;
}

static void file_prefetch(struct source *s, uint64_t off, uint64_t len)
{
	if (s->file->align == 1)
		posix_fadvise(s->file->fd, (off_t)off, (off_t)len,
			      POSIX_FADV_WILLNEED);
}

static void file_identify(const struct source *s, struct source_identity *ret)
{
	struct stat st;

	if (fstat(s->file->fd, &st) < 0)
		return;
	identity_set_file(ret, &st);
	ret->mtime = st.st_mtim;
	if (S_ISREG(st.st_mode))
		ret->bytes = (uint64_t)st.st_size;
}

static const struct source_ops file_ops = {
	.name = "file",
	.find_hole = file_find_hole,
	.prefetch = file_prefetch,
	.identify = file_identify,
	.free = file_free,
};

static int set_status_flags(int fd, unsigned int flags, struct error *err)
{
	int fl = fcntl(fd, F_GETFL);

	/* O_NONBLOCK was for the opening; the ring would take it at its word. */
	fl &= ~O_NONBLOCK;
	if (flags & FILE_DIRECT)
		fl |= O_DIRECT;
	if (!fcntl(fd, F_SETFL, fl))
		return 0;
	if (flags & FILE_DIRECT)
		return error_set(err, -ENOTSUP, 0,
				 "the file system does not support O_DIRECT "
				 "(%s); leave %s out",
				 errno_text(errno),
				 AS_GIVEN("direct=true", "--direct"));
	return error_set(err, -errno, 0, "fcntl: %s", errno_text(errno));
}

/* Checks what @fd is and finds its size. */
static int look_at(int fd, unsigned int flags, uint64_t *ret_bytes,
		   bool *ret_holes, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, 0, "fstat: %s",
				 errno_text(errno));
	if (S_ISREG(st.st_mode)) {
		*ret_bytes = (uint64_t)st.st_size;
		*ret_holes = st.st_blocks < (st.st_size + 511) / 512;
		return 0;
	}
	if (S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, 0, "is a folder, not an image");
	if (!S_ISBLK(st.st_mode) || !(flags & FILE_BLOCK_DEVICE))
		return error_set(err, -EPERM, 0, "is not a regular file%s",
				 flags & FILE_BLOCK_DEVICE ? " or block device"
							   : "");
	*ret_holes = false;
	if (ioctl(fd, BLKGETSIZE64, ret_bytes) < 0)
		return error_set(err, -errno, 0, "BLKGETSIZE64: %s",
				 errno_text(errno));
	return 0;
}

/* Those do not know RWF_NOWAIT, and have no need of it. */
static bool is_in_memory(int fd)
{
	struct statfs st;

	return !fstatfs(fd, &st) &&
	       (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC);
}

/* Past the page cache this is a read that is aligned to nothing: EINVAL. */
static bool knows_nowait(int fd)
{
	char byte;
	struct iovec v = { &byte, 1 };

	return preadv2(fd, &v, 1, 1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

int file_source_adopt(int fd, unsigned int flags, struct source **ret,
		      struct error *err)
{
	CLEANUP(closep) int own = fd;
	struct open_file *f;
	uint64_t bytes = 0;
	bool holes = false;
	int r;

	r = look_at(fd, flags, &bytes, &holes, err);
	if (r < 0)
		return r;
	r = set_status_flags(fd, flags, err);
	if (r < 0)
		return r;
	f = calloc(1, sizeof(*f));
	if (!f)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&f->base, &file_ops, bytes);
	f->file.fd = TAKE_FD(own);
	f->file.align = flags & FILE_DIRECT ? DIRECT_ALIGN : 1;
	f->file.id = f->base.id;
	f->file.in_memory = is_in_memory(f->file.fd);
	f->file.knows_nowait = f->file.in_memory || knows_nowait(f->file.fd);
	f->base.file = &f->file;
	f->holes = holes;
	pthread_mutex_init(&f->run_lock, NULL);
	*ret = &f->base;
	return 0;
}

int file_source_open(const char *path, unsigned int flags, struct source **ret,
		     struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return error_set(err, -errno, 0, "cannot be opened: %s",
				 errno_text(errno));
	return file_source_adopt(fd, flags, ret, err);
}

int file_source_adopt_rw(int fd, unsigned int flags, struct source **ret,
			 struct error *err)
{
	int r = file_source_adopt(fd, flags, ret, err);
	struct open_file *f;
	struct stat st;

	if (r < 0)
		return r;
	f = container_of(*ret, struct open_file, base);
	f->file.writable = true;
	if (!fstat(f->file.fd, &st) && S_ISBLK(st.st_mode))
		return 0;
	f->base.bytes = SOURCE_WRITABLE_BYTES;
	f->holes = true;
	return 0;
}

int file_source_open_rw(const char *path, unsigned int flags,
			struct source **ret, struct error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return error_set(err, -errno, 0,
				 "cannot be opened for writing: %s",
				 errno_text(errno));
	return file_source_adopt_rw(fd, flags, ret, err);
}
