/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine's unit of work: reads and writes over several sources, submitted
 * together and completed together, in no order.
 *
 * Each thread has a ring of its own, made when it first does several things
 * at once and gone when the thread ends; a forked child makes new ones. Where
 * io_uring is refused, preadv and pwritev do the same work with the same
 * results.
 */
#ifndef IOURING_BATCH_H
#define IOURING_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/source.h"

enum batch_op { BATCH_READ, BATCH_WRITE };

struct batch_io {
	struct source *src; /* of a write: see file_source_open_rw() */
	uint64_t off; /* in the source; the range lies inside it */
	void *buf; /* a write leaves it alone */
	size_t len; /* > 0, at most BATCH_IO_MAX */
	int ret; /* out: 0, or a negative errno: this one's own */
	uint8_t op; /* enum batch_op */
	void *token; /* the source's own, from its start() to its finish() */
};

/* For sources, io->ret: nobody has begun this one; see source_ops.start. */
#define BATCH_NOT_STARTED 1

#define BATCH_IO_MAX (1U << 30)

/*
 * Does all of @ios: what is remote is started, then files are read by the ring
 * and what is in memory is copied, then the remote ones are finished; what had
 * found no connection free waits for one then, and nested sources, which run
 * batches themselves, come last. Short ones are continued, EINTR and EAGAIN retried; a
 * file that ends early is -EIO. One that fails does not disturb the others,
 * and may have written a part. Returns 0 when all went well, else the ret of
 * the first that did not. Where this thread may not wait (nowait.h): what of
 * @ios can be read at once, or -EAGAIN.
 */
int batch_run(struct batch_io *ios, size_t n_ios);

/*
 * How many nested sources this thread is reading now, one by way of another: 0
 * in whoever runs a batch for himself.
 */
unsigned int batch_depth(void);

enum engine_mode {
	ENGINE_AUTO, /* io_uring where the kernel lets us, else preadv */
	ENGINE_URING, /* io_uring; batches fail where it is refused */
	ENGINE_SYNC, /* preadv */
};

/* Before the first read. @say (may be NULL) is told once of a fallback. */
void engine_configure(enum engine_mode mode, void (*say)(const char *line));

/*
 * Tries io_uring on this thread now. Returns 0, or the negative errno with
 * which it is refused; ENGINE_URING callers use it to fail at start.
 */
int engine_probe(void);

/* What reads on this thread use: "io_uring" or "preadv". */
const char *engine_name(void);

#endif
