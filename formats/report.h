/* SPDX-License-Identifier: BSD-3-Clause */
/* What is said of images to programs: JSON, with qemu-img info's names. */
#ifndef FORMATS_REPORT_H
#define FORMATS_REPORT_H

#include <jansson.h>

#include "formats/layer.h"
#include "formats/reference.h"

/* A string, escaped where it is no UTF-8. */
json_t *report_text(const char *text);

/* What is said of every layer; it is called @name. */
json_t *report_layer(const struct layer *l, const char *name);

/* Adds to @to what is said of a top: snapshots, what its format knows, ... */
int report_details(json_t *to, struct layer *l, struct error *err);

/* Adds to the list @to that @by refers to @name. */
void report_reference(json_t *to, const char *by, const char *kind,
		      const char *name, enum reference_verdict verdict);

#endif
