/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The target of an HTTP request: path and query, split first and decoded
 * afterwards, so that an encoded slash stays inside its segment.
 */
#ifndef GLANCE_HTTP_URI_H
#define GLANCE_HTTP_URI_H

#include <stdbool.h>
#include <stddef.h>

#include "glance/http/text-buf.h"
#include "iouring/error.h"

#define URI_BYTES_MAX	 8192
#define URI_SEGMENTS_MAX 16
#define URI_QUERY_MAX	 256

struct uri_pair {
	const char *name;
	const char *value; /* "" where there is no '=' */
};

struct uri {
	char *memory; /* what everything below points into */
	char *segments[URI_SEGMENTS_MAX];
	size_t n_segments; /* without empty ones: "/a//b/" has two */
	bool ends_open; /* with a '/' */
	struct uri_pair query[URI_QUERY_MAX];
	size_t n_query; /* in the order of the request */
};

/*
 * Parses "/path?query". Refused (-EINVAL): '%' without two digits, %00,
 * control characters, what is not UTF-8; -EFBIG: more than the maxima.
 * On failure @ret is empty. A '+' in the query is a space.
 */
int uri_parse(const char *target, struct uri *ret, struct error *err);
void uri_done(struct uri *u);

/* The value of the first parameter @name; NULL: there is none. */
const char *uri_query(const struct uri *u, const char *name);

/*
 * Adds the query as it was asked, without parameters @skip. *separator: '?',
 * and '&' when there is something.
 */
void uri_add_query(struct text_buf *b, const struct uri *u, const char *skip,
		   char *separator);

/* Is @text well-formed UTF-8 without control characters? */
bool uri_text_ok(const char *text);

#endif
