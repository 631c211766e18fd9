/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread's ring. Only its thread touches it, so nothing here is locked, and
 * the kernel may be told so (single issuer, deferred task run). Nothing is in
 * flight between two batches: every function here begins and ends with all
 * slots free, so a ring can be thrown away at any time, and what a batch
 * reads into is the kernel's for no longer than that batch.
 *
 * A piece is FREE, then started: cut, with a bounce buffer if it needs one, and
 * on the submission queue; then the kernel's; then reaped: whole, short (it goes
 * on the queue again for the rest), failed (its io keeps the first error), or
 * EAGAIN (the file cannot wait in the kernel: it is read here, at once). At most
 * RING_DEPTH pieces are in flight, each in a slot of its own whose index is the
 * completion's user data. The completion queue is twice as large as that, so it
 * cannot overflow, and one submission takes all that are queued.
 *
 * The order in which ios end is the kernel's; nobody may count on any. Not done:
 * links between requests, registered buffers (the callers' memory is theirs and
 * changes), polling, and a ring that several threads share: that would cost each
 * read a lock to save a few hundred KiB a thread.
 *
 * Registered files spare the kernel a look-up and two atomic operations for
 * each read. A slot of the table is taken by the first file that hashes to
 * it; other files are read by their descriptors. When any file is closed, all
 * rings drop theirs before their next batch: until then an idle thread keeps
 * a closed file's blocks from being freed, nothing more.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "iouring/engine.h"

#define RING_DEPTH 64U
#define RING_FILES 64U

struct slot {
	struct piece piece;
	int bounce; /* index, or -1 */
};

struct ring {
	struct io_uring uring;
	struct slot slots[RING_DEPTH];
	uint8_t free_slots[RING_DEPTH];
	unsigned int n_free_slots;

	uint8_t *bounce; /* BOUNCE_BUFFERS of them; mapped on first use */
	uint8_t free_bounces[BOUNCE_BUFFERS];
	unsigned int n_free_bounces;

#ifndef NDEBUG
	pthread_t thread; /* whose it is */
#endif
	bool has_files;
	unsigned int files_closed; /* when the table was last right */
	uint64_t file_ids[RING_FILES]; /* 0: free */
};

/* Newer kernels' better modes first; the last works everywhere. */
int ring_queue_init(struct io_uring *uring, unsigned int depth)
{
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	size_t i;
	int r = -EINVAL;

	for (i = 0; i < ARRAY_SIZE(flags) && r == -EINVAL; i++)
		r = io_uring_queue_init(depth, uring, flags[i]);
	return r;
}

static void register_table(struct ring *r)
{
	int fds[RING_FILES];

	memset(fds, 0xff, sizeof(fds)); /* -1: an empty place */
	r->has_files = !io_uring_register_files(&r->uring, fds, RING_FILES);
}

int ring_new(struct ring **ret)
{
	struct ring *r = calloc(1, sizeof(*r));
	unsigned int i;
	int code;

	if (!r)
		return -ENOMEM;
	code = ring_queue_init(&r->uring, RING_DEPTH);
	if (code < 0) {
		free(r);
		return code;
	}
	for (i = 0; i < RING_DEPTH; i++)
		r->free_slots[r->n_free_slots++] = (uint8_t)i;
	for (i = 0; i < BOUNCE_BUFFERS; i++)
		r->free_bounces[r->n_free_bounces++] = (uint8_t)i;
	r->files_closed = atomic_load(&files_closed);
	register_table(r);
#ifndef NDEBUG
	r->thread = pthread_self();
#endif
	*ret = r;
	return 0;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	if (r->bounce)
		munmap(r->bounce, BOUNCE_BUFFERS * BOUNCE_BYTES);
	free(r);
}

static void drop_closed_files(struct ring *r)
{
	unsigned int now = atomic_load(&files_closed);
	int fds[RING_FILES];

	if (!r->has_files || now == r->files_closed)
		return;
	memset(fds, 0xff, sizeof(fds));
	memset(r->file_ids, 0, sizeof(r->file_ids));
	r->files_closed = now;
	if (io_uring_register_files_update(&r->uring, 0, fds, RING_FILES) < 0)
		r->has_files = false;
}

/* Its place among the registered files, or -1. */
static int registered(struct ring *r, const struct file_source *file)
{
	unsigned int i = (unsigned int)(file->id % RING_FILES);
	int fd = file->fd;

	if (!r->has_files)
		return -1;
	if (r->file_ids[i] == file->id)
		return (int)i;
	if (r->file_ids[i] ||
	    io_uring_register_files_update(&r->uring, i, &fd, 1) != 1)
		return -1;
	r->file_ids[i] = file->id;
	return (int)i;
}

/* Puts the rest of a slot's piece on the queue, which has room for it. */
static void enqueue(struct ring *r, unsigned int idx)
{
	struct piece *p = &r->slots[idx].piece;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
	const struct file_source *file = source_file(p->io->src);
	int place = registered(r, file);
	int fd = place < 0 ? file->fd : place;
	unsigned int len = (unsigned int)(p->len - p->got);

	if (p->io->op == BATCH_WRITE)
		io_uring_prep_write(sqe, fd, p->buf + p->got, len,
				    p->fd_off + p->got);
	else
		io_uring_prep_read(sqe, fd, p->buf + p->got, len,
				   p->fd_off + p->got);
	if (place >= 0)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data64(sqe, idx);
}

static uint8_t *bounce_at(const struct ring *r, int idx)
{
	return r->bounce + (size_t)idx * BOUNCE_BYTES;
}

static int map_bounce(struct ring *r)
{
	void *m = mmap(NULL, BOUNCE_BUFFERS * BOUNCE_BYTES,
		       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (m == MAP_FAILED)
		return -ENOMEM;
	r->bounce = m;
	return 0;
}

/*
 * Starts the piece of @io from @pos on. Returns the bytes that it will move,
 * 0 when a slot or bounce buffer must come free first, or a negative errno.
 */
static ssize_t start_piece(struct ring *r, struct batch_io *io, size_t pos)
{
	unsigned int idx;
	struct slot *s;
	int code;

	assert(pos < io->len && source_file(io->src));
	if (!r->n_free_slots)
		return 0;
	idx = r->free_slots[r->n_free_slots - 1];
	s = &r->slots[idx];
	s->bounce = -1;
	if (piece_needs_bounce(io, pos)) {
		code = r->bounce ? 0 : map_bounce(r);
		if (code < 0)
			return code;
		if (!r->n_free_bounces)
			return 0;
		s->bounce = r->free_bounces[--r->n_free_bounces];
	}
	r->n_free_slots--;
	piece_cut(&s->piece, io, pos,
		  s->bounce < 0 ? NULL : bounce_at(r, s->bounce));
	enqueue(r, idx);
	return (ssize_t)s->piece.want;
}

static void release_slot(struct ring *r, unsigned int idx)
{
	struct slot *s = &r->slots[idx];

	assert(idx < RING_DEPTH && r->n_free_slots < RING_DEPTH);
	if (s->bounce >= 0)
		r->free_bounces[r->n_free_bounces++] = (uint8_t)s->bounce;
	r->free_slots[r->n_free_slots++] = (uint8_t)idx;
}

static unsigned int in_flight(const struct ring *r)
{
	return RING_DEPTH - r->n_free_slots;
}

/* A file that cannot wait asynchronously: wait for it here. */
static int run_waiting(struct piece *p)
{
	int before = p->io->ret, code = sync_run(p->io, p->pos);

	if (before < 0)
		p->io->ret = before;
	return code < 0 ? code : 1;
}

/*
 * Takes every completion that is there; @go_on: and continues those that
 * are not whole.
 */
static void reap(struct ring *r, bool go_on)
{
	struct io_uring_cqe *cqe;
	struct piece *p;
	unsigned int idx;
	int res, code;

	while (!io_uring_peek_cqe(&r->uring, &cqe)) {
		idx = (unsigned int)io_uring_cqe_get_data64(cqe);
		res = cqe->res;
		io_uring_cqe_seen(&r->uring, cqe);
		p = &r->slots[idx].piece;
		code = res == -EAGAIN ? run_waiting(p) : piece_advance(p, res);
		if (!code && go_on) {
			enqueue(r, idx);
			continue;
		}
		if (code < 0 && p->io->ret >= 0)
			p->io->ret = code;
		release_slot(r, idx);
	}
}

/*
 * The kernel will not take more. Waits for what it has taken, which writes to
 * the callers' memory, and marks the rest undone.
 */
static void give_up(struct ring *r, struct batch_io *ios, size_t n_ios)
{
	unsigned int not_taken = io_uring_sq_ready(&r->uring);
	struct io_uring_cqe *cqe;
	size_t i;

	while (in_flight(r) > not_taken) {
		if (io_uring_wait_cqe(&r->uring, &cqe) < 0)
			sched_yield();
		reap(r, false);
	}
	/* Which are whole is no longer known: all are done again. */
	for (i = 0; i < n_ios; i++)
		if (source_file(ios[i].src))
			ios[i].ret = RING_UNDONE;
}

/*
 * For how many completions to wait at once: each return to us costs a switch.
 * All, when nothing is left to start; else enough to start as many again.
 */
static unsigned int wait_for(const struct ring *r, bool more)
{
	return more ? (in_flight(r) + 1) / 2 : in_flight(r);
}

int ring_run(struct ring *r, struct batch_io *ios, size_t n_ios)
{
	size_t next = 0, pos = 0;
	ssize_t n;
	int code;

	assert(pthread_equal(r->thread, pthread_self()) && !in_flight(r));
	drop_closed_files(r);
	while (next < n_ios || in_flight(r)) {
		while (next < n_ios) {
			struct batch_io *io = &ios[next];

			if (!source_file(io->src) || pos == io->len ||
			    io->ret < 0) {
				next++;
				pos = 0;
				continue;
			}
			n = start_piece(r, io, pos);
			if (n < 0)
				io->ret = (int)n;
			else if (!n)
				break;
			else
				pos += (size_t)n;
		}
		if (!in_flight(r))
			continue;
		wait_begins();
		code = io_uring_submit_and_wait(&r->uring,
						wait_for(r, next < n_ios));
		wait_ends();
		if (code < 0 && code != -EINTR && code != -EAGAIN &&
		    code != -EBUSY) {
			give_up(r, ios, n_ios);
			return code;
		}
		reap(r, true);
	}
	return 0;
}
