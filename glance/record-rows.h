/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images in the index: its tables' rows and struct record are brought together
 * here and nowhere else.
 */
#ifndef GLANCE_RECORD_ROWS_H
#define GLANCE_RECORD_ROWS_H

#include "glance/index.h"
#include "glance/record.h"

/* By id. -ENOENT: there is none. */
int record_load(struct index_tx *tx, const char *id, struct record *ret,
		struct error *err);
int record_load_n(struct index_tx *tx, int64_t n, struct record *ret,
		  struct error *err);

/*
 * In index_write(). Adds @r with all that hangs on it; sets r->n. An id that
 * was used before, even by an image that is gone, is -EEXIST. What admit.h
 * refuses is -EPERM or -EINVAL, as in record_update().
 */
int record_insert(struct index_tx *tx, struct record *r, struct error *err);
/*
 * Writes @r over what the index has. updated_usec becomes now. -ENOENT: the
 * image is gone by now.
 */
int record_update(struct index_tx *tx, struct record *r, struct error *err);
/*
 * The same two, with the times of @r, and an id that may have been used, of
 * images that were admitted before: of a sidecar, of another index.
 */
int record_insert_as_is(struct index_tx *tx, struct record *r,
			struct error *err);
int record_update_as_is(struct index_tx *tx, struct record *r,
			struct error *err);
/* What hangs on image @n has changed, and @updated_usec stays. */
int record_touch(struct index_tx *tx, int64_t n, struct error *err);
/*
 * Removes it with all that hangs on it. Its data are a tombstone's from now
 * on: glance_bury().
 */
int record_delete(struct index_tx *tx, const struct record *r,
		  struct error *err);

/* Was there an image @id, which was deleted? 1, 0, or a negative errno. */
int record_is_gone(struct index_tx *tx, const char *id, struct error *err);

/* Is @project a member of image @n, with @status (NULL: any)? 1, 0, -errno */
int record_is_member(struct index_tx *tx, int64_t n, const char *project,
		     const char *status, struct error *err);

#endif
