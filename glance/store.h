/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the data of images lie.
 *
 *	DIR/index.sqlite	the index
 *	DIR/images/XX/ID	data, XX the first two digits of the image's id
 *	DIR/incoming/ID		uploads that are not whole yet
 *	DIR/staging/ID		data that are whole and wait for their import
 */
#ifndef GLANCE_STORE_H
#define GLANCE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

struct store;

/* Makes what is missing of the folder @path. */
int store_open(const char *path, struct store **ret, struct error *err);
void store_close(struct store *s); /* NULL is fine */

/* Where the data of image @id lie; to be freed. NULL: no memory. */
char *store_image_path(const struct store *s, const char *id);

enum store_area { STORE_INCOMING, STORE_STAGING };

/* Where data of image @id lie in the meantime; to be freed. NULL: no memory. */
char *store_area_path(const struct store *s, enum store_area area,
		      const char *id);

/*
 * Data that are coming. They lie in incoming/ until they are whole; *ret: a
 * descriptor to write them to.
 */
int store_incoming_open(struct store *s, const char *id, int *ret,
			struct error *err);
/* From there to staging/; they are durable when this returns 0. */
int store_stage(struct store *s, const char *id, int fd, struct error *err);
/* What was staged, to be read. */
int store_staging_open(struct store *s, const char *id, int *ret,
		       struct error *err);
bool store_has_staged(struct store *s, const char *id);
/*
 * They are whole, and durable when this returns 0: the image's data. To be
 * called before the index says so.
 */
int store_commit(struct store *s, enum store_area area, const char *id, int fd,
		 struct error *err);
void store_discard(struct store *s, enum store_area area, const char *id);

/* The data of image @from are @to's from now on, also when they were before. */
int store_rename(struct store *s, const char *from, const char *to,
		 struct error *err);

/* The data of an image that is gone. */
void store_remove(struct store *s, const char *id);

enum store_verdict {
	STORE_DROP,
	STORE_KEEP,
	STORE_STAGE, /* an image's data are not its own yet: they wait again */
};

/*
 * After a crash: nothing is coming any more, and with data, staged or an
 * image's, is done what @keep says (a verdict, or a negative errno, which is
 * returned).
 */
int store_tidy(struct store *s,
	       int (*keep)(void *opaque, const char *id, bool staged),
	       void *opaque, struct error *err);

/* The index's file, the store's. */
const char *store_index_path(const struct store *s);

#endif
