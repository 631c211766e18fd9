/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a web server answers to a request for a range (RFC 9110, 14), and what is
 * to be made of it. Nothing of its body is looked at before this has said that it
 * is what was asked for, of the object that was asked for.
 */
#ifndef IOURING_SOURCES_HTTP_ANSWER_H
#define IOURING_SOURCES_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define HTTP_VERSION_BYTES 256U /* of an ETag or a date; longer ones: none */
#define HTTP_SIZE_NONE	   UINT64_MAX

/* The headers of one answer; zeroed at first. */
struct http_answer {
	unsigned int status;
	bool has_range; /* Content-Range, sound: */
	uint64_t first, last; /* of it; first > last: "*" */
	uint64_t bytes; /* of the whole; HTTP_SIZE_NONE: "*" */
	bool encoded; /* a Content-Encoding but identity */
	uint64_t length; /* Content-Length; HTTP_SIZE_NONE: not told */
	bool too_long; /* over HTTP_HEADERS_MAX bytes of them */
	size_t header_bytes;
	char etag[HTTP_VERSION_BYTES]; /* strong, with its quotes; "" */
	char modified[HTTP_VERSION_BYTES]; /* Last-Modified; "" */
	bool no_store; /* Cache-Control */
	unsigned int max_age; /* seconds; 0: not told */
};

#define HTTP_HEADERS_MAX (64U << 10)

/* Takes one line of headers, with its end; a line of status begins anew. */
void http_answer_line(struct http_answer *a, const char *line, size_t len);

/* What was asked for. */
struct http_want {
	uint64_t off, len; /* len > 0 */
	uint64_t bytes; /* of the whole; HTTP_SIZE_NONE: not known yet */
	const char *etag, *modified; /* of the object; "": none */
};

enum http_verdict {
	HTTP_DATA, /* a range from off on; perhaps less than was asked for */
	HTTP_EMPTY, /* the object has no bytes */
	HTTP_WHOLE, /* all of it, of length bytes: no range can be had */
	HTTP_MOVED, /* to somewhere else */
	HTTP_CHANGED, /* it is another object now */
	HTTP_BUSY, /* asked again later it may do */
	HTTP_DENIED, /* 401, 403 */
	HTTP_GONE, /* 404, 410 */
	HTTP_NO_RANGE, /* 416 */
	HTTP_WRONG, /* it is no use */
};

/* @why: filled unless it is HTTP_DATA, HTTP_EMPTY or HTTP_MOVED. */
enum http_verdict http_answer_judge(const struct http_answer *a,
				    const struct http_want *w,
				    struct error *why);

#endif
