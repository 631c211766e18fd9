/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iouring/sources/object-store.h"
#include "iouring/sources/s3-sign.h"

/* "https://storage/v1/x/": its scheme and host, and the path without an end. */
struct endpoint {
	struct url u;
	size_t path_len;
};

static int take_endpoint(const struct credentials *c, const char *fallback,
			 struct endpoint *ret, struct error *err)
{
	const char *text = c->endpoint ? c->endpoint : fallback;
	int r;

	if (!text)
		return error_set(err, -EINVAL, 0,
				 "where is its store? A line of the file "
				 "credentials= says so, with endpoint=URL");
	r = url_is_http(text)
		    ? url_parse(text, &ret->u, err)
		    : error_set(err, -EINVAL, 0, "it is not of http or https");
	if (r < 0) {
		error_prefix(err, "endpoint");
		return r;
	}
	ret->path_len = strlen(ret->u.path);
	while (ret->path_len && ret->u.path[ret->path_len - 1] == '/')
		ret->path_len--;
	return 0;
}

/* The path is @fmt's; the host of @e, with @label before it if there is one. */
static int put_together(struct endpoint *e, const char *label,
			const char *before, const char *path, struct url *ret,
			struct error *err)
{
	CLEANUP(freep) char *plain = NULL;
	char *host;

	if (asprintf(&plain, "%.*s%s%s", (int)e->path_len, e->u.path, before,
		     path) < 0)
		plain = NULL;
	if (asprintf(&host, "%s%s%s", label, *label ? "." : "", e->u.host) < 0)
		host = NULL;
	free(e->u.host);
	e->u.host = host;
	free(e->u.path);
	e->u.path = plain ? s3_path(plain) : NULL;
	if (!e->u.host || !e->u.path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*ret = e->u;
	e->u = (struct url){ 0 };
	return 0;
}

static void endpoint_done(struct endpoint *e)
{
	url_done(&e->u);
}

/* A bucket with a dot has no certificate of its own. */
static bool is_by_host(const struct url *u, const struct credentials *c)
{
	return c->by_host || (!c->endpoint && !strchr(u->host, '.'));
}

static int resolve_s3(const struct url *u, const struct credentials *c,
		      struct url *ret, struct error *err)
{
	CLEANUP(endpoint_done) struct endpoint e = { 0 };
	CLEANUP(freep) char *amazon = NULL;
	CLEANUP(freep) char *before = NULL;
	bool by_host = is_by_host(u, c);
	int r;

	if (asprintf(&amazon, "https://s3.%s.amazonaws.com",
		     c->region ? c->region : S3_REGION) < 0 ||
	    asprintf(&before, "/%s", by_host ? "" : u->host) < 0) {
		before = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = take_endpoint(c, amazon, &e, err);
	return r < 0 ? r
		     : put_together(&e, by_host ? u->host : "",
				    by_host ? "" : before, u->path, ret, err);
}

static int resolve_path(const struct url *u, const struct credentials *c,
			const char *folder, const char *rest, struct url *ret,
			struct error *err)
{
	CLEANUP(endpoint_done) struct endpoint e = { 0 };
	CLEANUP(freep) char *before = NULL;
	int r;

	if (asprintf(&before, "/%s%s", folder, u->host) < 0) {
		before = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = take_endpoint(c, NULL, &e, err);
	return r < 0 ? r : put_together(&e, "", before, rest, ret, err);
}

int object_store_resolve(const struct url *u, const struct credentials *c,
			 bool about, struct url *ret, struct error *err)
{
	bool is_image = !strcmp(u->scheme, "glance");

	if (u->query || u->login ||
	    (is_image ? strcmp(u->path, "/") != 0 : !u->path[1]))
		return error_set(err, -EINVAL, 0,
				 "is not %s, without a login and a query",
				 is_image ? "glance://ID"
					  : "SCHEME://CONTAINER/OBJECT");
	if (!strcmp(u->scheme, "s3"))
		return resolve_s3(u, c, ret, err);
	if (!is_image)
		return resolve_path(u, c, "", u->path, ret, err);
	return resolve_path(u, c, "v2/images/", about ? "" : "/file", ret, err);
}

bool object_store_is_constant(const struct url *u)
{
	return !strcmp(u->scheme, "glance");
}

const char *object_store_service(const struct url *u)
{
	return strcmp(u->scheme, "glance") ? "object-store" : "image";
}
