/* SPDX-License-Identifier: BSD-3-Clause */
/* From API v2's JSON to an image: what may be set, and setting it. */
#ifndef GLANCE_IMAGE_FIELDS_H
#define GLANCE_IMAGE_FIELDS_H

#include <jansson.h>
#include <stdbool.h>

#include "glance/auth.h"
#include "glance/record.h"
#include "iouring/error.h"

/* Names that no property may have: "location", "os_glance…", and so on. */
bool image_name_reserved(const char *name);

/*
 * Does @value fit field or property @name, as the schema has it and as the
 * index can hold it? -EINVAL and the message of a 400; -EFBIG: of a 413.
 */
int image_field_check(const char *name, const json_t *value, struct error *err);

/*
 * Sets what @value, which was checked, says. For fields that are neither read
 * only nor locations, and for properties. -EPERM: not in this status.
 */
int image_field_apply(struct record *r, const char *name, const json_t *value,
		      struct error *err);

/* -EPERM: only an administrator makes images public. */
int image_may_publish(const struct identity *who, enum image_visibility v,
		      struct error *err);

/* Checks and applies what a client says; -EPERM: clients do not set it. */
int image_set_field(struct record *r, const char *name, const json_t *value,
		    struct error *err);

/* The new image that the object @body describes, with an id. */
int image_from_json(const struct identity *who, const json_t *body,
		    struct record *ret, struct error *err);

#endif
