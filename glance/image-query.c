/* SPDX-License-Identifier: BSD-3-Clause */
/* The statement that gives a page of images; see image-list.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glance/image-list.h"
#include "glance/http/text-buf.h"
#include "glance/record-rows.h"

/* A value for a '?' of the statement, in order. */
struct value {
	bool is_number;
	int64_t number;
	const char *text; /* NULL: null */
};

#define VALUES_MAX     1024
/* Images that are rather fetched and sorted than met in the order's index. */
#define SET_MAX	       10000
/* Beyond it one property leads as well as another. */
#define LEAD_COUNT_MAX 500

/*
 * The statement while it is written. Of the properties and tags asked for,
 * the rarest may lead: its index has the images in the order of their
 * creation, as the table of images itself has. Or all that have it are
 * fetched, where they are few. The others are looked up image by image.
 */
struct query {
	struct text_buf sql;
	struct value *values; /* VALUES_MAX of them */
	size_t n_values;
	const struct list_term *lead; /* or NULL */
	const struct list_term *set; /* or NULL */
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

/* Has it a row of its own, in properties or tags? */
static bool is_link(const struct list_term *t)
{
	return !t->column;
}

/* The rows of a link: "TABLE @alias @join WHERE ...", with its values. */
static void add_link(struct query *q, const struct list_term *t,
		     const char *alias, const char *join)
{
	text_addf(&q->sql, "%s %s %s WHERE ",
		  t->property ? "properties" : "tags", alias, join);
	if (t->property) {
		text_addf(&q->sql, "%s.name = ? AND %s.value = ?", alias,
			  alias);
		add_value_text(q, t->property);
	} else {
		text_addf(&q->sql, "%s.tag = ?", alias);
	}
	add_value_text(q, t->text);
}

static void add_link_term(struct query *q, const struct list_term *t)
{
	if (t == q->lead)
		return;
	if (t == q->set) {
		text_add(&q->sql, " AND n IN (SELECT s.image FROM ");
		add_link(q, t, "s", "");
	} else {
		text_add(&q->sql, " AND EXISTS (SELECT 1 FROM ");
		add_link(q, t, "p", "");
		text_add(&q->sql, " AND p.image = n");
	}
	text_add_char(&q->sql, ')');
}

static void add_term(struct query *q, const struct list_term *t)
{
	static const char *const ops[] = {
		[LIST_EQ] = "=",   [LIST_NEQ] = "<>", [LIST_LT] = "<",
		[LIST_LTE] = "<=", [LIST_GT] = ">",   [LIST_GTE] = ">=",
	};
	size_t i;

	if (is_link(t)) {
		add_link_term(q, t);
	} else if (t->any_of) {
		text_addf(&q->sql, " AND %s IN (", t->column);
		for (i = 0; i < t->n_any_of; i++) {
			text_add(&q->sql, i ? ",?" : "?");
			add_value_text(q, t->any_of[i]);
		}
		text_add_char(&q->sql, ')');
	} else {
		text_addf(&q->sql, " AND %s %s ?", t->column, ops[t->op]);
		/* What has no size is sorted as empty, and not found as such. */
		if (!strcmp(t->column, "size_key"))
			text_add(&q->sql, " AND size IS NOT NULL");
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

/* Where an order's key is found, in images or in what leads to them. */
static const char *column_of(const struct query *q, const struct list_sort *key)
{
	return q->lead && !strcmp(key->column, "created_at") ? "d.image_created"
							     : key->column;
}

/* (a, b, c) > (?, ?, ?): an index whose columns these are seeks to it. */
static void add_uniform_marker(struct query *q, const struct order *o)
{
	size_t i;

	text_add(&q->sql, " AND (");
	for (i = 0; i < o->n; i++)
		text_addf(&q->sql, "%s%s", i ? ", " : "",
			  column_of(q, &o->keys[i]));
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

	text_addf(&q->sql, " AND %s %s ?", column_of(q, &o->keys[0]),
		  o->keys[0].descending ? "<=" : ">=");
	add_value(q, &o->marker[0]);
	text_add(&q->sql, " AND ");
	for (i = 0; i < o->n; i++) {
		const char *column = column_of(q, &o->keys[i]);
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
		text_addf(&q->sql, ", %s", column_of(q, &o->keys[i]));
	text_add(&q->sql, " FROM ");
	if (q->lead)
		add_link(q, q->lead, "d", "CROSS JOIN images ON n = d.image");
	else
		text_add(&q->sql, "images WHERE 1");
	text_addf(&q->sql, " AND %s", where);
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

/* How many images have it, counted up to @max. */
static int count_links(struct index_tx *tx, const struct list_term *t,
		       int64_t max, int64_t *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int at = 1;
	int r = index_sql(
		tx,
		t->property ? "SELECT count(*) FROM (SELECT 1 FROM properties"
			      " WHERE name = ? AND value = ? LIMIT ?)"
			    : "SELECT count(*) FROM (SELECT 1 FROM tags"
			      " WHERE tag = ? LIMIT ?)",
		&st, err);

	if (r < 0)
		return r;
	if (t->property)
		index_bind_text(st, at++, t->property);
	index_bind_text(st, at++, t->text);
	sqlite.bind_int64(st, at, max);
	r = index_step(st, err);
	if (r >= 0)
		*ret = sqlite.column_int64(st, 0);
	return r;
}

/* *ret stays NULL where there is no link; *ret_n is @max or less. */
static int find_rarest(struct index_tx *tx, const struct image_list *l,
		       int64_t max, const struct list_term **ret,
		       int64_t *ret_n, struct error *err)
{
	int64_t n = 0;
	size_t i;
	int r = 0;

	*ret_n = max;
	for (i = 0; i < l->n_terms && r >= 0; i++) {
		if (!is_link(&l->terms[i]))
			continue;
		r = count_links(tx, &l->terms[i], *ret_n, &n, err);
		if (!*ret || n < *ret_n) {
			*ret = &l->terms[i];
			*ret_n = n;
		}
	}
	return r;
}

/* See struct query. */
static int choose_lead(struct index_tx *tx, const struct image_list *l,
		       const struct order *o, struct query *q,
		       struct error *err)
{
	bool can_lead = !strcmp(o->keys[0].column, "created_at");
	const struct list_term *rarest = NULL;
	int64_t n;
	int r = find_rarest(tx, l, can_lead ? LEAD_COUNT_MAX : SET_MAX + 1,
			    &rarest, &n, err);

	if (can_lead)
		q->lead = rarest;
	else if (n <= SET_MAX)
		q->set = rarest;
	return r;
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
			sqlite.bind_int64(st, (int)i + 1, v->number);
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

		r = record_load_n(tx, sqlite.column_int64(st, 0), &rec, err);
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
	if (r >= 0)
		r = choose_lead(tx, l, &o, &q, err);
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
