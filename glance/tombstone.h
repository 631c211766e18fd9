/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is to be removed from the store, in the index before anything is: who
 * recovers from a crash removes what is named here, and nothing else. A
 * tombstone goes when what it names is gone for good.
 *
 * An image's id is never used again, so that the dead may be removed at any
 * time. What comes is half-made until the index says otherwise; should the
 * index be older than the data, then their sidecar tells (sidecar.h): data that
 * were ever an image's have one.
 */
#ifndef GLANCE_TOMBSTONE_H
#define GLANCE_TOMBSTONE_H

#include "glance/index.h"

enum tombstone_kind {
	TOMBSTONE_GONE, /* an image that was deleted */
	TOMBSTONE_COMING, /* data that come to images/ or staging/ */
	TOMBSTONE_MOVING, /* the same, out of staging/ */
	TOMBSTONE_STAGED, /* in staging/: their import has failed */
	TOMBSTONE_COPY, /* in stores that no location of their image names */
	TOMBSTONE_KINDS,
};

const char *tombstone_kind_name(enum tombstone_kind k);

/* In index_write(). */
int tombstone_add(struct index_tx *tx, enum tombstone_kind k, const char *id,
		  struct error *err);
/* There need not be one. */
int tombstone_drop(struct index_tx *tx, enum tombstone_kind k, const char *id,
		   struct error *err);
int tombstones_clear(struct index_tx *tx, struct error *err);

/* Does any name @id? 1, 0, or a negative errno. */
int tombstone_is(struct index_tx *tx, const char *id, struct error *err);

/* Calls @each until it returns non-zero, and returns that. */
int tombstones_each(struct index_tx *tx,
		    int (*each)(void *opaque, enum tombstone_kind k,
				const char *id),
		    void *opaque, struct error *err);

#endif
