/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A place: what names inside an image resolve in. A folder is one
 * (reference.h); what lies at a URL or in a container has others of its own.
 *
 * A place decides what its names may lead to: whoever opens an image hands in
 * the object that guards it, and nothing else opens what an image names.
 * Places are counted; every function here may be called from any thread.
 */
#ifndef FORMATS_PLACE_H
#define FORMATS_PLACE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "iouring/error.h"
#include "iouring/source.h"

struct allow;
struct place;

/* What a name leads to. */
enum reference_verdict {
	REFERENCE_OK,
	REFERENCE_MISSING, /* of the place, but there is no such file */
	REFERENCE_OUTSIDE, /* not in a place that is permitted */
	REFERENCE_PREFIX, /* a pseudo-file that is not permitted */
	REFERENCE_SPECIAL, /* not a regular file */
	REFERENCE_FAILED, /* cannot be opened */
};

/* "ok", "missing", "outside the image's folder", ... */
const char *reference_verdict_text(enum reference_verdict v);

/* A name out of an image, and how it is opened. */
struct place_ask {
	const char *name;
	const char *what; /* for messages: "backing file", "extent" */
	const struct allow *allow; /* what the user permits beyond the place */
	bool direct; /* O_DIRECT, if it is a file */
};

/* What it led to. */
struct place_file {
	struct source *src;
	struct place *place; /* where names inside it resolve */
	char *path; /* for messages */
};

void place_file_done(struct place_file *f);

/* What @f has, which is empty then. */
struct place_file place_file_take(struct place_file *f);

struct place_ops {
	/*
	 * Opens what @ask names, if it may be: fills *ret. A refusal sets
	 * *ret_verdict, which is REFERENCE_OK before, and may leave in *ret
	 * what place_file_done() undoes; its message begins with @ask->what
	 * and tells nothing of what lies outside. 0 or a negative errno.
	 */
	int (*open)(struct place *p, const struct place_ask *ask,
		    struct place_file *ret, enum reference_verdict *ret_verdict,
		    struct error *err);

	/*
	 * Optional: calls @each with the names that there are until it returns
	 * non-zero, and returns that. Without it, there are none to be told.
	 */
	int (*for_each)(struct place *p,
			int (*each)(void *opaque, const char *name),
			void *opaque);

	/* Its names lead to nothing but what is in the image's own file. */
	bool inner;

	/* A folder's absolute path, or a URL; as long as the place lives. */
	const char *(*text)(const struct place *p);

	void (*free)(struct place *p); /* what embeds it */
};

struct place {
	const struct place_ops *ops;
	atomic_uint refs;
};

/* For the makers of places; the count is one. */
void place_init(struct place *p, const struct place_ops *ops);

/* See ops->inner. */
static inline bool place_is_inner(const struct place *p)
{
	return p && p->ops->inner;
}

struct place *place_ref(struct place *p); /* NULL is fine */
void place_unref(struct place *p); /* NULL is fine */
void place_unrefp(struct place **p);

/*
 * See ops->open; @ret is written on success only and the caller's to
 * place_file_done(). @ret_verdict may be NULL. Without a place (@p NULL)
 * everything lies outside.
 */
int place_open(struct place *p, const struct place_ask *ask,
	       struct place_file *ret, enum reference_verdict *ret_verdict,
	       struct error *err);

/* See ops->for_each; 0 without a place. */
int place_for_each(struct place *p, int (*each)(void *opaque, const char *name),
		   void *opaque);

const char *place_text(const struct place *p); /* "" without a place */

/* Does @name begin with a scheme and "://"? Then it is no path. */
bool place_is_url(const char *name);

#endif
