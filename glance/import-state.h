/* SPDX-License-Identifier: BSD-3-Clause */
/* What an image's properties say of the import that it is in, as Glance's do. */
#ifndef GLANCE_IMPORT_STATE_H
#define GLANCE_IMPORT_STATE_H

#include "glance/record.h"

#define IMPORT_LOCK    "os_glance_import_task" /* whose the image is */
#define IMPORT_TO_COME "os_glance_importing_to_stores" /* names, by commas */
#define IMPORT_FAILED  "os_glance_failed_import" /* the same */

/* Is @r the task's? */
bool import_owns(const struct record *r, const char *task);
/* In @r: its data have come to the store @name, or, not @ok, will not. */
int import_reached(struct record *r, const char *name, bool ok,
		   struct error *err);

#endif
