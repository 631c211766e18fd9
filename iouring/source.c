/* SPDX-License-Identifier: BSD-3-Clause */
/* What all sources share, and the two that are not files: window, memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/batch.h"
#include "iouring/source.h"

/* Ids are never used twice, so a cache never mistakes one for another. */
static atomic_uint_fast64_t next_id = 1;

uint64_t source_new_id(void)
{
	return atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
}

void source_init(struct source *s, const struct source_ops *ops, uint64_t bytes)
{
	*s = (struct source){
		.ops = ops, .id = source_new_id(), .bytes = bytes, .root = s
	};
	atomic_init(&s->refs, 1);
}

struct source *source_ref(struct source *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void source_unref(struct source *s)
{
	if (!s ||
	    atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (s->ops->free)
		s->ops->free(s);
	else
		free(s);
}

void source_unrefp(struct source **s)
{
	source_unref(*s);
}

int source_find_hole(struct source *s, uint64_t off, uint64_t len,
		     bool *ret_hole, uint64_t *ret_len)
{
	if (s->root->ops->find_hole)
		return s->root->ops->find_hole(s->root, s->root_off + off, len,
					       ret_hole, ret_len);
	*ret_hole = false;
	*ret_len = len;
	return 0;
}

void source_prefetch(struct source *s, uint64_t off, uint64_t len)
{
	if (s->root->ops->prefetch)
		s->root->ops->prefetch(s->root, s->root_off + off, len);
}

void source_identity(const struct source *s, struct source_identity *ret)
{
	*ret = (struct source_identity){ .bytes = s->root->bytes };
	if (s->root->ops->identify)
		s->root->ops->identify(s->root, ret);
}

static bool is_same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool identity_is_same(const struct source_identity *a,
		      const struct source_identity *b)
{
	if (a->kind != b->kind || a->kind == SOURCE_NAMELESS)
		return false;
	return a->kind == SOURCE_FILE ? a->dev == b->dev && a->ino == b->ino
				      : is_same_text(a->name, b->name);
}

bool identity_is_unchanged(const struct source_identity *a,
			   const struct source_identity *b)
{
	return identity_is_same(a, b) && a->bytes == b->bytes &&
	       a->mtime.tv_sec == b->mtime.tv_sec &&
	       a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       is_same_text(a->version, b->version);
}

bool identity_is_file(const struct source_identity *i, const struct stat *st)
{
	return i->kind == SOURCE_FILE && i->dev == st->st_dev &&
	       i->ino == st->st_ino;
}

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
	if (r < 0)
		return error_set(err, r, off,
				 "%zu bytes at %" PRIu64 " cannot be read: %s",
				 len, off, errno_text(-r));
	return 0;
}

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

struct memory_source {
	struct source base;
	const uint8_t *data;
};

static ssize_t memory_pread(struct source *s, void *buf, size_t len,
			    uint64_t off)
{
	struct memory_source *m = container_of(s, struct memory_source, base);

	memcpy(buf, m->data + off, len);
	return (ssize_t)len;
}

static const struct source_ops memory_ops = {
	.name = "memory",
	.pread = memory_pread,
};

int memory_source_new(const void *data, size_t bytes, struct source **ret,
		      struct error *err)
{
	struct memory_source *m = malloc(sizeof(*m));

	if (!m)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&m->base, &memory_ops, bytes);
	m->data = data;
	*ret = &m->base;
	return 0;
}
