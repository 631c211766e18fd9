/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which of the stores have an image's data: what its locations say
 * (record_is_in()). A copy comes, or goes, under a tombstone: should the server
 * end in between, then what no location names is removed at the next start,
 * and what one names is whole.
 */
#ifndef GLANCE_COPIES_H
#define GLANCE_COPIES_H

#include "glance/glance.h"
#include "glance/record.h"

/*
 * Puts what @fd has, from its beginning, to its place in @to, where it is durable
 * when this returns 0. The index does not know of it yet. -ECANCELED: @stop,
 * which may be NULL, wants it.
 */
int copies_put(struct store *to, const char *id, int fd,
	       bool (*stop)(void *opaque), void *opaque, struct error *err);

/* The data of @r, which had none, lie in the store of @key, among others. */
int copies_place(struct record *r, const char *key, struct error *err);
/* @r, active, is said to lie in the store of @key too. */
int copies_say(struct record *r, const char *key, struct error *err);

/*
 * One more copy of image @id, in the store of @key, for the task @task, whose
 * the image is: made, and in the index.
 */
int copies_add(struct glance *g, const char *id, const char *key,
	       const char *task, bool (*stop)(void *opaque), void *opaque,
	       struct error *err);

/*
 * In index_write(): @r lies no more in the store of @key; copies_sweep() is to
 * follow. -ENOENT: it did not; -EPERM: and nowhere else.
 */
int copies_forget(struct glance *g, struct index_tx *tx, struct record *r,
		  const char *key, struct error *err);

/*
 * Removes the data of image @id that no location of it names, for which there
 * is a TOMBSTONE_COPY. Who reads them reads on. What goes wrong is logged, and
 * done at the next start.
 */
void copies_sweep(struct glance *g, const char *id);
/* The same at the start, where nobody else is about. */
int copies_drop(struct glance *g, struct index_tx *tx, const char *id,
		struct error *err);

#endif
