/* SPDX-License-Identifier: BSD-3-Clause */
/* A part of another source. */
#include <errno.h>
#include <inttypes.h>

#include "iouring/source.h"

/* All that it does is done by its root. */
struct window_source {
	struct source base;
	struct source *parent;
};

static void window_free(struct source *s)
{
	struct window_source *w = container_of(s, struct window_source, base);

	source_unref(w->parent);
	free(w);
}

static const struct source_ops window_ops = {
	.name = "window",
	.free = window_free,
};

int window_source_new(struct source *parent, uint64_t off, uint64_t bytes,
		      struct source **ret, struct error *err)
{
	struct window_source *w;

	if (!range_inside(off, bytes, parent->bytes))
		return error_set(err, -EBADMSG, off,
				 "%" PRIu64 " bytes at %" PRIu64
				 " end past the file's %" PRIu64 " bytes",
				 bytes, off, parent->bytes);
	w = malloc(sizeof(*w));
	if (!w)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&w->base, &window_ops, bytes);
	w->parent = source_ref(parent);
	w->base.root = parent->root;
	w->base.root_off = parent->root_off + off;
	w->base.file = parent->file;
	*ret = &w->base;
	return 0;
}
