/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>

#include "iouring/batch.h"
#include "iouring/source.h"

int source_read(struct source *s, void *buf, size_t len, uint64_t off,
		struct error *err)
{
	struct batch_io io = { .src = s, .off = off, .buf = buf, .len = len };
	int r;

	if (!range_inside(off, len, s->bytes))
		return error_set(err, -EBADMSG, off,
				 "%zu bytes at %" PRIu64
				 " end past the file's %" PRIu64 " bytes",
				 len, off, s->bytes);
	if (!len)
		return 0;
	r = batch_run(&io, 1);
	if (r < 0) {
		source_explain(s, off, len, err);
		error_set(err, r, off,
			  "%zu bytes at %" PRIu64 " cannot be read: %s", len,
			  off, errno_text(-r));
	}
	return r;
}
