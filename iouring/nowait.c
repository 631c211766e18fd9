/* SPDX-License-Identifier: BSD-3-Clause */
#include <sys/uio.h>

#include "iouring/engine.h"

_Thread_local bool engine_nowait;
_Thread_local void (*engine_waits)(bool begins);
bool (*engine_gone)(void);

/*
 * O_DIRECT always waits for the disk. A kernel or a file system that does not
 * know the flag, and a page that is not there, are the same to us.
 */
int nowait_read_file(const struct file_source *f, void *buf, size_t len,
		     uint64_t off)
{
	struct iovec v = { buf, len };

	if (f->align > 1)
		return -EAGAIN;
	return preadv2(f->fd, &v, 1, (off_t)off,
		       f->in_memory ? 0 : RWF_NOWAIT) == (ssize_t)len
		       ? 0
		       : -EAGAIN;
}

static int read_now(const struct batch_io *io)
{
	const struct file_source *f = source_file(io->src);
	struct source *s = io->src->root;

	if (s->ops->read_now && io->op == BATCH_READ)
		return s->ops->read_now(s, io->buf, io->len,
					io->src->root_off + io->off);
	if (!f || io->op != BATCH_READ)
		return -EAGAIN;
	return nowait_read_file(f, io->buf, io->len,
				io->src->root_off + io->off);
}

int nowait_run(struct batch_io *ios, size_t n_ios)
{
	size_t i;
	int r = 0;

	for (i = 0; i < n_ios; i++) {
		if (!r)
			r = read_now(&ios[i]);
		ios[i].ret = r;
	}
	return r;
}
