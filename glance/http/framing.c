/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "glance/http/framing.h"

/* RFC 9110 5.6.2 */
static bool is_token(const char *text)
{
	size_t len = strspn(text, "!#$%&'*+-.^_`|~0123456789"
				  "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return len && !text[len];
}

/* RFC 9110 5.5: no control character but a tab. */
static bool is_value(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' && *text != '\t')
			return false;
	return true;
}

const char *framing_behind(const char *text)
{
	return text + strlen(text) + 2;
}

/* Is it where the line before has ended, and ended by CR and LF itself? */
static bool is_in_place(const struct framing *f, const char *name,
			const char *value)
{
	return name == f->next && !value[strlen(value) + 1];
}

int framing_header(struct framing *f, const char *name, const char *value,
		   struct error *err)
{
	if (!is_token(name))
		return error_set(err, -EINVAL, 0,
				 "\"%.64s\" is no name of a header", name);
	if (!is_value(value))
		return error_set(err, -EINVAL, 0,
				 "header %.64s has a control character", name);
	if (f->next && !is_in_place(f, name, value))
		return error_set(err, -EINVAL, 0,
				 "header %.64s is not a line that ends in CR "
				 "and LF, behind another that does",
				 name);
	if (f->next)
		f->next = framing_behind(value);
	if (!strcasecmp(name, "Content-Length")) {
		f->lengths++;
		f->length = value;
	} else if (!strcasecmp(name, "Transfer-Encoding")) {
		f->encodings++;
		f->chunked = !strcasecmp(value, "chunked");
	} else if (!strcasecmp(name, "Host")) {
		f->hosts++;
	}
	return 0;
}

static int check_counts(const struct framing *f, struct error *err)
{
	if (f->lengths > 1 || f->encodings > 1 || (f->lengths && f->encodings))
		return error_set(err, -EINVAL, 0,
				 "Content-Length and Transfer-Encoding: one of "
				 "them, once");
	if (f->encodings && !f->chunked)
		return error_set(err, -EINVAL, 0,
				 "Transfer-Encoding: only chunked is known");
	if (f->encodings && !strcmp(f->version, "HTTP/1.0"))
		return error_set(err, -EINVAL, 0,
				 "Transfer-Encoding: HTTP/1.0 has none");
	if (f->hosts > 1 || (!f->hosts && !strcmp(f->version, "HTTP/1.1")))
		return error_set(err, -EINVAL, 0, "Host: once");
	return 0;
}

int framing_end(const struct framing *f, const char *end, bool *ret_has,
		uint64_t *ret_bytes, struct error *err)
{
	uint64_t bytes;
	char *rest;
	int r = check_counts(f, err);

	if (r < 0)
		return r;
	/* Of an empty line there are CR and LF alone. */
	if (f->next && end && end - f->next != 2)
		return error_set(err, -EINVAL, 0,
				 "a header has no name, or the line behind "
				 "the last does not end in CR and LF");
	*ret_has = f->lengths;
	if (!f->lengths)
		return 0;
	errno = 0;
	bytes = strtoull(f->length, &rest, 10);
	if (!isdigit((unsigned char)*f->length) || *rest || errno)
		return error_set(err, -EINVAL, 0,
				 "Content-Length is not a number");
	*ret_bytes = bytes;
	return 0;
}
