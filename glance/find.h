/* SPDX-License-Identifier: BSD-3-Clause */
/* Images that NBD serves: who may open what. */
#ifndef GLANCE_FIND_H
#define GLANCE_FIND_H

#include "glance/glance.h"

/* An image whose data can be served. Strings are owned. */
struct glance_image {
	char *id;
	char *project; /* in whose name space overlays are; NULL: in nobody's */
	int fd; /* its file, open to be read; owned */
	char *path; /* says where that lies, to people and in overlays */
	const char *format; /* of the drivers'; NULL: guess */
	bool contained; /* its disks are in a container */
};

void glance_image_done(struct glance_image *i);

/* What a client of NBD asks for. */
struct glance_wish {
	const char *name; /* the image's id, or its name if no other has that */
	const char *grant; /* grant.h; NULL: none */
	const char *overlay; /* of it; NULL: none */
	const char *project; /* whose, as the client says; NULL: he does not */
	bool by_operator; /* it is the operator, who needs no grant */
};

/*
 * The active image that @w names, and its file, opened here and nowhere else.
 * -ENOENT: there is none, its data are no disk, or @w may not have it. NBD asks
 * nobody who he is; where the API does (auth_asks()), a public image is
 * everybody's to read, and all else takes a grant that holds now and whose
 * project may see the image now.
 */
int glance_find_image(struct glance *g, const struct glance_wish *w,
		      struct glance_image *ret, struct error *err);

/* Calls @each with the id and the name ("" for none) of those images. */
int glance_each_image(struct glance *g, unsigned int max,
		      int (*each)(void *opaque, const char *id,
				  const char *name),
		      void *opaque);

#endif
