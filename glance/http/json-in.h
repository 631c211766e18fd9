/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON from strangers: its depth is bounded before it is parsed. */
#ifndef GLANCE_HTTP_JSON_IN_H
#define GLANCE_HTTP_JSON_IN_H

#include <jansson.h>

#include "iouring/error.h"

#define JSON_IN_DEPTH_MAX 32

/* @text of @len bytes, any value. To be json_decref()ed. */
int json_in_parse(const char *text, size_t len, json_t **ret,
		  struct error *err);

/* For CLEANUP(). */
void json_in_freep(json_t **v);

/* The string @key of the object @o; NULL: there is none. */
const char *json_member(const json_t *o, const char *key);

#endif
