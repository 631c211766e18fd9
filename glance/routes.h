/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which request is whose: each dialect of the API has a table of its own,
 * and this is where they come together.
 */
#ifndef GLANCE_ROUTES_H
#define GLANCE_ROUTES_H

#include "glance/http/http.h"

struct index_tx;
struct metadef_call;

/* The newest minor version of v2; all from 2.0 on are answered. */
#define API_MINOR_MAX 17U

enum {
	ROUTE_PUBLIC = 1 << 0, /* nobody is asked who he is */
	ROUTE_NO_BODY = 1 << 1, /* one is refused, as Glance does here */
	ROUTE_ANY_VERSION = 1
			    << 2, /* a version that is accepted means nothing */
};

struct route {
	enum http_method method; /* GET answers HEAD too, unless HEAD has a
				    route of its own */
	const char *pattern; /* "/v2/images/{}/file": {} is any segment, which
				the handler finds in q->uri.segments */
	/* Required. The body is whole, or was taken by the sink. */
	void (*handle)(struct request *q);
	/*
	 * Optional: the headers are there, the body is not. May answer (then
	 * handle is not called), set q->sink, or raise q->body.max.
	 */
	void (*begin)(struct request *q);
	unsigned int flags;
	/*
	 * For a handle that many routes share: what it is to do in the index,
	 * and the status when that went well.
	 */
	int (*call)(struct index_tx *tx, struct metadef_call *c,
		    struct error *err);
	unsigned int status;
};

/* Each ended by a route without a pattern. */
extern const struct route v2_routes[];
extern const struct route data_routes[];
extern const struct route grant_routes[];
extern const struct route nbd_routes[];
extern const struct route observe_routes[];
extern const struct route legacy_routes[];
extern const struct route info_routes[];
extern const struct route health_routes[];
extern const struct route location_routes[];
extern const struct route metadef_routes[];
extern const struct route import_routes[];
extern const struct route task_routes[];

/*
 * The first of the tables' routes that fits; NULL: none, and *ret_allowed says
 * whether other methods would (a bit each).
 */
const struct route *route_find(const struct uri *u, enum http_method method,
			       unsigned int *ret_allowed);

/* ---- v2.c ---- */

/* Answers with the versions that there are. */
void versions_respond(struct request *q, unsigned int status);

/* ---- routes.c ---- */

/* For struct http_app. */
void routes_begin(struct request *q);
void routes_finish(struct request *q);

#endif
