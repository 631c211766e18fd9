/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading without a ring, and what a piece of a read is: both engines cut
 * and continue reads by the same rules.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "iouring/engine.h"

bool piece_needs_bounce(const struct batch_io *io, size_t pos)
{
	uint64_t mask = io->src->align - 1;

	return ((io->src->fd_off + io->off + pos) | (io->len - pos) |
		((uintptr_t)io->buf + pos)) &
	       mask;
}

bool piece_cut(struct piece *p, struct batch_io *io, size_t pos,
	       uint8_t *bounce)
{
	uint64_t at = io->src->fd_off + io->off + pos;
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
	p->fd_off = round_down(at, io->src->align);
	p->buf = bounce;
	p->skip = (size_t)(at - p->fd_off);
	p->len = min_size(BOUNCE_BYTES,
			  (size_t)round_up(p->skip + rest, io->src->align));
	p->want = min_size(rest, p->len - p->skip);
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
		if (p->buf != dest)
			memcpy(dest, p->buf + p->skip, p->want);
		return 1;
	}
	/* The range lies inside the file, so its end here means it shrank. */
	if (!res)
		return -EIO;
	/* O_DIRECT reads on from an aligned place, or not at all. */
	if (p->got % p->io->src->align) {
		size_t whole = (size_t)round_down(p->got, p->io->src->align);

		if (p->got - (size_t)res >= whole)
			return -EIO;
		p->got = whole;
	}
	return 0;
}

int sync_read(struct batch_io *io, size_t pos)
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
			ssize_t n =
				pread(io->src->fd, p.buf + p.got, p.len - p.got,
				      (off_t)(p.fd_off + p.got));

			r = piece_advance(&p, n < 0 ? -errno : n);
		} while (!r);
		if (r < 0)
			return io->ret = r;
		pos += p.want;
	}
	return io->ret = 0;
}
