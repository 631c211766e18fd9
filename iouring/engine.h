/* SPDX-License-Identifier: BSD-3-Clause */
/* What batch.c, ring.c and sync.c share; nobody else includes this. */
#ifndef IOURING_ENGINE_H
#define IOURING_ENGINE_H

#include <stdatomic.h>

#include "iouring/batch.h"
#include "iouring/nowait.h"

/*
 * O_DIRECT wants offset, length and memory aligned; this much is what every
 * device and file system that we know of is content with. What is not aligned
 * goes through bounce buffers: one a thread, and BOUNCE_BUFFERS of its ring.
 * Writes whose offset or length is not: see file_write_unaligned().
 */
#define DIRECT_ALIGN   4096U
#define BOUNCE_BYTES   (64U << 10)
#define BOUNCE_BUFFERS 16U

/*
 * One system call's worth of a batch_io: @len bytes at @fd_off into @buf, of
 * which the caller wants @want after the first @skip.
 */
struct piece {
	struct batch_io *io;
	size_t pos; /* of the wanted bytes in io->buf */
	uint64_t fd_off;
	uint8_t *buf;
	size_t len;
	size_t skip;
	size_t want;
	size_t got; /* of len, so far */
};

/*
 * The piece of @io from @pos on. @bounce: BOUNCE_BYTES, aligned, or NULL;
 * returns false when it is NULL and one is needed.
 */
bool piece_cut(struct piece *p, struct batch_io *io, size_t pos,
	       uint8_t *bounce);

/* Must this go through a bounce buffer, from @pos on? */
bool piece_needs_bounce(const struct batch_io *io, size_t pos);

/*
 * @p gave @res (a negative errno, or bytes). Returns 1 when all wanted bytes
 * are where they belong, 0 when the piece must go on from its got bytes, else
 * the negative errno that the io ends with.
 */
int piece_advance(struct piece *p, ssize_t res);

/* bounce.c: BOUNCE_BYTES of this thread's, aligned; NULL: no memory. */
uint8_t *engine_bounce(void);

/* nowait.c: batch_run() where this thread may not wait. */
int nowait_run(struct batch_io *ios, size_t n_ios);

/*
 * sync.c: does one io from @pos on with pread or pwrite. Sets and returns
 * io->ret.
 */
int sync_run(struct batch_io *io, size_t pos);

/* batch.c: is io_uring to be used? */
bool engine_wants_rings(void);

/* ring.c */
struct ring;
struct io_uring;

/* As io_uring_queue_init(3), in the best of the modes that the kernel knows. */
int ring_queue_init(struct io_uring *uring, unsigned int depth);

#define RING_UNDONE 2 /* io->ret: the ring broke before this one */

int ring_new(struct ring **ret);
void ring_free(struct ring *r); /* NULL is fine */

/*
 * Does those of @ios whose source is a file and sets their ret. Returns 0, or
 * a negative errno when the ring is of no more use; those it did not get to
 * then have ret RING_UNDONE. Nothing is in flight on return in either case.
 */
int ring_run(struct ring *r, struct batch_io *ios, size_t n_ios);

/* sync.c: a write whose ends O_DIRECT does not take. */
bool file_write_is_unaligned(const struct batch_io *io);
int file_write_unaligned(struct batch_io *io);

/* watch.c: what tests watch; see struct write_watcher. */
struct write_event;
bool write_watched(void);
int write_before(const struct write_event *e); /* 0, or what it fails with */
void write_after(const struct write_event *e, int code);

/* sources/file.c: how many files have been closed; rings then drop theirs. */
extern atomic_uint files_closed;

#endif
