/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What may be said of images, members, tasks and metadata definitions: JSON
 * schemas, served under /v2/schemas and enforced from the same text.
 * Any thread, any time; the first call parses them.
 */
#ifndef GLANCE_SCHEMAS_H
#define GLANCE_SCHEMAS_H

#include <stdbool.h>

#include <jansson.h>

#include "iouring/error.h"

/* The schema "image", "metadefs/namespaces", ... as JSON; NULL: there is none. */
const char *schema_text(const char *name);

/*
 * Does @value match the schema @name, which exists? -EINVAL: no, and @err is
 * "Provided object does not match schema 'NAME': WHY".
 */
int schema_check(const char *name, const json_t *value, struct error *err);

/* The same for one property of an object. */
int schema_check_property(const char *name, const char *property,
			  const json_t *value, struct error *err);

/* May clients not set @property? */
bool schema_read_only(const char *name, const char *property);

/* Is @property an image's own, not one of a user's or a deployment's? */
bool schema_image_base(const char *property);

#endif
