/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "formats/place.h"

const char *reference_verdict_text(enum reference_verdict v)
{
	static const char *const text[] = {
		[REFERENCE_OK] = "ok",
		[REFERENCE_MISSING] = "missing",
		[REFERENCE_OUTSIDE] = "outside the image's folder",
		[REFERENCE_PREFIX] = "pseudo-file, not permitted",
		[REFERENCE_SPECIAL] = "not a regular file",
		[REFERENCE_FAILED] = "cannot be opened",
	};

	return text[v];
}

void place_file_done(struct place_file *f)
{
	source_unref(f->src);
	place_unref(f->place);
	free(f->path);
	*f = (struct place_file){ 0 };
}

struct place_file place_file_take(struct place_file *f)
{
	struct place_file ret = *f;

	*f = (struct place_file){ 0 };
	return ret;
}

void place_init(struct place *p, const struct place_ops *ops)
{
	p->ops = ops;
	atomic_init(&p->refs, 1);
}

struct place *place_ref(struct place *p)
{
	if (p)
		atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void place_unref(struct place *p)
{
	if (p &&
	    atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
		p->ops->free(p);
}

void place_unrefp(struct place **p)
{
	place_unref(*p);
}

int place_open(struct place *p, const struct place_ask *ask,
	       struct place_file *ret, enum reference_verdict *ret_verdict,
	       struct error *err)
{
	enum reference_verdict v = REFERENCE_OK;
	struct place_file f = { 0 };
	int r;

	if (p) {
		r = p->ops->open(p, ask, &f, &v, err);
	} else {
		v = REFERENCE_OUTSIDE;
		r = error_set(err, -EPERM, 0,
			      "%s: the image lies where there are no others",
			      ask->what);
	}
	assert(!r == (v == REFERENCE_OK) && (r || (f.src && f.path)));
	if (ret_verdict)
		*ret_verdict = v;
	if (r < 0)
		place_file_done(&f);
	else
		*ret = f;
	return r;
}

int place_for_each(struct place *p, int (*each)(void *opaque, const char *name),
		   void *opaque)
{
	return p && p->ops->for_each ? p->ops->for_each(p, each, opaque) : 0;
}

const char *place_text(const struct place *p)
{
	return p ? p->ops->text(p) : "";
}

bool place_is_url(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz"
				"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");

	return n && !strncmp(name + n, "://", 3);
}
