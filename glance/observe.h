/* SPDX-License-Identifier: BSD-3-Clause */
/* What operators see of the service: GET /metrics, and a log of requests. */
#ifndef GLANCE_OBSERVE_H
#define GLANCE_OBSERVE_H

#include "glance/http/http.h"

struct observer;

/*
 * @log: a file to which each request is appended, a line each; NULL: none. It
 * is opened again when it was renamed.
 */
int observer_new(const char *log, struct observer **ret, struct error *err);
void observer_free(struct observer *o); /* NULL is fine */

/* A request was answered. For http_app.done; any thread. */
void observe_request(struct request *q);

#endif
