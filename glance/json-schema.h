/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Does a value match a JSON schema? The part of draft 4 that Glance's
 * schemas are written in: type, enum, pattern (POSIX extended), maxLength and
 * minLength (in characters), minimum, maximum, items (one schema), minItems,
 * maxItems, uniqueItems, properties, required, additionalProperties, allOf,
 * and $ref to "#/definitions/NAME" of the root. Others ("format") say nothing.
 * The schema is trusted, the value is not: its depth is the reader's to bound.
 */
#ifndef GLANCE_JSON_SCHEMA_H
#define GLANCE_JSON_SCHEMA_H

#include <jansson.h>

#include "iouring/error.h"

/*
 * -EINVAL: it does not, and @err says what is wrong in the words that
 * clients know: "'x' is not of type 'integer'".
 */
int json_schema_check(const json_t *root, const json_t *value,
		      struct error *err);

/*
 * @value as messages show it: strings in single quotes, the rest as JSON; cut
 * to @ret_bytes.
 */
void json_schema_show(char *ret, size_t ret_bytes, const json_t *value);

#endif
