/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/image-list.h"
#include "glance/http/text-buf.h"
#include "glance/time-text.h"

#define ANY_OF_MAX 256

/* What the API sorts by, and the columns that have an index for it. */
static const struct {
	const char *key;
	const char *column;
} sort_keys[] = {
	{ "name", "name_key" },
	{ "status", "status" },
	{ "container_format", "container_key" },
	{ "disk_format", "disk_key" },
	{ "size", "size_key" },
	{ "id", "id" },
	{ "created_at", "created_at" },
	{ "updated_at", "updated_at" },
};

static void term_done(struct list_term *t)
{
	size_t i;

	for (i = 0; i < t->n_any_of; i++)
		free(t->any_of[i]);
	free(t->any_of);
	free(t->text);
	*t = (struct list_term){ 0 };
}

void image_list_done(struct image_list *l)
{
	while (l->n_terms)
		term_done(&l->terms[--l->n_terms]);
}

static int new_term(struct image_list *l, struct list_term **ret,
		    struct error *err)
{
	if (l->n_terms == LIST_TERMS_MAX)
		return error_set(err, -EINVAL, 0, "over %d filters",
				 LIST_TERMS_MAX);
	*ret = &l->terms[l->n_terms++];
	return 0;
}

int image_list_add_text(struct image_list *l, const char *column,
			enum list_op op, const char *text, struct error *err)
{
	struct list_term *t;
	int r = new_term(l, &t, err);

	if (r < 0)
		return r;
	*t = (struct list_term){ .column = column,
				 .op = op,
				 .text = strdup(text) };
	return t->text ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int image_list_add_number(struct image_list *l, const char *column,
			  enum list_op op, int64_t number, struct error *err)
{
	struct list_term *t;
	int r = new_term(l, &t, err);

	if (r >= 0)
		*t = (struct list_term){ .column = column,
					 .op = op,
					 .is_number = true,
					 .number = number };
	return r;
}

int image_list_add_property(struct image_list *l, const char *name,
			    const char *value, struct error *err)
{
	struct list_term *t;
	int r = new_term(l, &t, err);

	if (r < 0)
		return r;
	*t = (struct list_term){ .property = name, .text = strdup(value) };
	return t->text ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int image_list_add_sort(struct image_list *l, const char *key, bool descending,
			struct error *err)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(sort_keys); i++)
		if (!strcmp(sort_keys[i].key, key))
			break;
	if (i == ARRAY_SIZE(sort_keys))
		return error_set(err, -EINVAL, 0,
				 "Invalid sort key: %s. It must be one of the "
				 "following: name, status, container_format, "
				 "disk_format, size, id, created_at, "
				 "updated_at.",
				 key);
	for (j = 0; j < l->n_sort; j++)
		if (!strcmp(l->sort[j].column, sort_keys[i].column))
			return 0; /* decided already */
	if (l->n_sort < ARRAY_SIZE(l->sort))
		l->sort[l->n_sort++] =
			(struct list_sort){ .column = sort_keys[i].column,
					    .descending = descending };
	return 0;
}

/* ---- the query of v2 ---- */

/* "op:value"; without a known operator the whole is the value. */
static const char *split_op(const char *value, const char **ret_op,
			    size_t *ret_len)
{
	size_t len = strcspn(value, ":");

	*ret_op = "eq";
	*ret_len = 2;
	if (!value[len] || !len)
		return value;
	*ret_op = value;
	*ret_len = len;
	return value + len + 1;
}

static bool op_by_name(const char *name, size_t len, enum list_op *ret)
{
	static const char *const names[] = {
		[LIST_EQ] = "eq",   [LIST_NEQ] = "neq", [LIST_LT] = "lt",
		[LIST_LTE] = "lte", [LIST_GT] = "gt",	[LIST_GTE] = "gte",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (strlen(names[i]) == len && !strncmp(names[i], name, len)) {
			*ret = (enum list_op)i;
			return true;
		}
	}
	return false;
}

static int add_any_of(struct list_term *t, const char *text, size_t len,
		      struct error *err)
{
	char **more, *copy;

	if (t->n_any_of == ANY_OF_MAX)
		return error_set(err, -EINVAL, 0, "over %d values in a filter",
				 ANY_OF_MAX);
	copy = strndup(text, len);
	more = reallocarray(t->any_of, t->n_any_of + 1, sizeof(*more));
	if (more)
		t->any_of = more;
	if (!copy || !more) {
		free(copy);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	t->any_of[t->n_any_of++] = copy;
	return 0;
}

static int bad_quotes(const char *value, struct error *err)
{
	return error_set(err, -EINVAL, 0,
			 "Invalid filter value %s. The quote is not closed or "
			 "has no comma after it.",
			 value);
}

/* a,"b,c",d */
static int split_values(struct list_term *t, const char *value,
			struct error *err)
{
	const char *p = value;
	int r;

	for (;;) {
		const char *end;

		if (*p == '"') {
			end = strchr(++p, '"');
			if (!end || (end[1] && end[1] != ','))
				return bad_quotes(value, err);
			r = add_any_of(t, p, (size_t)(end - p), err);
			end++;
		} else {
			end = p + strcspn(p, ",");
			if (memchr(p, '"', (size_t)(end - p)))
				return bad_quotes(value, err);
			r = add_any_of(t, p, (size_t)(end - p), err);
		}
		if (r < 0 || !*end)
			return r;
		p = end + 1;
	}
}

/* name, id, status and the formats: eq: and in: */
static int add_word(struct image_list *l, const char *column, const char *value,
		    struct error *err)
{
	const char *op, *rest;
	struct list_term *t;
	size_t len;
	int r;

	rest = split_op(value, &op, &len);
	if (len == 2 && !strncmp(op, "eq", 2))
		return image_list_add_text(l, column, LIST_EQ, rest, err);
	if (len != 2 || strncmp(op, "in", 2))
		return error_set(err, -EINVAL, 0,
				 "Unable to filter by unknown operator '%.*s'.",
				 (int)min_size(len, 64), op);
	r = new_term(l, &t, err);
	if (r < 0)
		return r;
	*t = (struct list_term){ .column = column };
	return split_values(t, rest, err);
}

static int add_time(struct image_list *l, const char *column, const char *value,
		    struct error *err)
{
	/* A time without an operator has colons of its own. */
	const char *op, *rest;
	enum list_op which = LIST_EQ;
	int64_t usec;
	size_t len;

	rest = split_op(value, &op, &len);
	if (isdigit((unsigned char)*value))
		rest = value;
	else if (!op_by_name(op, len, &which))
		return error_set(err, -EINVAL, 0,
				 "Unable to filter by unknown operator '%.*s'.",
				 (int)min_size(len, 64), op);
	if (!time_parse(rest, &usec))
		return error_set(err, -EINVAL, 0,
				 "Bad \"%s\" query filter format. Use ISO 8601 "
				 "DateTime notation.",
				 column);
	/* What the API shows has whole seconds. */
	if (usec % 1000000 == 0 && (which == LIST_EQ || which == LIST_NEQ ||
				    which == LIST_GT || which == LIST_LTE)) {
		if (which == LIST_EQ)
			return image_list_add_number(l, column, LIST_GTE, usec,
						     err) < 0
				       ? err->code
				       : image_list_add_number(
						 l, column, LIST_LT,
						 usec + 1000000, err);
		if (which != LIST_NEQ)
			usec += 999999;
	}
	return image_list_add_number(l, column, which, usec, err);
}

static bool parse_number(const char *text, int64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoll(text, &end, 10);
	return *text && !isspace((unsigned char)*text) && !*end && !errno;
}

static int add_number(struct image_list *l, const char *column, enum list_op op,
		      const char *value, struct error *err)
{
	int64_t n;

	if (!parse_number(value, &n))
		return error_set(err, -EINVAL, 0,
				 "Unable to filter on a range with a "
				 "non-numeric value.");
	return image_list_add_number(l, column, op, n, err);
}

static int add_bool(struct image_list *l, const char *column, const char *name,
		    const char *value, bool any_case, struct error *err)
{
	bool yes =
		any_case ? !strcasecmp(value, "true") : !strcmp(value, "true");
	bool no = any_case ? !strcasecmp(value, "false")
			   : !strcmp(value, "false");

	if (!yes && !no)
		return error_set(err, -EINVAL, 0,
				 "Invalid value '%s' for '%s' filter. Valid "
				 "values are 'true' or 'false'.",
				 value, name);
	return image_list_add_number(l, column, LIST_EQ, yes, err);
}

static int set_visibility(struct image_list *l, const char *value,
			  struct error *err)
{
	enum image_visibility v;

	if (strcmp(value, "all") && !image_visibility_by_name(value, &v))
		return error_set(err, -EINVAL, 0,
				 "Invalid visibility value: %s", value);
	l->visibility = value;
	return 0;
}

static int set_member_status(struct image_list *l, const char *value,
			     struct error *err)
{
	static const char *const known[] = { "pending", "accepted",
					     "rejected" };
	size_t i;

	l->member_status = NULL;
	if (!strcmp(value, "all"))
		return 0;
	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i], value))
			l->member_status = known[i];
	if (!l->member_status)
		return error_set(err, -EINVAL, 0, "Invalid status: %s", value);
	return 0;
}

static int set_limit(struct image_list *l, const char *value, struct error *err)
{
	int64_t n;

	if (!parse_number(value, &n))
		return error_set(err, -EINVAL, 0,
				 "limit param must be an integer");
	if (n < 0)
		return error_set(err, -EINVAL, 0,
				 "limit param must be positive");
	l->limit = min_u64((uint64_t)n, LIST_LIMIT_MAX);
	return 0;
}

/* A name with "_min" or "_max" behind one of the numeric fields. */
static const char *range_column(const char *name, enum list_op *ret)
{
	static const struct {
		const char *name;
		const char *column;
	} fields[] = {
		{ "size", "size_key" },
		{ "virtual_size", "virtual_size" },
		{ "min_disk", "min_disk" },
		{ "min_ram", "min_ram" },
	};
	size_t len = strlen(name), i;

	if (len < 5)
		return NULL;
	if (!strcmp(name + len - 4, "_min"))
		*ret = LIST_GTE;
	else if (!strcmp(name + len - 4, "_max"))
		*ret = LIST_LTE;
	else
		return NULL;
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		if (strlen(fields[i].name) == len - 4 &&
		    !strncmp(fields[i].name, name, len - 4))
			return fields[i].column;
	return NULL;
}

static int add_filter(struct image_list *l, const char *name, const char *value,
		      struct error *err)
{
	static const struct {
		const char *name;
		const char *column;
		enum { WORD, TEXT, NUMBER, TIME } kind;
	} fields[] = {
		{ "name", "name_key", WORD },
		{ "id", "id", WORD },
		{ "status", "status", WORD },
		{ "container_format", "container_key", WORD },
		{ "disk_format", "disk_key", WORD },
		{ "owner", "owner", TEXT },
		{ "checksum", "checksum", TEXT },
		{ "os_hash_algo", "hash_algo", TEXT },
		{ "os_hash_value", "hash_value", TEXT },
		{ "size", "size_key", NUMBER },
		{ "virtual_size", "virtual_size", NUMBER },
		{ "min_disk", "min_disk", NUMBER },
		{ "min_ram", "min_ram", NUMBER },
		{ "created_at", "created_at", TIME },
		{ "updated_at", "updated_at", TIME },
	};
	const char *column;
	enum list_op op;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		if (strcmp(fields[i].name, name))
			continue;
		column = fields[i].column;
		switch (fields[i].kind) {
		case WORD:
			return add_word(l, column, value, err);
		case TEXT:
			return image_list_add_text(l, column, LIST_EQ, value,
						   err);
		case NUMBER:
			return add_number(l, column, LIST_EQ, value, err);
		case TIME:
			return add_time(l, column, value, err);
		}
	}
	column = range_column(name, &op);
	if (column)
		return add_number(l, column, op, value, err);
	if (!strcmp(name, "changes-since"))
		return error_set(err, -EINVAL, 0,
				 "The \"changes-since\" filter is no longer "
				 "available on v2.");
	return image_list_add_property(l, name, value, err);
}

static int parse_pair(struct image_list *l, const char *name, const char *value,
		      struct error *err)
{
	if (!strcmp(name, "sort") || !strcmp(name, "sort_key") ||
	    !strcmp(name, "sort_dir") || !strcmp(name, "os_hidden"))
		return 0; /* looked at elsewhere */
	if (!strcmp(name, "limit"))
		return set_limit(l, value, err);
	if (!strcmp(name, "visibility"))
		return set_visibility(l, value, err);
	if (!strcmp(name, "member_status"))
		return set_member_status(l, value, err);
	if (!strcmp(name, "tag"))
		return image_list_add_property(l, NULL, value, err);
	if (!strcmp(name, "protected"))
		return add_bool(l, "protected", name, value, false, err);
	if (!strcmp(name, "marker")) {
		l->marker = value;
		return 0;
	}
	return add_filter(l, name, value, err);
}

static int sort_dir(const char *dir, bool *ret_descending, struct error *err)
{
	*ret_descending = !strcmp(dir, "desc");
	if (!*ret_descending && strcmp(dir, "asc"))
		return error_set(err, -EINVAL, 0, "Invalid sort direction: %s",
				 dir);
	return 0;
}

/* Without the blanks around it; cut where it is longer than any of ours. */
static void copy_word(char ret[32], const char *text, size_t len)
{
	while (len && isspace((unsigned char)*text)) {
		text++;
		len--;
	}
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	snprintf(ret, 32, "%.*s", (int)min_size(len, 31), text);
}

/* sort=name:asc,size */
static int parse_sort(struct image_list *l, const char *value,
		      struct error *err)
{
	const char *p = value;

	for (;;) {
		size_t len = strcspn(p, ","), key = strcspn(p, ":,");
		char name[32], dir[32];
		bool descending = true;

		copy_word(name, p, key);
		if (key < len && key + 1 < len) {
			copy_word(dir, p + key + 1, len - key - 1);
			if (sort_dir(dir, &descending, err) < 0)
				return err->code;
		}
		if (image_list_add_sort(l, name, descending, err) < 0)
			return err->code;
		if (!p[len]) {
			l->tie_descending = p == value ? descending : true;
			return 0;
		}
		p += len + 1;
	}
}

/* sort_key=name&sort_dir=asc&sort_key=size&sort_dir=desc */
static int parse_sort_pairs(struct image_list *l, const struct uri *u,
			    struct error *err)
{
	const char *keys[LIST_SORT_MAX], *dirs[LIST_SORT_MAX];
	size_t n_keys = 0, n_dirs = 0, i;
	bool descending = true;

	for (i = 0; i < u->n_query; i++) {
		const struct uri_pair *p = &u->query[i];

		if (!strcmp(p->name, "sort_key") && n_keys < LIST_SORT_MAX)
			keys[n_keys++] = p->value;
		if (!strcmp(p->name, "sort_dir") && n_dirs < LIST_SORT_MAX)
			dirs[n_dirs++] = p->value;
	}
	if (!n_keys)
		keys[n_keys++] = "created_at";
	if (n_dirs > 1 && n_dirs != n_keys)
		return error_set(err, -EINVAL, 0,
				 "Number of sort dirs does not match the "
				 "number of sort keys");
	l->tie_descending = n_dirs != 1 || strcmp(dirs[0], "asc");
	for (i = 0; i < n_keys; i++) {
		char key[32];

		if (n_dirs &&
		    sort_dir(dirs[n_dirs > 1 ? i : 0], &descending, err) < 0)
			return err->code;
		copy_word(key, keys[i], strlen(keys[i]));
		if (image_list_add_sort(l, key, descending, err) < 0)
			return err->code;
	}
	return 0;
}

static int parse_order(struct image_list *l, const struct uri *u,
		       struct error *err)
{
	const char *sort = uri_query(u, "sort");

	if (!sort)
		return parse_sort_pairs(l, u, err);
	if (uri_query(u, "sort_key") || uri_query(u, "sort_dir"))
		return error_set(err, -EINVAL, 0,
				 "Old and new sorting syntax cannot be "
				 "combined");
	return parse_sort(l, sort, err);
}

int image_list_parse_v2(const struct uri *u, const struct identity *who,
			struct image_list *ret, struct error *err)
{
	struct image_list l = { .who = who,
				.limit = LIST_LIMIT_DEFAULT,
				.member_status = "accepted" };
	const char *hidden = uri_query(u, "os_hidden");
	size_t i;
	int r = 0;

	for (i = 0; i < u->n_query && r >= 0; i++)
		r = parse_pair(&l, u->query[i].name, u->query[i].value, err);
	if (r >= 0)
		r = add_bool(&l, "os_hidden", "os_hidden",
			     hidden ? hidden : "false", true, err);
	if (r >= 0)
		r = parse_order(&l, u, err);
	if (r < 0) {
		image_list_done(&l);
		return r;
	}
	*ret = l;
	return 0;
}
