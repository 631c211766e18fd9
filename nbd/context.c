/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/context.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The longest name behind the namespace's, of qcow2's bitmaps. */
#define LEAF_BYTES_MAX 1023U

enum kind {
	KIND_ALLOCATION,
	KIND_DEPTH,
	KIND_BITMAP,
	KIND_CHANGES,
};

struct context {
	enum kind kind;
	struct bitmap bitmap; /* of KIND_BITMAP; no name */
	struct image *from; /* of KIND_CHANGES */
};

/* ---- names ---- */

struct names {
	int (*each)(void *opaque, const char *name);
	void *opaque;
	int r; /* what it said */
};

static int tell_dirty(struct names *n, const char *name)
{
	char text[sizeof(CONTEXT_DIRTY) + LEAF_BYTES_MAX];

	if (strlen(name) > LEAF_BYTES_MAX)
		return 0;
	snprintf(text, sizeof(text), CONTEXT_DIRTY "%s", name);
	n->r = n->each(n->opaque, text);
	return n->r;
}

static int tell_bitmap(void *opaque, const struct bitmap *b)
{
	return tell_dirty(opaque, b->name);
}

static int tell_snapshot(void *opaque, const char *name, uint64_t bytes)
{
	return tell_dirty(opaque, name);
}

/* The layer whose bitmaps are the export's; NULL: none is. */
static struct layer *bitmaps_of(const struct export *e)
{
	return e->overlay || e->from ? NULL : e->image->chain.layers[0];
}

int context_each(const struct export *e,
		 int (*each)(void *opaque, const char *name), void *opaque,
		 struct error *err)
{
	struct names n = { each, opaque, 0 };
	int r = each(opaque, CONTEXT_ALLOCATION);

	if (!r && !e->from)
		r = each(opaque, CONTEXT_DEPTH);
	if (!r && export_is_writable(e))
		r = tell_dirty(&n, EXPORT_STATE_BASE);
	if (!r && export_is_writable(e))
		r = overlay_each_snapshot(e->overlay, tell_snapshot, &n);
	else if (!r && bitmaps_of(e))
		r = layer_bitmaps(bitmaps_of(e), tell_bitmap, &n, err);
	return r;
}

/* ---- opening ---- */

struct search {
	const char *name;
	struct context *ret;
};

static int match_bitmap(void *opaque, const struct bitmap *b)
{
	struct search *s = opaque;

	if (strcmp(b->name, s->name) != 0)
		return 0;
	s->ret->kind = KIND_BITMAP;
	s->ret->bitmap = *b;
	s->ret->bitmap.name = NULL;
	return 1;
}

/* Returns 1, 0: there is none, or a negative errno. */
static int open_dirty(const struct export *e, const char *name,
		      struct context *ret, struct error *err)
{
	struct search s = { name, ret };
	int r;

	if (!export_is_writable(e))
		return bitmaps_of(e) ? layer_bitmaps(bitmaps_of(e),
						     match_bitmap, &s, err)
				     : 0;
	ret->kind = KIND_CHANGES;
	if (!strcmp(name, EXPORT_STATE_BASE)) {
		ret->from = image_ref(e->image);
		return 1;
	}
	r = overlay_open_snapshot(e->overlay, name, &ret->from, err);
	if (r == -ENOENT) {
		error_clear(err);
		return 0;
	}
	return r < 0 ? r : 1;
}

/* As open_dirty(). */
static int open_named(const struct export *e, const char *name,
		      struct context *ret, struct error *err)
{
	const size_t dirty = strlen(CONTEXT_DIRTY);

	if (!strcmp(name, CONTEXT_ALLOCATION)) {
		ret->kind = KIND_ALLOCATION;
		return 1;
	}
	if (!strcmp(name, CONTEXT_DEPTH)) {
		ret->kind = KIND_DEPTH;
		return !e->from;
	}
	return strncmp(name, CONTEXT_DIRTY, dirty) != 0
		       ? 0
		       : open_dirty(e, name + dirty, ret, err);
}

int context_open(const struct export *e, const char *name, struct context **ret,
		 struct error *err)
{
	struct context *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = open_named(e, name, x, err);
	if (r != 1) {
		context_close(x);
		x = NULL;
	}
	if (r >= 0)
		*ret = x;
	return r < 0 ? r : 0;
}

void context_close(struct context *x)
{
	if (!x)
		return;
	image_unref(x->from);
	free(x);
}

/* ---- walking ---- */

struct telling {
	int (*each)(void *opaque, uint64_t off, uint64_t len,
		    unsigned int state);
	void *opaque;
	bool one; /* only the first is wanted */
	bool depth; /* as numbers of layers */
	bool apply; /* of a difference; see add_change() */
	bool begun; /* its state is known */
	unsigned int state;
};

static unsigned int state_of(const struct extent *e)
{
	switch ((enum extent_kind)e->kind) {
	case EXTENT_HOLE:
	case EXTENT_ZERO:
		return CONTEXT_HOLE | CONTEXT_ZEROES;
	case EXTENT_DATA:
	case EXTENT_COMPRESSED:
	case EXTENT_DAMAGED: /* reading it says what is wrong */
		break;
	}
	return 0;
}

static int tell(struct telling *t, uint64_t off, uint64_t len,
		unsigned int state)
{
	if (t->one && t->begun && state != t->state)
		return 1;
	t->begun = true;
	t->state = state;
	return t->each(t->opaque, off, len, state);
}

static int add_extent(void *opaque, uint64_t off, const struct extent *e)
{
	struct telling *t = opaque;

	if (t->depth)
		return tell(t, off, e->len, e->absent ? 0 : e->depth + 1U);
	return tell(t, off, e->len, state_of(e));
}

/*
 * What has not changed is a hole for clients to leave out. Those that apply a
 * difference to a copy (diff=apply) leave out what reads as zeroes, and must be
 * handed the zeroes that are new.
 */
static int add_change(void *opaque, uint64_t off, uint64_t len,
		      enum change change)
{
	static const unsigned int states[2][3] = {
		{ [CHANGE_NONE] = CONTEXT_HOLE,
		  [CHANGE_ZERO] = CONTEXT_HOLE | CONTEXT_ZEROES },
		{ [CHANGE_NONE] = CONTEXT_HOLE | CONTEXT_ZEROES },
	};
	struct telling *t = opaque;

	return tell(t, off, len, states[t->apply][change]);
}

static int add_dirty(void *opaque, uint64_t off, uint64_t len,
		     enum change change)
{
	return tell(opaque, off, len,
		    change == CHANGE_NONE ? 0 : CONTEXT_DIRTY_BIT);
}

static int walk_bitmap(const struct export *e, const struct context *x,
		       uint64_t off, uint64_t len, struct telling *t,
		       struct error *err)
{
	uint64_t end = off + len, n = 0;
	bool set = false;
	int r = 0;

	for (; off < end && !r; off += n) {
		r = layer_map_bitmap(e->image->chain.layers[0], &x->bitmap, off,
				     end - off, &set, &n, err);
		if (r >= 0)
			r = tell(t, off, n, set ? CONTEXT_DIRTY_BIT : 0);
	}
	return r;
}

/* Layers, whatever of them is wanted. */
static int walk_extents(const struct export *e, uint64_t off, uint64_t len,
			struct telling *t, struct error *err)
{
	uint64_t end;

	if (e->from && e->overlay)
		return overlay_walk_changes(e->overlay, e->from, off, len,
					    add_change, t, &end, err);
	if (e->from)
		return difference_walk(
			&(struct difference){ .from = e->from, .to = e->image },
			off, len, add_change, t, &end, err);
	if (e->overlay)
		return overlay_walk(e->overlay, off, len, add_extent, t, &end,
				    err);
	return image_walk(e->image, off, len, add_extent, t, &end, err);
}

bool context_may_try(const struct export *e, const struct context *x)
{
	if (x && x->kind != KIND_ALLOCATION && x->kind != KIND_DEPTH)
		return false;
	return !e->from;
}

int context_walk(const struct export *e, const struct context *x, uint64_t off,
		 uint64_t len, bool one,
		 int (*each)(void *opaque, uint64_t off, uint64_t len,
			     unsigned int state),
		 void *opaque, struct error *err)
{
	struct telling t = { .each = each,
			     .opaque = opaque,
			     .one = one,
			     .depth = x && x->kind == KIND_DEPTH,
			     .apply = e->diff_apply && !e->own };
	uint64_t end;

	if (x && x->kind == KIND_BITMAP)
		return walk_bitmap(e, x, off, len, &t, err);
	if (x && x->kind == KIND_CHANGES)
		return overlay_walk_changes(e->overlay, x->from, off, len,
					    add_dirty, &t, &end, err);
	return walk_extents(e, off, len, &t, err);
}
