/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "glance/http/cors.h"

/* For how long a browser need not ask again. */
#define MAX_AGE_SEC "3600"

/* What pages may set: what browsers let them anyway, Glance's, and our own. */
static const char *const headers[] = {
	"Accept",
	"Accept-Encoding",
	"Accept-Language",
	"Cache-Control",
	"Content-Language",
	"Content-MD5",
	"Content-Type",
	"Expires",
	"Last-Modified",
	"Pragma",
	"Range",
	"X-Auth-Token",
	"X-Identity-Status",
	"X-Image-Meta-Checksum",
	"X-Image-Meta-Store",
	"X-OpenStack-Append",
	"X-OpenStack-Request-ID",
	"X-Roles",
	"X-Service-Catalog",
	"X-Service-Token",
	"X-Storage-Token",
	"X-Tenant-Id",
	"X-User-Id",
};

static bool is(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && !strncasecmp(text, word, len);
}

static bool has_header(const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(headers); i++)
		if (is(name, len, headers[i]))
			return true;
	return false;
}

static bool has_method(const char *name)
{
	static const char *const methods[] = { "GET", "PUT", "POST", "DELETE",
					       "PATCH" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(methods); i++)
		if (!strcmp(name, methods[i]))
			return true;
	return false;
}

/* A scheme, and behind it what may stand in a Host header. */
static bool is_origin(const char *text, size_t len)
{
	size_t scheme = !strncmp(text, "http://", 7)	? 7
			: !strncmp(text, "https://", 8) ? 8
							: 0;

	return scheme && len > scheme &&
	       strspn(text + scheme, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz"
				     "0123456789-._:[]") == len - scheme;
}

int cors_check(const char *origins, struct error *err)
{
	size_t len;

	for (; origins && *origins; origins += len + (origins[len] == ',')) {
		len = strcspn(origins, ",");
		if (!is_origin(origins, len))
			return error_set(err, -EINVAL, 0,
					 "cors-origins: \"%.*s\" is not "
					 "http[s]://NAME[:PORT]",
					 (int)(len < 128 ? len : 128), origins);
	}
	return 0;
}

bool cors_lists(const char *origins, const char *origin)
{
	size_t len;

	for (; origin && origins && *origins;
	     origins += len + (origins[len] == ',')) {
		len = strcspn(origins, ",");
		if (strlen(origin) == len && !strncmp(origins, origin, len))
			return true;
	}
	return false;
}

/* Are all names of @list, by commas, ones that may be set? */
static bool may_set(const char *list)
{
	while (*list) {
		size_t len;

		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if (len && !has_header(list, len))
			return false;
		list += len;
	}
	return true;
}

static void allow_origin(struct request *q, const char *origin)
{
	respond_header(q, "Vary", "Origin");
	respond_header(q, "Access-Control-Allow-Origin", origin);
	respond_header(q, "Access-Control-Allow-Credentials", "true");
}

/* May the page send what the browser asks about? */
static void answer_question(struct request *q, const char *origin)
{
	const char *method = request_header(q, "Access-Control-Request-Method");
	const char *names = request_header(q, "Access-Control-Request-Headers");

	if (origin && method && has_method(method) &&
	    (!names || may_set(names))) {
		allow_origin(q, origin);
		respond_header(q, "Access-Control-Max-Age", MAX_AGE_SEC);
		respond_header(q, "Access-Control-Allow-Methods", method);
		if (names)
			respond_header(q, "Access-Control-Allow-Headers",
				       names);
	}
	respond_empty(q, 200);
}

void cors_take(struct request *q, const char *origins)
{
	const char *origin = request_header(q, "Origin");

	if (!origins)
		return;
	if (!cors_lists(origins, origin))
		origin = NULL;
	if (!strcmp(q->method_name, "OPTIONS")) {
		answer_question(q, origin);
	} else if (origin) {
		allow_origin(q, origin);
		respond_header(q, "Access-Control-Expose-Headers",
			       "X-Image-Meta-Checksum,X-Auth-Token,"
			       "X-Subject-Token,X-Service-Token,"
			       "X-OpenStack-Request-ID");
	}
}
