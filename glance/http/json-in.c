/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdbool.h>

#include "glance/http/json-in.h"

/* Brackets outside strings; the parser, which recurses, does the rest. */
static bool too_deep(const char *text, size_t len)
{
	bool in_string = false;
	unsigned int depth = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
			continue;
		}
		switch (text[i]) {
		case '"':
			in_string = true;
			break;
		case '[':
		case '{':
			if (++depth > JSON_IN_DEPTH_MAX)
				return true;
			break;
		case ']':
		case '}':
			depth -= depth > 0;
			break;
		default:
			break;
		}
	}
	return false;
}

int json_in_parse(const char *text, size_t len, json_t **ret, struct error *err)
{
	json_error_t e;

	if (too_deep(text, len))
		return error_set(err, -EINVAL, 0,
				 "Malformed JSON in request body: it is nested "
				 "over %d deep.",
				 JSON_IN_DEPTH_MAX);
	*ret = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES,
			  &e);
	if (!*ret)
		return error_set(err, -EINVAL, 0,
				 "Malformed JSON in request body: %s.", e.text);
	return 0;
}

void json_in_freep(json_t **v)
{
	json_decref(*v);
}

const char *json_member(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}
