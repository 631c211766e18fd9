/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A read is cut into pieces as a batch is, one for each of its ios, each in a slot
 * whose index is the completion's user data; a short one goes on from where it
 * ended. There are as many slots as the submission queue has places, and the
 * completion queue is twice as large.
 *
 * Files of which the kernel has to wait in a thread are left out: it has few, and
 * one that hangs would keep others' reads waiting.
 */
#include "iouring/later.h"

#include <errno.h>
#include <liburing.h>

#include "iouring/engine.h"

#define DEPTH 256U

struct slot {
	struct piece piece;
	struct batch_io io;
	struct later_read *read;
};

struct later {
	struct io_uring uring;
	struct slot slots[DEPTH];
	uint16_t free_slots[DEPTH];
	unsigned int n_free;
};

_Thread_local struct later_read *engine_later;

int later_new(int event_fd, struct later **ret)
{
	struct later *l;
	unsigned int i;
	int r;

	if (!engine_wants_rings())
		return -EOPNOTSUPP;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	r = ring_queue_init(&l->uring, DEPTH);
	if (r < 0) {
		free(l);
		return r;
	}
	r = io_uring_register_eventfd(&l->uring, event_fd);
	if (r < 0) {
		later_free(l);
		return r;
	}
	for (i = 0; i < DEPTH; i++)
		l->free_slots[l->n_free++] = (uint16_t)i;
	*ret = l;
	return 0;
}

void later_free(struct later *l)
{
	if (!l)
		return;
	io_uring_queue_exit(&l->uring);
	free(l);
}

static void enqueue(struct later *l, unsigned int idx)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->uring);
	struct piece *p = &l->slots[idx].piece;

	io_uring_prep_read(sqe, source_file(p->io->src)->fd, p->buf + p->got,
			   (unsigned int)(p->len - p->got), p->fd_off + p->got);
	io_uring_sqe_set_data64(sqe, idx);
}

static bool can_be_later(const struct batch_io *io)
{
	const struct file_source *f = source_file(io->src);

	return f && !f->writable && f->knows_nowait && io->op == BATCH_READ &&
	       !piece_needs_bounce(io, 0);
}

bool later_begin(struct later_read *r, const struct batch_io *ios, size_t n_ios)
{
	struct later *l = r->later;
	size_t i;

	if (n_ios > l->n_free)
		return false;
	for (i = 0; i < n_ios; i++)
		if (!can_be_later(&ios[i]))
			return false;
	r->n = (unsigned int)n_ios;
	r->code = 0;
	for (i = 0; i < n_ios; i++) {
		unsigned int idx = l->free_slots[--l->n_free];
		struct slot *s = &l->slots[idx];

		s->read = r;
		s->io = ios[i];
		source_ref(s->io.src);
		piece_cut(&s->piece, &s->io, 0, NULL);
		enqueue(l, idx);
	}
	return true;
}

void later_submit(struct later *l)
{
	while (io_uring_sq_ready(&l->uring)) {
		int r = io_uring_submit(&l->uring);

		/* Completions have to be taken first; or it has no memory. */
		if (r == -EBUSY || r == -EAGAIN)
			later_reap(l);
		else if (r < 0 && r != -EINTR)
			abort(); /* a ring that was made takes what it has room
				    for */
	}
}

static void end_piece(struct later *l, unsigned int idx, int code)
{
	struct slot *s = &l->slots[idx];
	struct later_read *r = s->read;

	source_unref(s->io.src);
	l->free_slots[l->n_free++] = (uint16_t)idx;
	if (code < 0 && !r->code)
		r->code = code;
	if (!--r->n)
		r->done(r, r->code);
}

void later_reap(struct later *l)
{
	struct io_uring_cqe *cqe;
	unsigned int idx;
	int res, code;

	if (l->n_free == DEPTH)
		return;
	io_uring_get_events(&l->uring);
	while (!io_uring_peek_cqe(&l->uring, &cqe)) {
		idx = (unsigned int)io_uring_cqe_get_data64(cqe);
		res = cqe->res;
		io_uring_cqe_seen(&l->uring, cqe);
		/* What the kernel cannot wait for, somebody else does. */
		code = res == -EAGAIN
			       ? res
			       : piece_advance(&l->slots[idx].piece, res);
		if (!code)
			enqueue(l, idx);
		else
			end_piece(l, idx, code);
	}
}

int batch_run_last(struct batch_io *ios, size_t n_ios)
{
	size_t i = 0;
	int r = batch_run(ios, n_ios);

	if (r != -EAGAIN || may_wait() || !engine_later)
		return r;
	while (!ios[i].ret)
		i++;
	return later_begin(engine_later, ios + i, n_ios - i) ? BATCH_LATER : r;
}
