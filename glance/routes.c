/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "glance/glance.h"
#include "glance/routes.h"

static const struct route *const tables[] = {
	v2_routes,     data_routes, grant_routes,   observe_routes,
	legacy_routes, info_routes, metadef_routes, import_routes,
	task_routes,   nbd_routes,  health_routes,  location_routes
};

/* In v2 "/v2/images/" names no image; the older dialects list with it. */
static bool matches(const char *pattern, const struct uri *u)
{
	size_t i;

	if (u->ends_open && u->n_segments > 1 && !strncmp(pattern, "/v2", 3))
		return false;
	for (i = 0; i < u->n_segments; i++) {
		size_t len;

		if (*pattern != '/')
			return false;
		len = strcspn(pattern + 1, "/");
		if (!len)
			return false;
		if (!(len == 2 && !strncmp(pattern + 1, "{}", 2)) &&
		    (strlen(u->segments[i]) != len ||
		     strncmp(pattern + 1, u->segments[i], len)))
			return false;
		pattern += 1 + len;
	}
	return !*pattern || !strcmp(pattern, "/");
}

const struct route *route_find(const struct uri *u, enum http_method method,
			       unsigned int *ret_allowed)
{
	const struct route *r, *get = NULL;
	size_t i;

	*ret_allowed = 0;
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		for (r = tables[i]; r->pattern; r++) {
			if (!matches(r->pattern, u))
				continue;
			if (r->method == method)
				return r;
			if (r->method == HTTP_GET && !get)
				get = r;
			*ret_allowed |= 1U << r->method;
		}
	}
	return method == HTTP_HEAD ? get : NULL;
}

static void respond_not_allowed(struct request *q, unsigned int allowed)
{
	static const char *const names[] = { "GET", "HEAD",  "POST",
					     "PUT", "PATCH", "DELETE" };
	struct text_buf b = { 0 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (allowed & 1U << i)
			text_addf(&b, "%s%s", b.len ? ", " : "", names[i]);
	if (!b.failed)
		respond_header(q, "Allow", b.text);
	text_buf_done(&b);
	respond_errorf(q, 405,
		       "The method %.16s is not allowed for this resource.",
		       q->method_name);
}

static int identify(struct request *q)
{
	struct glance *g = q->app;
	struct error err = { 0 };
	int r = auth_identify(g->auth, q, &q->who, &err);

	if (r == -EACCES)
		respond_header(q, "WWW-Authenticate", auth_challenge(g->auth));
	if (r == -EACCES)
		respond_error(q, 401,
			      "This server could not verify that you "
			      "are authorized to access the document "
			      "you requested.");
	else if (r < 0)
		respond_failure(q, &err);
	return r;
}

/* "v2.N", for each N that the versions list has. */
static bool is_minor_version(const char *text)
{
	char *end;

	if (strncmp(text, "v2.", 3) || text[3] < '0' || text[3] > '9' ||
	    (text[3] == '0' && text[4]))
		return false;
	return strtoul(text + 3, &end, 10) <= API_MINOR_MAX && !*end;
}

/* "/v2.N/..." is v2. */
static void drop_minor_version(struct uri *u)
{
	if (u->n_segments && is_minor_version(u->segments[0]))
		u->segments[0][2] = '\0';
}

/*
 * "Accept: application/vnd.openstack.images-v2.N" says what the path is without,
 * whatever it begins with: as Glance has it. 1: it was added; -ENOENT: there is no
 * such version.
 */
static int add_accepted_version(struct request *q)
{
	static const char prefix[] = "application/vnd.openstack.images-";
	static char v1[] = "v1", v2[] = "v2"; /* nobody writes there */
	const char *accept = request_header(q, "Accept");
	struct uri *u = &q->uri;
	const char *version;

	if (!accept || strncmp(accept, prefix, sizeof(prefix) - 1) != 0)
		return 0;
	version = accept + sizeof(prefix) - 1;
	if (u->n_segments == URI_SEGMENTS_MAX ||
	    (strcmp(version, v1) != 0 && strcmp(version, v2) != 0 &&
	     !is_minor_version(version)))
		return -ENOENT;
	memmove(u->segments + 1, u->segments,
		u->n_segments * sizeof(u->segments[0]));
	u->segments[0] = strcmp(version, v1) != 0 ? v2 : v1;
	u->n_segments++;
	return 1;
}

/* Who asks for a version that there is not is told which there are. */
static bool is_of_a_version(const struct uri *u)
{
	static const char *const roots[] = { "v2", "v1", "image" };
	size_t i;

	for (i = 0; u->n_segments && i < ARRAY_SIZE(roots); i++)
		if (!strcmp(u->segments[0], roots[i]))
			return true;
	return false;
}

/* In chunks only where a body may be at all: Glance reads no others. */
static bool has_unwanted_body(const struct request *q)
{
	return q->method == HTTP_POST || q->method == HTTP_PUT
		       ? request_has_body(q)
		       : q->has_length && q->content_length;
}

void routes_begin(struct request *q)
{
	unsigned int allowed;
	int r;

	drop_minor_version(&q->uri);
	q->route = route_find(&q->uri, q->method, &allowed);
	r = q->route && q->route->flags & ROUTE_ANY_VERSION
		    ? 0
		    : add_accepted_version(q);
	if (r > 0)
		q->route = route_find(&q->uri, q->method, &allowed);
	if (r < 0 || (!q->route && !allowed && !is_of_a_version(&q->uri))) {
		versions_respond(q, 300);
		return;
	}
	if (!(q->route && q->route->flags & ROUTE_PUBLIC) && identify(q) < 0)
		return;
	if (!q->route && allowed)
		respond_not_allowed(q, allowed);
	else if (!q->route)
		respond_error(q, 404, "The resource could not be found.");
	else if (q->route->flags & ROUTE_NO_BODY && has_unwanted_body(q))
		respond_error(q, 400,
			      "A body is not expected with this request.");
	else if (q->route->begin)
		q->route->begin(q);
}

void routes_finish(struct request *q)
{
	q->route->handle(q);
}
