/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "glance/http/accept.h"

/* How much a media type is wanted. */
struct wish {
	const char *type, *subtype;
	unsigned int specific; /* of the range it is from: 0: none has been */
	unsigned int thousandths;
};

static size_t token_length(const char *text)
{
	return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			    "abcdefghijklmnopqrstuvwxyz0123456789"
			    "!#$%&'*+-.^_`|~");
}

static const char *skip_blank(const char *text)
{
	return text + strspn(text, " \t");
}

static bool is(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(text, word, len);
}

/* "0.5", "1": in thousandths; NULL: it is no weight. */
static const char *parse_weight(const char *text, unsigned int *ret)
{
	unsigned int n, place = 100;

	if (*text != '0' && *text != '1')
		return NULL;
	n = *text++ == '1' ? 1000 : 0;
	if (*text == '.')
		for (text++; *text >= '0' && *text <= '9'; text++, place /= 10)
			n += (unsigned int)(*text - '0') * place;
	*ret = n;
	return n <= 1000 ? text : NULL;
}

/* A value of a parameter; NULL: it is none. */
static const char *skip_value(const char *text)
{
	size_t len = token_length(text);

	if (*text != '"')
		return len ? text + len : NULL;
	for (text++; *text && *text != '"'; text++)
		if (*text == '\\' && !*++text)
			return NULL;
	return *text ? text + 1 : NULL;
}

/*
 * What is behind a range: its weight, and whether it has parameters, which no
 * refusal of ours has. The end of it; NULL: malformed.
 */
static const char *parse_parameters(const char *text, unsigned int *ret_weight,
				    bool *ret_plain)
{
	size_t len;

	*ret_weight = 1000;
	*ret_plain = true;
	for (;;) {
		const char *at = skip_blank(text);

		if (*at != ';')
			return text;
		at = skip_blank(at + 1);
		len = token_length(at);
		if (!len || at[len] != '=')
			return NULL;
		if (is(at, len, "q")) {
			text = parse_weight(at + 2, ret_weight);
		} else {
			*ret_plain = false;
			text = skip_value(at + len + 1);
		}
		if (!text)
			return NULL;
	}
}

static void consider(struct wish *w, const char *type, size_t type_len,
		     const char *subtype, size_t len, unsigned int weight)
{
	unsigned int specific;

	if (is(type, type_len, "*") && is(subtype, len, "*"))
		specific = 1;
	else if (!is(type, type_len, w->type))
		return;
	else if (is(subtype, len, "*"))
		specific = 2;
	else if (is(subtype, len, w->subtype))
		specific = 3;
	else
		return;
	if (specific <= w->specific)
		return;
	w->specific = specific;
	w->thousandths = weight;
}

/* One range; NULL: malformed. */
static const char *parse_range(const char *text, struct wish *wishes, size_t n)
{
	size_t type_len = token_length(text), len, i;
	const char *subtype = text + type_len + 1, *end;
	unsigned int weight;
	bool plain;

	if (!type_len || text[type_len] != '/')
		return NULL;
	len = token_length(subtype);
	end = len ? parse_parameters(subtype + len, &weight, &plain) : NULL;
	for (i = 0; end && plain && i < n; i++)
		consider(&wishes[i], text, type_len, subtype, len, weight);
	return end;
}

enum accept_kind accept_refusal(const char *accept)
{
	struct wish wishes[] = { { "text", "html", 0, 0 },
				 { "application", "json", 0, 0 } };

	if (!accept)
		return ACCEPT_TEXT;
	for (accept = skip_blank(accept); *accept;
	     accept = skip_blank(accept)) {
		if (*accept != ',')
			accept = parse_range(accept, wishes, 2);
		if (accept)
			accept = skip_blank(accept);
		if (!accept || (*accept && *accept != ','))
			return ACCEPT_HTML;
		accept += *accept == ',';
	}
	if (!wishes[0].thousandths && !wishes[1].thousandths)
		return ACCEPT_TEXT;
	return wishes[0].thousandths >= wishes[1].thousandths ? ACCEPT_HTML
							      : ACCEPT_JSON;
}
