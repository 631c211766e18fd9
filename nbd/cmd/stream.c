/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Standard input and output of convert. Whatever comes is kept first, as a disk
 * is read anywhere in it; what goes out is written in the disk's order, zeroes
 * too. Neither waits without looking whether it shall stop.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iouring/write.h"
#include "nbd/cmd/stop.h"
#include "nbd/cmd/stream.h"

#define LOOK_MSEC  100 /* at whether to stop */
#define UNIT_BYTES 4096U

bool stream_is(const char *operand)
{
	return !strcmp(operand, "-");
}

/* Until something can be done at @fd. -EINTR: stop. */
static int wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n;

	do {
		if (stop_signal())
			return -EINTR;
		n = poll(&p, 1, LOOK_MSEC);
	} while (!n || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

/* ---- in ---- */

static int in_failed(int code, struct error *err)
{
	return error_set(err, -code, 0, "standard input: %s", errno_text(code));
}

/* As much as fits, but for the end. Returns the bytes, or a negative errno. */
static ssize_t read_chunk(uint8_t *buf, size_t room)
{
	size_t have = 0;
	ssize_t n;
	int r;

	while (have < room) {
		r = wait_for(STDIN_FILENO, POLLIN);
		if (r < 0)
			return r;
		n = read(STDIN_FILENO, buf + have, room - have);
		if (!n)
			break;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		have += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)have;
}

/* All that comes, into @spool, sparse. */
static int keep(struct output *spool, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(COPY_CHUNK_BYTES);
	struct copy_chunk c = { .buf = buf };
	struct raw_sink s;
	ssize_t n;
	int r = 0;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	raw_sink_init(&s, spool->dst);
	for (;;) {
		n = read_chunk(buf, COPY_CHUNK_BYTES);
		if (n < 0)
			return in_failed((int)-n, err);
		if (!n)
			break;
		c.len = (size_t)n;
		r = s.sink.write(&s.sink, &c, err);
		if (r < 0) {
			error_prefix(err, "%s: what standard input brings",
				     spool->path);
			return r;
		}
		c.off += c.len;
	}
	if (!c.off)
		return error_set(err, -EINVAL, 0, "standard input is empty");
	return source_truncate(spool->dst, c.off, err);
}

/* A descriptor of the file @fd is, with a place in it of its own. */
static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

/* A file, from its beginning, is as good as one that was named. */
static bool is_whole_file(void)
{
	struct stat st;

	return !fstat(STDIN_FILENO, &st) &&
	       (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) &&
	       !lseek(STDIN_FILENO, 0, SEEK_CUR);
}

static int adopt(int fd, struct source **ret, struct error *err)
{
	int r = fd < 0 ? in_failed(errno, err)
		       : file_source_adopt(fd, FILE_BLOCK_DEVICE, ret, err);

	if (fd >= 0 && r < 0)
		error_prefix(err, "standard input");
	return r;
}

int stream_read(const char *beside, bool overwrite, struct output *spool,
		struct source **ret, struct error *err)
{
	const char *folder = getenv("TMPDIR");
	int r;

	if (isatty(STDIN_FILENO))
		return error_set(err, -EINVAL, 0,
				 "standard input is a terminal, which brings "
				 "no disk");
	if (is_whole_file())
		return adopt(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), ret, err);
	r = beside ? output_begin(spool, beside, overwrite, err)
		   : output_scratch(spool, folder ? folder : "/var/tmp", err);
	if (r >= 0)
		r = keep(spool, err);
	return r < 0 ? r
		     : adopt(fcntl(source_file(spool->dst)->fd, F_DUPFD_CLOEXEC,
				   3),
			     ret, err);
}

/* ---- out ---- */

static int write_all(struct stream_sink *s, const uint8_t *buf, size_t len,
		     struct error *err)
{
	ssize_t n;
	int r;

	for (; len; buf += n, len -= (size_t)n) {
		r = wait_for(s->fd, POLLOUT);
		n = r < 0 ? r : write(s->fd, buf, len);
		if (r >= 0 && n < 0)
			r = -errno;
		if (r == -EAGAIN || (r == -EINTR && !stop_signal()))
			n = 0;
		else if (r < 0)
			return error_set(err, r, s->off, "standard output: %s",
					 errno_text(-r));
		s->off += (uint64_t)n;
	}
	return 0;
}

static int write_zeroes(struct stream_sink *s, uint64_t until,
			struct error *err)
{
	static const uint8_t zeroes[64U << 10];
	int r = 0;

	while (r >= 0 && s->off < until)
		r = write_all(s, zeroes,
			      (size_t)min_u64(until - s->off, sizeof(zeroes)),
			      err);
	return r;
}

/* One chunk at a time comes here, and in order. */
static int stream_place(struct copy_sink *sink, struct copy_chunk *c,
			struct error *err)
{
	struct stream_sink *s = container_of(sink, struct stream_sink, sink);
	int r = write_zeroes(s, c->off, err);

	return r < 0 ? r : write_all(s, c->buf, c->len, err);
}

static int stream_written(struct copy_sink *sink, struct copy_chunk *c,
			  struct error *err)
{
	return 0;
}

/* A pipe is opened once more: only so a write to it does not wait. */
static int open_output(void)
{
	struct stat st;
	int fd = -1;

	if (!fstat(STDOUT_FILENO, &st) && S_ISFIFO(st.st_mode))
		fd = reopen(STDOUT_FILENO, O_WRONLY | O_NONBLOCK);
	return fd < 0 ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : fd;
}

int stream_sink_init(struct stream_sink *s, struct error *err)
{
	*s = (struct stream_sink){
		.sink = { .unit_bytes = UNIT_BYTES,
			  .place = stream_place,
			  .write = stream_written },
		.fd = open_output(),
	};
	return s->fd < 0 ? error_set(err, -errno, 0, "standard output: %s",
				     errno_text(errno))
			 : 0;
}

int stream_sink_finish(struct stream_sink *s, uint64_t bytes, struct error *err)
{
	return write_zeroes(s, bytes, err);
}

void stream_sink_done(struct stream_sink *s)
{
	closep(&s->fd);
}
