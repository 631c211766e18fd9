/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Objects that are named as their stores name them, and where they are asked for:
 *
 *	s3://BUCKET/KEY			ENDPOINT/BUCKET/KEY, BUCKET.ENDPOINT/KEY
 *	swift://CONTAINER/OBJECT	ENDPOINT/CONTAINER/OBJECT
 *	pithos://ACCOUNT/CONTAINER/OBJECT  ENDPOINT/ACCOUNT/CONTAINER/OBJECT
 *	glance://ID			ENDPOINT/v2/images/ID/file
 *
 * ENDPOINT is of the line of credentials (credentials.h) that is for the object. Of
 * s3:// it need not be given: it is Amazon's, of the line's region.
 */
#ifndef IOURING_SOURCES_OBJECT_STORE_H
#define IOURING_SOURCES_OBJECT_STORE_H

#include "iouring/sources/credentials.h"

/*
 * Where @u, whose scheme is one of the above, is asked for with @c; @about: of
 * glance:// what is told of the image, ENDPOINT/v2/images/ID, and not its data. @ret is the
 * caller's to url_done(), and written on success only. -EINVAL: it names no object,
 * or @c lacks what it needs.
 */
int object_store_resolve(const struct url *u, const struct credentials *c,
			 bool about, struct url *ret, struct error *err);

/* Its store's type in a catalogue of Keystone's. */
const char *object_store_service(const struct url *u);

/* What is there under one name never changes: by its scheme. */
bool object_store_is_constant(const struct url *u);

#endif
