/* SPDX-License-Identifier: BSD-3-Clause */
/* What all sources share. */
#include <stdlib.h>
#include <string.h>

#include "iouring/nowait.h"
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

struct source *source_ref_unless_gone(struct source *s)
{
	unsigned int refs = atomic_load(&s->refs);

	while (refs)
		if (atomic_compare_exchange_weak(&s->refs, &refs, refs + 1))
			return s;
	return NULL;
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

int source_find_below(struct source *s, uint64_t off, uint64_t len,
		      bool *ret_below, uint64_t *ret_len)
{
	if (s->root->ops->find_below)
		return s->root->ops->find_below(s->root, s->root_off + off, len,
						ret_below, ret_len);
	*ret_below = false;
	*ret_len = len;
	return 0;
}

void source_explain(struct source *s, uint64_t off, uint64_t len,
		    struct error *err)
{
	if (err && may_wait() && s->root->ops->explain)
		s->root->ops->explain(s->root, s->root_off + off, len, err);
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

void identity_set_file(struct source_identity *ret, const struct stat *st)
{
	bool is_device = S_ISBLK(st->st_mode);

	ret->kind = SOURCE_FILE;
	ret->dev = is_device ? st->st_rdev : st->st_dev;
	ret->ino = is_device ? 0 : st->st_ino;
}

bool identity_is_file(const struct source_identity *i, const struct stat *st)
{
	struct source_identity file = { 0 };

	identity_set_file(&file, st);
	return identity_is_same(i, &file);
}
