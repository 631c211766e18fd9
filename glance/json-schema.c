/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "glance/json-schema.h"

#define SHOWN_BYTES 200

/* What one walk needs everywhere. */
struct walk {
	const json_t *root;
	struct error *err;
};

static int check(const struct walk *w, const json_t *schema,
		 const json_t *value);

/* Appends; what does not fit is cut. */
static void show_add(char *ret, size_t ret_bytes, const char *text)
{
	size_t used = strlen(ret);

	snprintf(ret + used, ret_bytes - used, "%s", text);
}

static void show_list(char *ret, size_t ret_bytes, const json_t *list)
{
	char item[SHOWN_BYTES];
	size_t i;

	show_add(ret, ret_bytes, "[");
	for (i = 0; i < json_array_size(list); i++) {
		json_schema_show(item, sizeof(item), json_array_get(list, i));
		show_add(ret, ret_bytes, i ? ", " : "");
		show_add(ret, ret_bytes, item);
	}
	show_add(ret, ret_bytes, "]");
}

void json_schema_show(char *ret, size_t ret_bytes, const json_t *value)
{
	CLEANUP(freep) char *text = NULL;

	*ret = '\0';
	if (json_is_array(value)) {
		show_list(ret, ret_bytes, value);
	} else if (json_is_string(value)) {
		snprintf(ret, ret_bytes, "'%s'", json_string_value(value));
	} else if (json_is_null(value)) {
		show_add(ret, ret_bytes, "None");
	} else {
		text = json_dumps(value, JSON_ENCODE_ANY);
		show_add(ret, ret_bytes, text ? text : "?");
	}
}

static int PRINTF(3, 4)
	fail(const struct walk *w, const json_t *value, const char *fmt, ...)
{
	char shown[SHOWN_BYTES];
	char why[ERROR_MSG_BYTES / 2];
	va_list ap;

	json_schema_show(shown, sizeof(shown), value);
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return error_set(w->err, -EINVAL, 0, "%s %s", shown, why);
}

static bool is_type(const json_t *value, const char *name)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return !strcmp(name, "object");
	case JSON_ARRAY:
		return !strcmp(name, "array");
	case JSON_STRING:
		return !strcmp(name, "string");
	case JSON_INTEGER:
		return !strcmp(name, "integer") || !strcmp(name, "number");
	case JSON_REAL:
		return !strcmp(name, "number");
	case JSON_TRUE:
	case JSON_FALSE:
		return !strcmp(name, "boolean");
	case JSON_NULL:
		return !strcmp(name, "null");
	}
	return false;
}

/* "type": a name, or a list of which one fits. */
static int check_type(const struct walk *w, const json_t *type,
		      const json_t *value)
{
	char wanted[SHOWN_BYTES] = "";
	size_t i;

	if (json_is_string(type)) {
		if (is_type(value, json_string_value(type)))
			return 0;
	}
	for (i = 0; i < json_array_size(type); i++)
		if (is_type(value, json_string_value(json_array_get(type, i))))
			return 0;
	if (json_is_array(type)) {
		for (i = 0; i < json_array_size(type); i++) {
			show_add(wanted, sizeof(wanted), i ? ", '" : "'");
			show_add(wanted, sizeof(wanted),
				 json_string_value(json_array_get(type, i)));
			show_add(wanted, sizeof(wanted), "'");
		}
	} else {
		json_schema_show(wanted, sizeof(wanted), type);
	}
	return fail(w, value, "is not of type %s", wanted);
}

static int check_enum(const struct walk *w, const json_t *list,
		      const json_t *value)
{
	char shown[ERROR_MSG_BYTES / 2];
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		if (json_equal(json_array_get(list, i), value))
			return 0;
	json_schema_show(shown, sizeof(shown), list);
	return fail(w, value, "is not one of %s", shown);
}

static size_t characters(const char *utf8)
{
	size_t n = 0;

	for (; *utf8; utf8++)
		n += (*utf8 & 0xc0) != 0x80;
	return n;
}

static int check_pattern(const struct walk *w, const char *pattern,
			 const json_t *value)
{
	regex_t re;
	int r;

	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return error_set(w->err, -ENOMEM, 0,
				 "the schema's pattern cannot be compiled");
	r = regexec(&re, json_string_value(value), 0, NULL, 0);
	regfree(&re);
	return r ? fail(w, value, "does not match '%s'", pattern) : 0;
}

static int check_string(const struct walk *w, const json_t *schema,
			const json_t *value)
{
	const json_t *max = json_object_get(schema, "maxLength");
	const json_t *min = json_object_get(schema, "minLength");
	const json_t *pattern = json_object_get(schema, "pattern");
	size_t n = characters(json_string_value(value));

	if (max && n > (size_t)json_integer_value(max))
		return fail(w, value, "is too long");
	if (min && n < (size_t)json_integer_value(min))
		return fail(w, value, "is too short");
	if (pattern)
		return check_pattern(w, json_string_value(pattern), value);
	return 0;
}

static int check_number(const struct walk *w, const json_t *schema,
			const json_t *value)
{
	const json_t *min = json_object_get(schema, "minimum");
	const json_t *max = json_object_get(schema, "maximum");

	if (min && json_number_value(value) < json_number_value(min))
		return fail(w, value, "is less than the minimum of %g",
			    json_number_value(min));
	if (max && json_number_value(value) > json_number_value(max))
		return fail(w, value, "is greater than the maximum of %g",
			    json_number_value(max));
	return 0;
}

/* A list of scalars, mostly; json_equal() of all pairs would be quadratic. */
static int check_unique(const struct walk *w, const json_t *value)
{
	json_t *seen = json_object();
	size_t i;
	int r = 0;

	for (i = 0; !r && i < json_array_size(value); i++) {
		CLEANUP(freep)
		char *key = json_dumps(json_array_get(value, i),
				       JSON_ENCODE_ANY | JSON_SORT_KEYS);

		if (!seen || !key)
			r = error_set(w->err, -ENOMEM, 0, "out of memory");
		else if (json_object_get(seen, key))
			r = fail(w, value, "has non-unique elements");
		else if (json_object_set_new(seen, key, json_true()) < 0)
			r = error_set(w->err, -ENOMEM, 0, "out of memory");
	}
	json_decref(seen);
	return r;
}

static int check_array(const struct walk *w, const json_t *schema,
		       const json_t *value)
{
	const json_t *items = json_object_get(schema, "items");
	const json_t *min = json_object_get(schema, "minItems");
	const json_t *max = json_object_get(schema, "maxItems");
	size_t n = json_array_size(value), i;
	int r;

	if (min && n < (size_t)json_integer_value(min))
		return fail(w, value, "is too short");
	if (max && n > (size_t)json_integer_value(max))
		return fail(w, value, "is too long");
	for (i = 0; items && i < n; i++) {
		r = check(w, items, json_array_get(value, i));
		if (r < 0)
			return r;
	}
	if (json_is_true(json_object_get(schema, "uniqueItems")))
		return check_unique(w, value);
	return 0;
}

/* A member that "properties" does not name. */
static int check_additional(const struct walk *w, const json_t *rule,
			    const char *key, const json_t *value)
{
	if (json_is_false(rule))
		return error_set(w->err, -EINVAL, 0,
				 "Additional properties are not allowed "
				 "('%.100s' was unexpected)",
				 key);
	return json_is_object(rule) ? check(w, rule, value) : 0;
}

static int check_object(const struct walk *w, const json_t *schema,
			const json_t *value)
{
	const json_t *named = json_object_get(schema, "properties");
	const json_t *rest = json_object_get(schema, "additionalProperties");
	const json_t *required = json_object_get(schema, "required");
	const char *key;
	json_t *v;
	size_t i;
	int r = 0;

	for (i = 0; i < json_array_size(required); i++) {
		key = json_string_value(json_array_get(required, i));
		if (!json_object_get(value, key))
			return error_set(w->err, -EINVAL, 0,
					 "'%s' is a required property", key);
	}
	json_object_foreach((json_t *)value, key, v) {
		const json_t *rule = json_object_get(named, key);

		r = rule ? check(w, rule, v)
			 : check_additional(w, rest, key, v);
		if (r < 0)
			break;
	}
	return r;
}

/* "#/definitions/NAME" */
static const json_t *resolve(const struct walk *w, const char *ref)
{
	return json_object_get(json_object_get(w->root, "definitions"),
			       ref + strlen("#/definitions/"));
}

static int check_all_of(const struct walk *w, const json_t *list,
			const json_t *value)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < json_array_size(list); i++)
		r = check(w, json_array_get(list, i), value);
	return r;
}

static int check_kind(const struct walk *w, const json_t *schema,
		      const json_t *value)
{
	if (json_is_string(value))
		return check_string(w, schema, value);
	if (json_is_number(value))
		return check_number(w, schema, value);
	if (json_is_array(value))
		return check_array(w, schema, value);
	if (json_is_object(value))
		return check_object(w, schema, value);
	return 0;
}

static int check(const struct walk *w, const json_t *schema,
		 const json_t *value)
{
	const json_t *ref = json_object_get(schema, "$ref");
	const json_t *type, *list, *all;
	int r = 0;

	if (ref)
		return check(w, resolve(w, json_string_value(ref)), value);
	type = json_object_get(schema, "type");
	list = json_object_get(schema, "enum");
	all = json_object_get(schema, "allOf");
	if (type)
		r = check_type(w, type, value);
	if (r >= 0 && list)
		r = check_enum(w, list, value);
	if (r >= 0 && all)
		r = check_all_of(w, all, value);
	return r < 0 ? r : check_kind(w, schema, value);
}

int json_schema_check(const json_t *root, const json_t *value,
		      struct error *err)
{
	struct error local = { 0 };
	struct walk w = { .root = root, .err = &local };
	int r = check(&w, root, value);

	return r < 0 ? error_set(err, r, 0, "%s", local.msg) : 0;
}
