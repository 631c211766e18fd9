/* SPDX-License-Identifier: BSD-3-Clause */
/* The ways in which data may be imported here, by Glance's names. */
#ifndef GLANCE_IMPORT_METHODS_H
#define GLANCE_IMPORT_METHODS_H

#include <jansson.h>

#include "glance/glance.h"

enum import_method {
	IMPORT_GLANCE_DIRECT,
	IMPORT_WEB_DOWNLOAD,
	IMPORT_COPY_IMAGE,
	IMPORT_GLANCE_DOWNLOAD, /* not everywhere */
	IMPORT_METHODS, /* how many */
};

const char *import_method_name(enum import_method m);
/* False: there is none of that name at @g. */
bool import_method_by_name(const struct glance *g, const char *name,
			   enum import_method *ret);

/* The names of those that there are at @g, a JSON array; NULL: no memory. */
json_t *import_methods(const struct glance *g);
/* In a header of the answer to @q. */
void import_methods_respond(struct request *q);

#endif
