/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "glance/http/uri.h"

void uri_done(struct uri *u)
{
	free(TAKE_PTR(u->memory));
	u->n_segments = u->n_query = 0;
}

const char *uri_query(const struct uri *u, const char *name)
{
	size_t i;

	for (i = 0; i < u->n_query; i++)
		if (!strcmp(u->query[i].name, name))
			return u->query[i].value;
	return NULL;
}

/*
 * The length of the character at @p, 0 when it is not well formed: RFC 3629,
 * without surrogates and overlong forms.
 */
static size_t utf8_length(const unsigned char *p)
{
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;
	size_t i;

	for (i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
	    (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool uri_text_ok(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	while (*p) {
		size_t n = utf8_length(p);

		if (!n || *p < 0x20 || *p == 0x7f)
			return false;
		p += n;
	}
	return true;
}

static int hex_value(char c)
{
	if (!isxdigit((unsigned char)c))
		return -1;
	return isdigit((unsigned char)c) ? c - '0'
					 : tolower((unsigned char)c) - 'a' + 10;
}

/* In place. @plus: '+' is a space. */
static int decode(char *text, bool plus, struct error *err)
{
	char *in, *out = text;

	for (in = text; *in; in++) {
		if (*in == '%') {
			int hi = hex_value(in[1]);
			int lo = hi < 0 ? -1 : hex_value(in[2]);

			if (lo < 0 || (!hi && !lo))
				return error_set(err, -EINVAL, 0,
						 "the URL has a malformed or "
						 "forbidden percent-escape");
			*out++ = (char)(hi << 4 | lo);
			in += 2;
		} else {
			*out++ = plus && *in == '+' ? ' ' : *in;
		}
	}
	*out = '\0';
	if (!uri_text_ok(text))
		return error_set(err, -EINVAL, 0,
				 "the URL has a control character or is not "
				 "UTF-8");
	return 0;
}

static int parse_path(char *path, struct uri *u, struct error *err)
{
	char *save, *s;

	for (s = strtok_r(path, "/", &save); s;
	     s = strtok_r(NULL, "/", &save)) {
		if (u->n_segments == URI_SEGMENTS_MAX)
			return error_set(err, -EFBIG, 0,
					 "the URL's path has over %d segments",
					 URI_SEGMENTS_MAX);
		if (decode(s, false, err) < 0)
			return err->code;
		u->segments[u->n_segments++] = s;
	}
	return 0;
}

static int parse_pair(char *text, struct uri_pair *ret, struct error *err)
{
	char *value = strchr(text, '=');

	if (value)
		*value++ = '\0';
	else
		value = text + strlen(text);
	if (decode(text, true, err) < 0 || decode(value, true, err) < 0)
		return err->code;
	ret->name = text;
	ret->value = value;
	return 0;
}

static int parse_query(char *query, struct uri *u, struct error *err)
{
	char *save, *s;

	for (s = strtok_r(query, "&", &save); s;
	     s = strtok_r(NULL, "&", &save)) {
		if (u->n_query == URI_QUERY_MAX)
			return error_set(err, -EFBIG, 0,
					 "the URL's query has over %d "
					 "parameters",
					 URI_QUERY_MAX);
		if (parse_pair(s, &u->query[u->n_query], err) < 0)
			return err->code;
		u->n_query++;
	}
	return 0;
}

/*
 * The path of "http://HOST/PATH", as clients of a proxy send it (RFC 9112
 * 3.2.2); other targets as they are.
 */
static const char *skip_authority(const char *target)
{
	size_t scheme = !strncasecmp(target, "http://", 7)    ? 7
			: !strncasecmp(target, "https://", 8) ? 8
							      : 0;
	size_t host = scheme ? strcspn(target + scheme, "/?#@") : 0;

	if (!host || target[scheme + host] == '#' ||
	    target[scheme + host] == '@')
		return target;
	return target + scheme + host;
}

int uri_parse(const char *target, struct uri *ret, struct error *err)
{
	struct error local = { 0 };
	char *query;
	int r;

	ret->memory = NULL;
	ret->n_segments = ret->n_query = 0;
	if (strlen(target) > URI_BYTES_MAX)
		return error_set(err, -EFBIG, 0, "the URL is over %d bytes",
				 URI_BYTES_MAX);
	target = skip_authority(target);
	if (*target != '/' && *target != '?' && *target)
		return error_set(err, -EINVAL, 0,
				 "the URL's path does not begin with '/'");
	ret->memory = strdup(target);
	if (!ret->memory)
		return error_set(err, -ENOMEM, 0, "out of memory");
	query = strchr(ret->memory, '?');
	if (query)
		*query++ = '\0';
	ret->ends_open =
		*ret->memory && ret->memory[strlen(ret->memory) - 1] == '/';
	r = parse_path(ret->memory, ret, &local);
	if (r >= 0 && query)
		r = parse_query(query, ret, &local);
	if (r < 0) {
		uri_done(ret);
		return error_set(err, r, 0, "%s", local.msg);
	}
	return 0;
}

void uri_add_query(struct text_buf *b, const struct uri *u, const char *skip,
		   char *separator)
{
	size_t i;

	for (i = 0; i < u->n_query; i++) {
		if (!strcmp(u->query[i].name, skip))
			continue;
		text_add_char(b, *separator);
		*separator = '&';
		text_add_percent(b, u->query[i].name);
		text_add_char(b, '=');
		text_add_percent(b, u->query[i].value);
	}
}
