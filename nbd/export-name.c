/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "iouring/util.h"
#include "nbd/export-name.h"

/* What ends one part and begins the next, and is encoded inside of one. */
#define SEPARATORS "/@+~"
#define UUID_BYTES 36U
#define TOLD_BYTES 256 /* of a name that there is not */

/* Without a grant, wherever it stands: who reads the log may not have it. */
int export_name_unknown(const char *text, struct error *err)
{
	size_t n = strcspn(text, "~");

	return error_set(err, -ENOENT, 0, "there is no export \"%.*s%s\"",
			 n < TOLD_BYTES ? (int)n : TOLD_BYTES, text,
			 text[n] ? "~..." : "");
}

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

static int hex_digit(char c)
{
	if (!isxdigit((unsigned char)c))
		return -1;
	return isdigit((unsigned char)c) ? c - '0'
					 : tolower((unsigned char)c) - 'a' + 10;
}

/* The byte at *@p, which goes on behind it; 0: it is not well written. */
static unsigned char decode_byte(const char **p, const char *end)
{
	const char *s = *p;
	int hi, lo;

	*p = s + 1;
	if (*s != '%')
		return (unsigned char)*s;
	if (end - s < 3)
		return 0;
	hi = hex_digit(s[1]);
	lo = hex_digit(s[2]);
	*p = s + 3;
	return hi < 0 || lo < 0 ? 0 : (unsigned char)(hi << 4 | lo);
}

/* [@s, @end) decoded, to *@ret, which is NULL before. */
static int take_part(const char *s, const char *end, char **ret)
{
	char *out = malloc((size_t)(end - s) + 1), *p = out;

	if (!out)
		return -ENOMEM;
	*ret = out;
	while (s < end) {
		unsigned char c = decode_byte(&s, end);

		if (is_control(c))
			return -ENOENT;
		*p++ = (char)c;
	}
	*p = '\0';
	return 0;
}

/* A part that may not be empty. */
static int take_some(const char *s, const char *end, char **ret)
{
	return s < end ? take_part(s, end, ret) : -ENOENT;
}

/* The first ".." of [@s, @end), or NULL. */
static const char *find_dots(const char *s, const char *end)
{
	return memmem(s, (size_t)(end - s), "..", 2);
}

static int take_state(const char *s, const char *end, struct export_state *ret)
{
	const char *dots = find_dots(s, end), *to;
	int r = 0;

	if (!dots)
		return take_some(s, end, &ret->at);
	to = dots + 2;
	/* "..." leaves open which of the dots are the two. */
	if (end - s == 2 || (to < end && *to == '.') || find_dots(to, end))
		return -ENOENT;
	ret->difference = true;
	if (s < dots)
		r = take_part(s, dots, &ret->from);
	if (!r && to < end)
		r = take_part(to, end, &ret->at);
	return r;
}

/* "vm1", "vm1=7" */
static int take_overlay(const char *s, const char *end, struct export_name *ret)
{
	const char *equals = memchr(s, '=', (size_t)(end - s)), *p;

	for (p = equals ? equals + 1 : end; p < end; p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		if (*p < '0' || *p > '9' ||
		    ret->epoch > (EXPORT_EPOCH_MAX - digit) / 10)
			return -ENOENT;
		ret->epoch = ret->epoch * 10 + digit;
	}
	if (equals && equals + 1 == end)
		return -ENOENT;
	return take_some(s, equals ? equals : end, &ret->overlay);
}

/* The part that @separator began, at [@s, @end). */
static int take(char separator, const char *s, const char *end,
		struct export_name *ret)
{
	struct export_state *state =
		ret->overlay ? &ret->overlay_state : &ret->state;
	bool stated = state->at || state->difference;

	/* Each once, in the order of the grammar; a grant is the last. */
	if (ret->grant)
		return -ENOENT;
	switch (separator) {
	case '/':
		if (ret->member || stated || ret->overlay)
			return -ENOENT;
		return take_some(s, end, &ret->member);
	case '@':
		return stated ? -ENOENT : take_state(s, end, state);
	case '+':
		return ret->overlay ? -ENOENT : take_overlay(s, end, ret);
	default:
		return take_some(s, end, &ret->grant);
	}
}

static int parse(const char *text, struct export_name *ret)
{
	const char *s = text, *end = s + strcspn(s, SEPARATORS);
	int r;

	if (strlen(text) > EXPORT_NAME_MAX)
		return -ENOENT;
	r = take_part(s, end, &ret->image);
	while (!r && *end) {
		s = end + 1;
		end = s + strcspn(s, SEPARATORS);
		r = take(s[-1], s, end, ret);
	}
	return r;
}

int export_name_parse(const char *text, struct export_name *ret,
		      struct error *err)
{
	struct export_name n = { 0 };
	int r = parse(text, &n);

	if (!r) {
		*ret = n;
		return 0;
	}
	export_name_done(&n);
	if (r == -ENOMEM)
		return error_set(err, r, 0, "out of memory");
	return export_name_unknown(text, err);
}

static void state_done(struct export_state *s)
{
	free(s->at);
	free(s->from);
}

void export_name_done(struct export_name *n)
{
	free(n->image);
	free(n->member);
	state_done(&n->state);
	free(n->overlay);
	state_done(&n->overlay_state);
	free(n->grant);
	*n = (struct export_name){ 0 };
}

/* Dots beside another, or at an end, where another may come to lie. */
static bool is_loose_dot(const char *part, const char *s)
{
	return *s == '.' && (s == part || s[-1] == '.' || !s[1]);
}

static bool put_part(FILE *fp, const char *before, const char *part)
{
	const char *s;

	if (!part)
		return true;
	fputs(before, fp);
	for (s = part; *s; s++) {
		if (is_control((unsigned char)*s))
			return false;
		if (strchr("%" SEPARATORS, *s) || is_loose_dot(part, s) ||
		    (*s == '=' && *before == '+'))
			fprintf(fp, "%%%02X", (unsigned char)*s);
		else
			putc(*s, fp);
	}
	return true;
}

static bool put_state(FILE *fp, const struct export_state *s)
{
	if (!s->difference)
		return put_part(fp, "@", s->at);
	putc('@', fp);
	if (!put_part(fp, "", s->from))
		return false;
	fputs("..", fp);
	return put_part(fp, "", s->at);
}

static bool put_epoch(FILE *fp, uint64_t epoch)
{
	if (epoch)
		fprintf(fp, "=%" PRIu64, epoch);
	return true;
}

char *export_name_format(const struct export_name *n)
{
	CLEANUP(freep) char *text = NULL;
	size_t bytes;
	FILE *fp = open_memstream(&text, &bytes);
	bool ok;

	if (!fp)
		return NULL;
	ok = put_part(fp, "", n->image) && put_part(fp, "/", n->member) &&
	     put_state(fp, &n->state) && put_part(fp, "+", n->overlay) &&
	     put_epoch(fp, n->epoch) && put_state(fp, &n->overlay_state) &&
	     put_part(fp, "~", n->grant);
	if (fclose(fp) || !ok || bytes > EXPORT_NAME_MAX)
		return NULL;
	return TAKE_PTR(text);
}

bool export_name_is_id(const char *s)
{
	size_t i;

	if (strlen(s) != UUID_BYTES)
		return false;
	for (i = 0; i < UUID_BYTES; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}
