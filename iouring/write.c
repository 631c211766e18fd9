/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iouring/engine.h"
#include "iouring/write.h"

int source_write(struct source *s, const void *buf, size_t len, uint64_t off,
		 struct error *err)
{
	struct batch_io io = { .src = s,
			       .off = off,
			       .buf = (void *)(uintptr_t)buf,
			       .len = len,
			       .op = BATCH_WRITE };
	int r = len ? batch_run(&io, 1) : 0;

	if (r < 0)
		return error_set(err, r, off,
				 "%zu bytes at %" PRIu64
				 " cannot be written: %s",
				 len, off, errno_text(-r));
	return 0;
}

/* EINTR aside, a failed fdatasync() must not be tried again. */
static int run_event(const struct write_event *e)
{
	int fd = source_file(e->src)->fd, r;

	do {
		switch (e->op) {
		case WRITE_SYNC:
			wait_begins();
			r = fdatasync(fd);
			wait_ends();
			break;
		case WRITE_PUNCH:
			r = fallocate(
				fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)e->off, (off_t)e->len);
			break;
		case WRITE_ZERO:
			r = fallocate(
				fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				(off_t)e->off, (off_t)e->len);
			break;
		case WRITE_ALLOCATE:
			r = fallocate(fd, 0, (off_t)e->off, (off_t)e->len);
			break;
		case WRITE_TRUNCATE:
			r = ftruncate(fd, (off_t)e->off);
			break;
		default:
			return -EINVAL;
		}
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int do_event(const struct write_event *e, const char *what,
		    struct error *err)
{
	int r = source_is_writable(e->src) ? write_before(e) : -EROFS;

	if (!r)
		r = run_event(e);
	write_after(e, r);
	if (r < 0)
		return error_set(err, r, e->off, "%s: %s", what,
				 errno_text(-r));
	return 0;
}

int source_sync(struct source *s, struct error *err)
{
	struct write_event e = { .op = WRITE_SYNC, .src = s };

	return do_event(&e, "what was written cannot be made durable", err);
}

int source_punch(struct source *s, uint64_t off, uint64_t len,
		 struct error *err)
{
	struct write_event e = {
		.op = WRITE_PUNCH, .src = s, .off = off, .len = len
	};

	return do_event(&e, "room cannot be given back", err);
}

int source_zero(struct source *s, uint64_t off, uint64_t len, struct error *err)
{
	struct write_event e = {
		.op = WRITE_ZERO, .src = s, .off = off, .len = len
	};

	/* What a device can give back reads as zeroes, and takes no room. */
	if (!source_punch(s, off, len, NULL))
		return 0;
	return do_event(&e, "zeroes cannot be written", err);
}

int source_allocate(struct source *s, uint64_t off, uint64_t len,
		    struct error *err)
{
	struct write_event e = {
		.op = WRITE_ALLOCATE, .src = s, .off = off, .len = len
	};

	return do_event(&e, "room cannot be set aside", err);
}

int source_truncate(struct source *s, uint64_t bytes, struct error *err)
{
	struct write_event e = { .op = WRITE_TRUNCATE, .src = s, .off = bytes };

	return do_event(&e, "the file's size cannot be set", err);
}

int source_measure(const struct source *s, uint64_t *ret_bytes,
		   uint64_t *ret_room, struct error *err)
{
	struct stat st;

	if (fstat(source_file(s)->fd, &st) < 0)
		return error_set(err, -errno, 0, "fstat: %s",
				 errno_text(errno));
	if (ret_bytes)
		*ret_bytes = (uint64_t)st.st_size;
	if (ret_room)
		*ret_room = (uint64_t)st.st_blocks * 512;
	return 0;
}

int sync_folder_of(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 1;
	char *folder = strndup(slash ? path : ".", n ? n : 1);
	int fd = -1, r = 0;

	if (!folder)
		return error_set(err, -ENOMEM, 0, "out of memory");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	wait_begins();
	if (fd < 0 || fsync(fd) < 0)
		r = error_set(err, -errno, 0, "%s: %s", folder,
			      errno_text(errno));
	wait_ends();
	closep(&fd);
	free(folder);
	return r;
}
