/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/image-list.h"
#include "glance/text-buf.h"

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

/* ---- the statement ---- */

/* A value for a '?' of the statement, in order. */
struct value {
	bool is_number;
	int64_t number;
	const char *text; /* NULL: null */
};

#define VALUES_MAX 1024

/* The statement while it is written. */
struct query {
	struct text_buf sql;
	struct value *values; /* VALUES_MAX of them */
	size_t n_values;
};

static void add_value_text(struct query *q, const char *text)
{
	if (q->n_values == VALUES_MAX) {
		q->sql.failed = true;
		return;
	}
	q->values[q->n_values++] = (struct value){ .text = text };
}

static void add_value_number(struct query *q, int64_t number)
{
	if (q->n_values == VALUES_MAX) {
		q->sql.failed = true;
		return;
	}
	q->values[q->n_values++] =
		(struct value){ .is_number = true, .number = number };
}

static void add_value(struct query *q, const struct value *v)
{
	if (v->is_number)
		add_value_number(q, v->number);
	else
		add_value_text(q, v->text);
}

static void add_term(struct query *q, const struct list_term *t)
{
	static const char *const ops[] = {
		[LIST_EQ] = "=",   [LIST_NEQ] = "<>", [LIST_LT] = "<",
		[LIST_LTE] = "<=", [LIST_GT] = ">",   [LIST_GTE] = ">=",
	};
	size_t i;

	if (!t->column && t->property) {
		text_add(&q->sql, " AND n IN (SELECT image FROM properties"
				  " WHERE name = ? AND value = ?)");
		add_value_text(q, t->property);
		add_value_text(q, t->text);
	} else if (!t->column) {
		text_add(&q->sql,
			 " AND n IN (SELECT image FROM tags WHERE tag = ?)");
		add_value_text(q, t->text);
	} else if (t->any_of) {
		text_addf(&q->sql, " AND %s IN (", t->column);
		for (i = 0; i < t->n_any_of; i++) {
			text_add(&q->sql, i ? ",?" : "?");
			add_value_text(q, t->any_of[i]);
		}
		text_add_char(&q->sql, ')');
	} else {
		text_addf(&q->sql, " AND %s %s ?", t->column, ops[t->op]);
		if (t->is_number)
			add_value_number(q, t->number);
		else
			add_value_text(q, t->text);
	}
}

/* The order, made total, and where the marker is in it. */
struct order {
	struct list_sort keys[LIST_SORT_MAX + 2];
	size_t n;
	bool uniform; /* one direction */
	bool from_marker;
	struct value marker[LIST_SORT_MAX + 2];
	struct record last; /* what marker points into */
};

static bool has_key(const struct order *o, const char *column)
{
	size_t i;

	for (i = 0; i < o->n; i++)
		if (!strcmp(o->keys[i].column, column))
			return true;
	return false;
}

static void make_order(const struct image_list *l, struct order *o)
{
	bool descending = l->tie_descending;
	size_t i;

	for (i = 0; i < l->n_sort && !has_key(o, "id"); i++)
		o->keys[o->n++] = l->sort[i];
	if (!has_key(o, "id")) {
		if (!has_key(o, "created_at"))
			o->keys[o->n++] =
				(struct list_sort){ "created_at", descending };
		o->keys[o->n++] = (struct list_sort){ "id", descending };
	}
	o->uniform = true;
	for (i = 1; i < o->n; i++)
		if (o->keys[i].descending != o->keys[0].descending)
			o->uniform = false;
}

static struct value marker_value(const struct record *r, const char *column)
{
	struct value v = { .is_number = true };

	if (!strcmp(column, "created_at"))
		v.number = r->created_usec;
	else if (!strcmp(column, "updated_at"))
		v.number = r->updated_usec;
	else if (!strcmp(column, "size_key"))
		v.number = r->has_size ? (int64_t)r->size : 0;
	else
		v.is_number = false;
	if (!strcmp(column, "id"))
		v.text = r->id;
	else if (!strcmp(column, "name_key"))
		v.text = r->name ? r->name : "";
	else if (!strcmp(column, "status"))
		v.text = image_status_name(r->status);
	else if (!strcmp(column, "disk_key"))
		v.text = r->disk_format ? r->disk_format : "";
	else if (!strcmp(column, "container_key"))
		v.text = r->container_format ? r->container_format : "";
	return v;
}

/* May the asker see @r? */
static int sees(struct index_tx *tx, const struct image_list *l,
		const struct record *r, struct error *err)
{
	if ((l->who->admin && !l->as_member) || !r->owner ||
	    r->visibility == IMAGE_PUBLIC || r->visibility == IMAGE_COMMUNITY)
		return 1;
	if (l->who->project && !strcmp(l->who->project, r->owner))
		return 1;
	return r->visibility == IMAGE_SHARED
		       ? record_is_member(tx, r->n, l->who->project, NULL, err)
		       : 0;
}

static int find_marker(struct index_tx *tx, const struct image_list *l,
		       struct order *o, struct error *err)
{
	struct error local = { 0 };
	size_t i;
	int r = record_load(tx, l->marker, &o->last, &local);

	if (r >= 0)
		r = sees(tx, l, &o->last, &local);
	if (!r || r == -ENOENT)
		return error_set(err, -EINVAL, 0, "No image found with ID %s",
				 l->marker);
	if (r < 0)
		return error_set(err, r, 0, "%s", local.msg);
	for (i = 0; i < o->n; i++)
		o->marker[i] = marker_value(&o->last, o->keys[i].column);
	o->from_marker = true;
	return 0;
}

/* (a, b, c) > (?, ?, ?): an index whose columns these are seeks to it. */
static void add_uniform_marker(struct query *q, const struct order *o)
{
	size_t i;

	text_add(&q->sql, " AND (");
	for (i = 0; i < o->n; i++)
		text_addf(&q->sql, "%s%s", i ? ", " : "", o->keys[i].column);
	text_addf(&q->sql, ") %c (", o->keys[0].descending ? '<' : '>');
	for (i = 0; i < o->n; i++) {
		text_add(&q->sql, i ? ", ?" : "?");
		add_value(q, &o->marker[i]);
	}
	text_add(&q->sql, ")");
}

/* a >= ? AND (a > ? OR (a = ? AND (b < ? OR (b = ? AND ...)))) */
static void add_mixed_marker(struct query *q, const struct order *o)
{
	size_t i;

	text_addf(&q->sql, " AND %s %s ?", o->keys[0].column,
		  o->keys[0].descending ? "<=" : ">=");
	add_value(q, &o->marker[0]);
	text_add(&q->sql, " AND ");
	for (i = 0; i < o->n; i++) {
		const char *column = o->keys[i].column;
		char op = o->keys[i].descending ? '<' : '>';

		text_addf(&q->sql, "(%s %c ?", column, op);
		add_value(q, &o->marker[i]);
		if (i + 1 == o->n)
			break;
		text_addf(&q->sql, " OR (%s = ? AND ", column);
		add_value(q, &o->marker[i]);
	}
	text_add_char(&q->sql, ')');
	for (i = 1; i < o->n; i++)
		text_add(&q->sql, "))");
}

/* Part of what the asker sees, as one SELECT. @where takes the project. */
static void add_branch(struct query *q, const struct image_list *l,
		       const struct order *o, const char *where,
		       unsigned int n_projects)
{
	size_t i;

	text_add(&q->sql, q->sql.len ? " UNION ALL SELECT n" : "SELECT n");
	for (i = 0; i < o->n; i++)
		text_addf(&q->sql, ", %s", o->keys[i].column);
	text_addf(&q->sql, " FROM images WHERE %s", where);
	while (n_projects--)
		add_value_text(q, l->who->project);
	if (strstr(where, "m.status = ?"))
		add_value_text(q, l->member_status);
	for (i = 0; i < l->n_terms; i++)
		add_term(q, &l->terms[i]);
	text_add(&q->sql, " AND status <> 'killed'");
	if (o->from_marker && o->uniform)
		add_uniform_marker(q, o);
	else if (o->from_marker)
		add_mixed_marker(q, o);
}

static void add_admin_branches(struct query *q, const struct image_list *l,
			       const struct order *o)
{
	enum image_visibility v;
	char where[64];

	if (!l->visibility) {
		add_branch(q, l, o, "(visibility <> 'community' OR owner IS ?)",
			   1);
	} else if (!image_visibility_by_name(l->visibility, &v)) {
		add_branch(q, l, o, "1", 0); /* all */
	} else {
		snprintf(where, sizeof(where), "visibility = '%s'",
			 image_visibility_name(v));
		add_branch(q, l, o, where, 0);
	}
}

/*
 * Each branch has an index that gives its rows in order; SQLite merges them
 * and stops at the limit. No image is in two.
 */
static void add_member_branches(struct query *q, const struct image_list *l,
				const struct order *o)
{
	const char *v = l->visibility;
	bool all = v && !strcmp(v, "all");

	if (!v || all || !strcmp(v, "public"))
		add_branch(q, l, o, "visibility = 'public'", 0);
	if (all || (v && !strcmp(v, "community")))
		add_branch(q, l, o, "visibility = 'community'", 0);
	if (!l->who->project) {
		if (!q->sql.len)
			add_branch(q, l, o, "0", 0);
		return;
	}
	if (!v)
		add_branch(q, l, o, "owner = ? AND visibility <> 'public'", 1);
	else if (all)
		add_branch(q, l, o,
			   "owner = ? AND visibility IN ('shared', 'private')",
			   1);
	else if (!strcmp(v, "private"))
		add_branch(q, l, o, "owner = ? AND visibility = 'private'", 1);
	else if (!strcmp(v, "shared"))
		add_branch(q, l, o, "owner = ? AND visibility = 'shared'", 1);
	if (v && !all && strcmp(v, "shared"))
		return;
	add_branch(
		q, l, o,
		l->member_status
			? "owner IS NOT ? AND visibility = 'shared' AND n IN"
			  " (SELECT m.image FROM members m WHERE m.member = ?"
			  " AND m.status = ?)"
			: "owner IS NOT ? AND visibility = 'shared' AND n IN"
			  " (SELECT m.image FROM members m WHERE m.member ="
			  " ?)",
		2);
}

static void compose(struct query *q, const struct image_list *l,
		    const struct order *o)
{
	size_t i;

	if (l->who->admin && !l->as_member)
		add_admin_branches(q, l, o);
	else
		add_member_branches(q, l, o);
	text_add(&q->sql, " ORDER BY ");
	for (i = 0; i < o->n; i++)
		text_addf(&q->sql, "%s%zu%s", i ? ", " : "", i + 2,
			  o->keys[i].descending ? " DESC" : "");
	text_add(&q->sql, " LIMIT ?");
	add_value_number(q, (int64_t)l->limit);
}

static void bind_values(sqlite3_stmt *st, const struct query *q)
{
	size_t i;

	for (i = 0; i < q->n_values; i++) {
		const struct value *v = &q->values[i];

		if (v->is_number)
			sqlite3_bind_int64(st, (int)i + 1, v->number);
		else
			index_bind_text(st, (int)i + 1, v->text);
	}
}

static int run(struct index_tx *tx, const struct query *q,
	       int (*each)(void *opaque, const struct record *r), void *opaque,
	       struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, q->sql.text, &st, err);

	if (r < 0)
		return r;
	bind_values(st, q);
	while ((r = index_step(st, err)) > 0) {
		struct record rec;

		r = record_load_n(tx, sqlite3_column_int64(st, 0), &rec, err);
		if (r < 0)
			return r;
		r = each(opaque, &rec);
		record_done(&rec);
		if (r)
			return r;
	}
	return r;
}

int image_list_run(struct index_tx *tx, const struct image_list *l,
		   int (*each)(void *opaque, const struct record *r),
		   void *opaque, struct error *err)
{
	struct order o = { 0 };
	struct query q = { .values = calloc(VALUES_MAX, sizeof(*q.values)) };
	int r = q.values ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	make_order(l, &o);
	if (r >= 0 && l->marker)
		r = find_marker(tx, l, &o, err);
	if (r >= 0) {
		compose(&q, l, &o);
		r = q.sql.failed ? error_set(err, -EINVAL, 0,
					     "the filters are too long")
				 : run(tx, &q, each, opaque, err);
	}
	record_done(&o.last);
	text_buf_done(&q.sql);
	free(q.values);
	return r;
}
