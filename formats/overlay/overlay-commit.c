/* SPDX-License-Identifier: BSD-3-Clause */
/* Writing what an overlay holds to the image below it. */
#include <errno.h>
#include <string.h>

#include "formats/file-lock.h"
#include "formats/overlay/overlay-inside.h"
#include "iouring/write.h"

#define COPY_BYTES (1U << 20)

/* The image below, to be written. */
struct target {
	struct overlay *overlay; /* a qcow2 file; NULL: raw */
	struct source *src; /* of a raw one */
	uint64_t bytes;
};

static void target_done(struct target *t)
{
	overlay_unref(t->overlay);
	source_unref(t->src);
}

static int open_raw(struct target *t, const struct layer *l, struct error *err)
{
	struct source_identity found;
	int r = file_source_open_rw(l->path, 0, &t->src, err);

	if (r >= 0)
		r = file_lock_writer(t->src, 0, err);
	if (r < 0)
		return r;
	source_identity(t->src, &found);
	if (!identity_is_same(&found, &l->identity))
		return error_set(err, -EBUSY, 0,
				 "was replaced while it was opened");
	return 0;
}

static int open_target(struct target *t, const struct layer *l,
		       const struct open_options *options, struct error *err)
{
	struct overlay_options how = { .open = *options };
	int r;

	t->bytes = l->bytes;
	if (!strcmp(l->ops->name, "raw"))
		r = open_raw(t, l, err);
	else if (!strcmp(l->ops->name, "qcow2"))
		r = overlay_open(l->path, NULL, NULL, &how, &t->overlay, err);
	else
		r = error_set(err, -ENOTSUP, 0,
			      "is a %s image: only raw and qcow2 can be "
			      "written",
			      l->ops->name);
	if (r < 0 && err && !strstr(err->msg, l->path))
		error_prefix(err, "%s", l->path);
	return r;
}

static int target_grow(struct target *t, uint64_t bytes, struct error *err)
{
	if (bytes <= t->bytes)
		return 0;
	return t->overlay ? overlay_resize(t->overlay, bytes, err)
			  : source_truncate(t->src, bytes, err);
}

static int write_zeroes(struct target *t, uint8_t *buf, uint64_t off,
			uint64_t len, struct error *err)
{
	uint64_t n;
	int r = 0;

	memset(buf, 0, COPY_BYTES);
	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, COPY_BYTES);
		r = source_write(t->src, buf, n, off, err);
	}
	return r;
}

static int target_zero(struct target *t, uint8_t *buf, uint64_t off,
		       uint64_t len, struct error *err)
{
	if (t->overlay)
		return overlay_zero(t->overlay, off, len, OVERLAY_MAY_TRIM,
				    err);
	return source_punch(t->src, off, len, NULL) < 0
		       ? write_zeroes(t, buf, off, len, err)
		       : 0;
}

static int target_flush(struct target *t, struct error *err)
{
	return t->overlay ? overlay_flush(t->overlay, err)
			  : source_sync(t->src, err);
}

struct commit {
	struct overlay *o;
	struct target target;
	uint8_t *buf; /* COPY_BYTES */
	uint64_t off, len; /* the first that the overlay holds; len 0: none */
	bool zero;
};

/* Joins neighbours of one kind; 1: that was all. */
static int find_own(void *opaque, uint64_t off, const struct extent *e)
{
	struct commit *c = opaque;
	bool zero = e->kind == EXTENT_ZERO;

	if (e->depth || e->absent)
		return c->len ? 1 : 0;
	if (c->len && zero != c->zero)
		return 1;
	if (!c->len) {
		c->off = off;
		c->zero = zero;
	}
	c->len += e->len;
	return 0;
}

static int copy(struct commit *c, uint64_t off, uint64_t len, struct error *err)
{
	struct target *t = &c->target;
	int r = overlay_read(c->o, c->buf, len, off, err);

	if (r < 0)
		return r;
	return t->overlay
		       ? overlay_write(t->overlay, c->buf, len, off, false, err)
		       : source_write(t->src, c->buf, len, off, err);
}

static int commit_range(struct commit *c, uint64_t off, uint64_t len,
			int (*progress)(void *opaque, uint64_t done_bytes),
			void *opaque, struct error *err)
{
	uint64_t n;
	int r = 0;

	if (c->zero)
		return target_zero(&c->target, c->buf, off, len, err);
	for (; len && !r; off += n, len -= n) {
		n = min_u64(len, COPY_BYTES);
		r = copy(c, off, n, err);
		if (r >= 0)
			r = progress(opaque, off + n);
	}
	return r;
}

static int commit_all(struct commit *c,
		      int (*progress)(void *opaque, uint64_t done_bytes),
		      void *opaque, struct error *err)
{
	uint64_t off = 0, bytes = overlay_bytes(c->o), end;
	int r = target_grow(&c->target, bytes, err);

	while (off < bytes && !r) {
		c->len = 0;
		r = overlay_walk(c->o, off, bytes - off, find_own, c, &end,
				 err);
		if (r < 0)
			return r;
		if (c->len)
			end = c->off + c->len;
		r = c->len ? commit_range(c, c->off, c->len, progress, opaque,
					  err)
			   : 0;
		off = end;
		if (!r)
			r = progress(opaque, off);
	}
	return r ? r : target_flush(&c->target, err);
}

int overlay_commit(struct overlay *o, const struct open_options *options,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err)
{
	const struct image *base = overlay_base(o);
	struct commit c = { .o = o };
	int r;

	if (!base)
		return error_set(err, -ENOTSUP, 0,
				 "nothing lies below the overlay");
	/* That we read it keeps others from writing it, not us. */
	layer_release(base->chain.layers[0]);
	c.buf = malloc(COPY_BYTES);
	r = c.buf ? open_target(&c.target, base->chain.layers[0], options, err)
		  : error_set(err, -ENOMEM, 0, "out of memory");
	if (!r)
		r = commit_all(&c, progress, opaque, err);
	free(c.buf);
	target_done(&c.target);
	return r;
}
