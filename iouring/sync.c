/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing without a ring, and what a piece of either is: both
 * engines cut and continue by the same rules.
 */
#include <errno.h>
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

static ssize_t piece_run(const struct piece *p)
{
	int fd = source_file(p->io->src)->fd;
	off_t at = (off_t)(p->fd_off + p->got);

	return p->io->op == BATCH_WRITE
		       ? pwrite(fd, p->buf + p->got, p->len - p->got, at)
		       : pread(fd, p->buf + p->got, p->len - p->got, at);
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
			ssize_t n = piece_run(&p);

			r = piece_advance(&p, n < 0 ? -errno : n);
		} while (!r);
		if (r < 0)
			return io->ret = r;
		pos += p.want;
	}
	return io->ret = 0;
}
