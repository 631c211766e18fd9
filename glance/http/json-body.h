/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON in requests and answers. */
#ifndef GLANCE_HTTP_JSON_BODY_H
#define GLANCE_HTTP_JSON_BODY_H

#include <jansson.h>

#include "glance/http/http.h"

/*
 * The body of @q, which is whole: any JSON value. NULL: it is none, and 400
 * was answered as Glance does.
 */
json_t *request_json(struct request *q);
/* The same for those who take objects alone. */
json_t *request_json_object(struct request *q);

/* Answers with @value, which is taken over; NULL: 500. */
void respond_json_value(struct request *q, unsigned int status, json_t *value);

#endif
