/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PATCH of an image: JSON Patch as Glance has it, in its two spellings.
 *
 *	2.1: [{"op": "replace", "path": "/name", "value": "x"}]
 *	2.0: [{"replace": "/name", "value": "x"}]
 *
 * Paths are JSON pointers (RFC 6901) of one part, or of two in locations.
 */
#ifndef GLANCE_JSON_PATCH_H
#define GLANCE_JSON_PATCH_H

#include <jansson.h>

#include "iouring/error.h"

#define JSON_PATCH_CHANGES_MAX 1024U

enum patch_op { PATCH_ADD, PATCH_REMOVE, PATCH_REPLACE };

struct patch_change {
	enum patch_op op;
	char *name; /* of the field or property; owned */
	char *at; /* in locations: "0", "-"; NULL: the whole; owned */
	json_t *value; /* of the document; NULL: remove */
};

struct patch {
	json_t *document; /* owned */
	struct patch_change *changes;
	size_t n_changes;
};

/*
 * Which of the two spellings is media type @type (parameters allowed)? 20,
 * 21, or 0: neither.
 */
unsigned int json_patch_version(const char *type);

/*
 * Checks and takes apart @text. -EINVAL: a 400; -EPERM: a 403, what must not
 * be changed. Values are checked against the table of image fields.
 */
int json_patch_parse(const char *text, size_t len, unsigned int version,
		     struct patch *ret, struct error *err);
void json_patch_done(struct patch *p);

#endif
