/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "iouring/sources/http-answer.h"

/* ---- headers ---- */

/* Digits at *@at; false: there are none, or too many. */
static bool take_number(const char **at, uint64_t *ret)
{
	uint64_t v = 0;
	const char *p = *at;

	for (; isdigit((unsigned char)*p); p++) {
		if (v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(*p - '0');
	}
	if (p == *at)
		return false;
	*at = p;
	*ret = v;
	return true;
}

/* "bytes FIRST-LAST/BYTES"; either side of the slash may be "*". */
static bool parse_range(const char *value, struct http_answer *a)
{
	const char *p = value;

	if (strncasecmp(p, "bytes ", 6) != 0)
		return false;
	p += 6 + strspn(p + 6, " ");
	if (*p == '*') {
		a->first = 1;
		a->last = 0;
		p++;
	} else if (!take_number(&p, &a->first) || *p++ != '-' ||
		   !take_number(&p, &a->last) || a->first > a->last) {
		return false;
	}
	if (*p++ != '/')
		return false;
	if (*p == '*' && !p[1]) {
		a->bytes = HTTP_SIZE_NONE;
		return true;
	}
	/* Nothing larger has offsets. */
	return take_number(&p, &a->bytes) && !*p && a->bytes <= INT64_MAX &&
	       (a->first > a->last || a->last < a->bytes);
}

static void take_version(char *to, const char *value)
{
	size_t len = strlen(value);

	if (len >= HTTP_VERSION_BYTES)
		len = 0;
	memcpy(to, value, len);
	to[len] = '\0';
}

/* RFC 9110, 8.8.3: a weak one is the same for what differs. */
static void take_etag(struct http_answer *a, const char *value)
{
	size_t len = strlen(value);

	a->etag[0] = '\0';
	if (len >= 2 && value[0] == '"' && value[len - 1] == '"')
		take_version(a->etag, value);
}

static void take_cache_control(struct http_answer *a, const char *value)
{
	const char *age = strcasestr(value, "max-age=");
	uint64_t v;

	a->no_store =
		strcasestr(value, "no-store") || strcasestr(value, "no-cache");
	if (!age)
		return;
	age += 8;
	if (take_number(&age, &v))
		a->max_age = v > INT32_MAX ? INT32_MAX : (unsigned int)v;
	a->no_store |= !a->max_age;
}

static void take_length(struct http_answer *a, const char *value)
{
	uint64_t v;

	a->length = take_number(&value, &v) && !*value && v <= INT64_MAX
			    ? v
			    : HTTP_SIZE_NONE;
}

static void take_header(struct http_answer *a, const char *name,
			const char *value)
{
	if (!strcasecmp(name, "Content-Range"))
		a->has_range = parse_range(value, a);
	else if (!strcasecmp(name, "Content-Length"))
		take_length(a, value);
	else if (!strcasecmp(name, "ETag"))
		take_etag(a, value);
	else if (!strcasecmp(name, "Last-Modified"))
		take_version(a->modified, value);
	else if (!strcasecmp(name, "Content-Encoding"))
		a->encoded = *value && strcasecmp(value, "identity") != 0;
	else if (!strcasecmp(name, "Cache-Control"))
		take_cache_control(a, value);
}

/* "HTTP/1.1 206 ..." */
static void take_status(struct http_answer *a, const char *line)
{
	size_t bytes = a->header_bytes;
	bool too_long = a->too_long;

	*a = (struct http_answer){ .header_bytes = bytes,
				   .too_long = too_long,
				   .bytes = HTTP_SIZE_NONE,
				   .length = HTTP_SIZE_NONE };
	line += strcspn(line, " ");
	a->status = (unsigned int)strtoul(line, NULL, 10);
}

void http_answer_line(struct http_answer *a, const char *line, size_t len)
{
	char text[1024], *colon, *value;
	size_t end = min_size(len, sizeof(text) - 1);

	a->header_bytes += len;
	a->too_long |= a->header_bytes > HTTP_HEADERS_MAX;
	if (end < len)
		return; /* none that we want is as long */
	memcpy(text, line, end);
	while (end && isspace((unsigned char)text[end - 1]))
		end--;
	text[end] = '\0';
	if (!strncmp(text, "HTTP/", 5)) {
		take_status(a, text);
		return;
	}
	colon = strchr(text, ':');
	if (!colon)
		return;
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	take_header(a, text, value);
}

/* ---- what it is worth ---- */

/* Is it of the object that @w tells of? What is not told is not the same. */
static bool is_of_object(const struct http_answer *a, const struct http_want *w)
{
	if (w->bytes != HTTP_SIZE_NONE && a->bytes != w->bytes)
		return false;
	if (*w->etag && *a->etag)
		return !strcmp(w->etag, a->etag);
	if (*w->modified)
		return !strcmp(w->modified, a->modified);
	return !*w->etag;
}

static enum http_verdict judge_part(const struct http_answer *a,
				    const struct http_want *w,
				    struct error *why)
{
	uint64_t last = w->off + w->len - 1;

	if (a->encoded) {
		error_set(why, -EIO, 0,
			  "the server answers with an encoding that was not "
			  "asked for");
	} else if (!a->has_range || a->first > a->last) {
		error_set(why, -EIO, 0,
			  "the server answers 206 without saying which bytes "
			  "these are");
	} else if (a->bytes == HTTP_SIZE_NONE) {
		error_set(why, -EIO, 0, "the server tells no size");
	} else if (w->bytes != HTTP_SIZE_NONE && !is_of_object(a, w)) {
		error_set(why, -EIO, 0,
			  "it has changed since it was opened: what is there "
			  "now is another image");
		return HTTP_CHANGED;
	} else if (a->first != w->off || a->last > last) {
		error_set(why, -EIO, 0,
			  "the server answers with bytes %" PRIu64 "-%" PRIu64
			  " where %" PRIu64 "-%" PRIu64 " were asked for",
			  a->first, a->last, w->off, last);
	} else {
		return HTTP_DATA;
	}
	return HTTP_WRONG;
}

static enum http_verdict judge_no_range(const struct http_answer *a,
					const struct http_want *w,
					struct error *why)
{
	if (w->bytes == HTTP_SIZE_NONE && a->has_range && !a->bytes)
		return HTTP_EMPTY;
	error_set(why, -EIO, 0,
		  "the server answers 416, it has no bytes %" PRIu64
		  "-%" PRIu64,
		  w->off, w->off + w->len - 1);
	return HTTP_NO_RANGE;
}

static enum http_verdict with_status(const struct http_answer *a, int code,
				     const char *means,
				     enum http_verdict verdict,
				     struct error *why)
{
	error_set(why, code, 0, "the server answers %u%s%s", a->status,
		  *means ? ", " : "", means);
	return verdict;
}

static bool is_whole(const struct http_answer *a)
{
	return !a->encoded && a->length && a->length != HTTP_SIZE_NONE;
}

enum http_verdict http_answer_judge(const struct http_answer *a,
				    const struct http_want *w,
				    struct error *why)
{
	if (a->too_long)
		return with_status(a, -EIO, "and over 64 KiB of headers",
				   HTTP_WRONG, why);
	switch (a->status) {
	case 206:
		return judge_part(a, w, why);
	case 200:
		return with_status(
			a, -EIO,
			AS_GIVEN("all of it where a range was asked for: it "
				 "has to be downloaded first, as into "
				 "cache-dir=",
				 "all of it where a range was asked for: it "
				 "has to be downloaded first, as into "
				 "--cache-dir"),
			is_whole(a) ? HTTP_WHOLE : HTTP_WRONG, why);
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return HTTP_MOVED;
	case 401:
	case 403:
		return with_status(a, -EACCES, "access is denied", HTTP_DENIED,
				   why);
	case 404:
	case 410:
		return with_status(a, -ENOENT, "there is no such file",
				   HTTP_GONE, why);
	case 412:
		error_set(why, -EIO, 0,
			  "it has changed since it was opened: what is there "
			  "now is another image");
		return HTTP_CHANGED;
	case 416:
		return judge_no_range(a, w, why);
	case 408:
	case 425:
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		return with_status(a, -EIO, "it cannot be had now", HTTP_BUSY,
				   why);
	default:
		return with_status(a, -EIO, "", HTTP_WRONG, why);
	}
}
