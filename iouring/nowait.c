/* SPDX-License-Identifier: BSD-3-Clause */
#include <sys/uio.h>

#include "iouring/engine.h"

_Thread_local bool engine_nowait;

/*
 * O_DIRECT always waits for the disk. A kernel or a file system that does not
 * know the flag, and a page that is not there, are the same to us.
 */
static int read_now(const struct batch_io *io)
{
	const struct file_source *f = source_file(io->src);
	struct source *s = io->src->root;
	struct iovec v = { io->buf, io->len };

	if (s->ops->read_now && io->op == BATCH_READ)
		return s->ops->read_now(s, io->buf, io->len,
					io->src->root_off + io->off);
	if (!f || f->align > 1 || io->op != BATCH_READ)
		return -EAGAIN;
	return preadv2(f->fd, &v, 1, (off_t)(io->src->root_off + io->off),
		       f->in_memory ? 0 : RWF_NOWAIT) == (ssize_t)io->len
		       ? 0
		       : -EAGAIN;
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
