/* SPDX-License-Identifier: BSD-3-Clause */
/* Whom a shared image is shared with: projects, and what they say of it. */
#ifndef GLANCE_MEMBERS_H
#define GLANCE_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "glance/index.h"

struct member {
	const char *project;
	const char *status; /* pending, accepted, rejected */
	bool can_share;
	int64_t created_usec;
	int64_t updated_usec;
};

bool member_status_ok(const char *status);

/*
 * Calls @each with every member of image @n, until it returns non-zero, and
 * returns that, or 0. Strings are valid in the callback.
 */
int members_each(struct index_tx *tx, int64_t n,
		 int (*each)(void *opaque, const struct member *m),
		 void *opaque, struct error *err);

/* The same with the images that are shared with @project. */
int members_each_image(struct index_tx *tx, const char *project,
		       int (*each)(void *opaque, const char *image,
				   bool can_share),
		       void *opaque, struct error *err);

/* In index_write(). -EEXIST: it is one; -ENOENT: it is not. */
int member_add(struct index_tx *tx, int64_t n, const char *project,
	       struct error *err);
/* Of v1: one that is there is changed; accepted at once. */
int member_put(struct index_tx *tx, int64_t n, const char *project,
	       bool can_share, struct error *err);
/* As it was before, and without record_touch(): of who makes an index anew. */
int member_insert_as_is(struct index_tx *tx, int64_t n, const struct member *m,
			struct error *err);
int members_forget(struct index_tx *tx, int64_t n, struct error *err);
int members_clear(struct index_tx *tx, int64_t n, struct error *err);
int member_set_status(struct index_tx *tx, int64_t n, const char *project,
		      const char *status, struct error *err);
int member_remove(struct index_tx *tx, int64_t n, const char *project,
		  struct error *err);

#endif
