/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing without a ring, and what a piece of either is: both
 * engines cut and continue by the same rules.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "iouring/engine.h"

bool piece_needs_bounce(const struct batch_io *io, size_t pos)
{
	uint64_t mask = source_file(io->src)->align - 1;

	return ((io->src->root_off + io->off + pos) | (io->len - pos) |
		((uintptr_t)io->buf + pos)) &
	       mask;
}

bool piece_cut(struct piece *p, struct batch_io *io, size_t pos,
	       uint8_t *bounce)
{
	uint64_t at = io->src->root_off + io->off + pos;
	size_t rest = io->len - pos;

	*p = (struct piece){ .io = io, .pos = pos, .want = rest };
	if (!piece_needs_bounce(io, pos)) {
		p->fd_off = at;
		p->buf = (uint8_t *)io->buf + pos;
		p->len = rest;
		return true;
	}
	if (!bounce)
		return false;
	p->fd_off = round_down(at, source_file(io->src)->align);
	p->buf = bounce;
	p->skip = (size_t)(at - p->fd_off);
	p->len = min_size(
		BOUNCE_BYTES,
		(size_t)round_up(p->skip + rest, source_file(io->src)->align));
	p->want = min_size(rest, p->len - p->skip);
	/* The ends of a write are aligned, only its memory is not. */
	if (io->op == BATCH_WRITE)
		memcpy(bounce, (uint8_t *)io->buf + pos, p->want);
	return true;
}

int piece_advance(struct piece *p, ssize_t res)
{
	uint8_t *dest = (uint8_t *)p->io->buf + p->pos;

	if (res == -EINTR || res == -EAGAIN)
		return 0;
	if (res < 0)
		return (int)res;
	p->got += (size_t)res;
	if (p->got >= p->skip + p->want) {
		if (p->buf != dest && p->io->op == BATCH_READ)
			memcpy(dest, p->buf + p->skip, p->want);
		return 1;
	}
	/*
	 * The range lies inside the file, so its end here means it shrank; a
	 * write that writes nothing is not known to happen.
	 */
	if (!res)
		return -EIO;
	/* O_DIRECT goes on from an aligned place, or not at all. */
	if (p->got % source_file(p->io->src)->align) {
		size_t whole = (size_t)round_down(
			p->got, source_file(p->io->src)->align);

		if (p->got - (size_t)res >= whole && p->io->op == BATCH_READ)
			return -EIO;
		p->got = whole;
	}
	return 0;
}

/* Bytes, or a negative errno. */
static ssize_t piece_run(const struct piece *p)
{
	const struct file_source *f = source_file(p->io->src);
	off_t at = (off_t)(p->fd_off + p->got);
	uint8_t *buf = p->buf + p->got;
	size_t n = p->len - p->got;
	ssize_t ret;

	if (p->io->op == BATCH_WRITE) {
		/* It is taken by the page cache, as a rule. */
		if (f->align > 1)
			wait_begins();
		ret = pwrite(f->fd, buf, n, at);
		ret = ret < 0 ? -errno : ret;
		if (f->align > 1)
			wait_ends();
		return ret;
	}
	if (engine_waits && !nowait_read_file(f, buf, n, (uint64_t)at))
		return (ssize_t)n;
	wait_begins();
	ret = pread(f->fd, buf, n, at);
	ret = ret < 0 ? -errno : ret;
	wait_ends();
	return ret;
}

int sync_run(struct batch_io *io, size_t pos)
{
	struct piece p;
	int r;

	while (pos < io->len) {
		if (!piece_cut(&p, io, pos, NULL)) {
			uint8_t *bounce = engine_bounce();

			if (!bounce)
				return io->ret = -ENOMEM;
			piece_cut(&p, io, pos, bounce);
		}
		do {
			r = piece_advance(&p, piece_run(&p));
		} while (!r);
		if (r < 0)
			return io->ret = r;
		pos += p.want;
	}
	return io->ret = 0;
}

bool file_write_is_unaligned(const struct batch_io *io)
{
	return ((io->src->root_off + io->off) | io->len) &
	       (source_file(io->src)->align - 1);
}

/* What of the aligned block at @at there is in the file, else zeroes. */
static int read_block(int fd, uint8_t *block, size_t bytes, uint64_t at)
{
	size_t got = 0;
	ssize_t n;

	memset(block, 0, bytes);
	do {
		n = pread(fd, block + got, bytes - got, (off_t)(at + got));
		if (n < 0 && errno != EINTR)
			return -errno;
		got += n > 0 ? (size_t)n : 0;
	} while (n && got < bytes && !(got & 511));
	return 0;
}

/* By the file's id: two files may share one, a file always has the same. */
#define EDGE_LOCKS 16U
static pthread_mutex_t edge_locks[EDGE_LOCKS] = {
	[0 ... EDGE_LOCKS - 1] = PTHREAD_MUTEX_INITIALIZER
};

/*
 * Block by block, each read before it is written. The lock keeps two of these
 * from undoing each other; writes of whole blocks do not overlap them, unless
 * the client overlaps its own requests.
 */
int file_write_unaligned(struct batch_io *io)
{
	struct source *s = io->src;
	CLEANUP(freep) void *block = NULL;
	const struct file_source *file = source_file(s);
	pthread_mutex_t *lock = &edge_locks[file->id % EDGE_LOCKS];
	uint64_t at = s->root_off + io->off;
	size_t done = 0, in, n;
	int r = 0;

	if (posix_memalign(&block, file->align, file->align))
		return -ENOMEM;
	pthread_mutex_lock(lock);
	for (; !r && done < io->len; done += n) {
		uint64_t block_at = round_down(at + done, file->align);
		struct batch_io whole = { .src = s,
					  .off = block_at - s->root_off,
					  .buf = block,
					  .len = file->align,
					  .op = BATCH_WRITE };

		in = (size_t)(at + done - block_at);
		n = min_size(io->len - done, file->align - in);
		if (n < file->align)
			r = read_block(file->fd, block, file->align, block_at);
		memcpy((uint8_t *)block + in, (uint8_t *)io->buf + done, n);
		if (!r)
			r = sync_run(&whole, 0);
	}
	pthread_mutex_unlock(lock);
	return r;
}
