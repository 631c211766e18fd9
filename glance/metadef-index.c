/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/metadef-index.h"
#include "glance/record.h"
#include "glance/time-text.h"

/* "2026-11-26T06:32:06Z"; NULL: no memory. */
static json_t *json_time(int64_t usec)
{
	char text[21];

	time_format(usec, text);
	return json_string(text);
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, 0, "out of memory");
}

/* Leaves a column out that is NULL. */
static int set_text(json_t *o, const char *key, sqlite3_stmt *st, int col)
{
	const char *text = index_text(st, col);

	return text ? json_object_set_new(o, key, json_string(text)) : 0;
}

void metadef_ns_done(struct metadef_ns *ns)
{
	json_decref(TAKE_PTR(ns->fields));
}

/* ---- namespaces ---- */

#define NS_COLUMNS                                             \
	"n, namespace, display_name, description, visibility," \
	" protected, owner, created_at, updated_at"

static int ns_from_row(sqlite3_stmt *st, struct metadef_ns *ret,
		       struct error *err)
{
	json_t *o = json_object();
	struct metadef_ns ns = { .n = sqlite.column_int64(st, 0),
				 .is_protected = sqlite.column_int(st, 5),
				 .fields = o };

	if (!o || set_text(o, "namespace", st, 1) < 0 ||
	    set_text(o, "display_name", st, 2) < 0 ||
	    set_text(o, "description", st, 3) < 0 ||
	    set_text(o, "visibility", st, 4) < 0 ||
	    json_object_set_new(o, "protected", json_boolean(ns.is_protected)) <
		    0 ||
	    set_text(o, "owner", st, 6) < 0 ||
	    json_object_set_new(o, "created_at",
				json_time(sqlite.column_int64(st, 7))) < 0 ||
	    json_object_set_new(o, "updated_at",
				json_time(sqlite.column_int64(st, 8))) < 0) {
		metadef_ns_done(&ns);
		return no_memory(err);
	}
	*ret = ns;
	return 0;
}

int metadef_find(struct index_tx *tx, const struct identity *who,
		 const char *name, struct metadef_ns *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT " NS_COLUMNS " FROM metadef_namespaces"
			  " WHERE namespace = ?1 AND"
			  " (?3 OR visibility = 'public' OR owner = ?2)",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, name);
	index_bind_text(st, 2, who->project);
	index_bind_u64(st, 3, who->admin);
	r = index_step(st, err);
	if (!r)
		return error_set(err, -ENOENT, 0,
				 "Metadata definition namespace=%s was not "
				 "found.",
				 name);
	return r < 0 ? r : ns_from_row(st, ret, err);
}

/* From ?1 on: what both INSERT and UPDATE set. */
static void bind_ns(sqlite3_stmt *st, const json_t *body, const char *owner)
{
	const char *own = json_member(body, "owner");
	const char *visibility = json_member(body, "visibility");

	index_bind_text(st, 1, json_member(body, "namespace"));
	index_bind_text(st, 2, json_member(body, "display_name"));
	index_bind_text(st, 3, json_member(body, "description"));
	index_bind_text(st, 4, visibility ? visibility : "private");
	index_bind_u64(st, 5, json_is_true(json_object_get(body, "protected")));
	index_bind_text(st, 6, own ? own : owner);
	index_bind_u64(st, 7, (uint64_t)time_now_usec());
}

int metadef_add(struct index_tx *tx, const json_t *body, const char *owner,
		int64_t *ret_n, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	struct error why = { 0 };
	int r = index_sql(tx,
			  "INSERT INTO metadef_namespaces (namespace,"
			  " display_name, description, visibility, protected,"
			  " owner, created_at, updated_at)"
			  " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
			  &st, err);

	if (r < 0)
		return r;
	bind_ns(st, body, owner);
	r = index_run(st, &why);
	if (r == -EEXIST)
		return error_set(err, r, 0,
				 "The metadata definition namespace=%s already "
				 "exists.",
				 json_member(body, "namespace"));
	if (r < 0)
		return error_set(err, r, 0, "%s", why.msg);
	*ret_n = index_last_rowid(tx);
	return 0;
}

int metadef_update(struct index_tx *tx, int64_t n, const json_t *body,
		   const char *owner, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	struct error why = { 0 };
	int r = index_sql(tx,
			  "UPDATE metadef_namespaces SET namespace = ?1,"
			  " display_name = ?2, description = ?3,"
			  " visibility = ?4, protected = ?5, owner = ?6,"
			  " updated_at = ?7 WHERE n = ?8",
			  &st, err);

	if (r < 0)
		return r;
	bind_ns(st, body, owner);
	index_bind_u64(st, 8, (uint64_t)n);
	r = index_run(st, &why);
	if (r == -EEXIST)
		return error_set(err, r, 0,
				 "Invalid update. It would result in a "
				 "duplicate metadata definition namespace with "
				 "the same name of %s",
				 json_member(body, "namespace"));
	return r < 0 ? error_set(err, r, 0, "%s", why.msg) : 0;
}

/* A statement whose one value is a namespace's number. */
static int run_on(struct index_tx *tx, const char *sql, int64_t n,
		  struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, sql, &st, err);

	if (r < 0)
		return r;
	index_bind_u64(st, 1, (uint64_t)n);
	return index_run(st, err);
}

int metadef_remove(struct index_tx *tx, int64_t n, struct error *err)
{
	return run_on(tx, "DELETE FROM metadef_namespaces WHERE n = ?1", n,
		      err);
}

/* ---- pages ---- */

/* Columns that one may sort by, for namespaces and items. */
static const struct sort {
	const char *key; /* as the API has it */
	const char *column;
} sorts[] = {
	{ "created_at", "created_at" },
	{ "updated_at", "updated_at" },
	{ "namespace", "namespace" },
	{ "name", "name" },
	{ "visibility", "visibility" },
	{ "protected", "protected" },
	{ "owner", "owner" },
	{ "display_name", "ifnull(display_name, '')" },
	{ "id", "n" },
};

/* Which of them items have. */
static bool is_item_sort(const char *key)
{
	return !strcmp(key, "created_at") || !strcmp(key, "updated_at") ||
	       !strcmp(key, "name") || !strcmp(key, "id");
}

static const struct sort *find_sort(const char *key, bool items,
				    struct error *err)
{
	size_t i;

	if (!key)
		key = "created_at";
	for (i = 0; i < ARRAY_SIZE(sorts); i++)
		if (!strcmp(sorts[i].key, key) &&
		    (items ? is_item_sort(key) : !!strcmp(key, "name")))
			return &sorts[i];
	error_set(err, -EINVAL, 0, "Sort key supplied was not valid.");
	return NULL;
}

/*
 * The end of a SELECT of a page: what lies behind the row ?1, in order.
 * Built of the table's own words alone.
 */
static int page_sql(char *ret, size_t ret_bytes, const char *select,
		    const char *table, const struct sort *sort, bool ascending)
{
	const char *dir = ascending ? "ASC" : "DESC";

	return snprintf(ret, ret_bytes,
			"%s AND (?1 IS NULL OR (%s, n) %c"
			" (SELECT %s, n FROM %s WHERE n = ?1))"
			" ORDER BY %s %s, n %s LIMIT ?2",
			select, sort->column, ascending ? '>' : '<',
			sort->column, table, sort->column, dir, dir);
}

static void bind_page(sqlite3_stmt *st, const struct metadef_page *page,
		      int64_t marker)
{
	if (page && page->marker)
		index_bind_u64(st, 1, (uint64_t)marker);
	if (page)
		index_bind_u64(st, 2, page->limit);
	else
		sqlite.bind_int64(st, 2, -1);
}

static int find_marker(struct index_tx *tx, const struct identity *who,
		       const struct metadef_page *page, int64_t *ret,
		       struct error *err)
{
	struct metadef_ns ns = { 0 };
	int r;

	if (!page->marker)
		return 0;
	r = metadef_find(tx, who, page->marker, &ns, err);
	*ret = ns.n;
	metadef_ns_done(&ns);
	return r;
}

int metadef_list(struct index_tx *tx, const struct identity *who,
		 const struct metadef_filter *filter,
		 const struct metadef_page *page,
		 int (*each)(struct index_tx *tx, const struct metadef_ns *ns,
			     void *opaque, struct error *err),
		 void *opaque, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	const struct sort *sort = find_sort(page->sort_key, false, err);
	int64_t marker = 0;
	char sql[1024];
	int r;

	if (!sort)
		return err->code;
	page_sql(sql, sizeof(sql),
		 "SELECT " NS_COLUMNS " FROM metadef_namespaces"
		 " WHERE (?4 OR visibility = 'public' OR owner = ?3)"
		 " AND (?5 IS NULL OR visibility = ?5)"
		 " AND (?6 IS NULL OR EXISTS (SELECT 1 FROM metadef_links l"
		 " JOIN metadef_types t ON t.n = l.type"
		 " WHERE l.ns = metadef_namespaces.n AND"
		 " instr(',' || ?6 || ',', ',' || t.name || ',')))",
		 "metadef_namespaces", sort, page->ascending);
	r = find_marker(tx, who, page, &marker, err);
	if (r >= 0)
		r = index_sql(tx, sql, &st, err);
	if (r < 0)
		return r;
	bind_page(st, page, marker);
	index_bind_text(st, 3, who->project);
	index_bind_u64(st, 4, who->admin);
	index_bind_text(st, 5, filter->visibility);
	index_bind_text(st, 6, filter->resource_types);
	while ((r = index_step(st, err)) > 0) {
		struct metadef_ns ns = { 0 };

		r = ns_from_row(st, &ns, err);
		if (r >= 0)
			r = each(tx, &ns, opaque, err);
		metadef_ns_done(&ns);
		if (r < 0)
			break;
	}
	return r;
}

/* ---- items ---- */

/* A copy in lower case, where case does not matter. NULL: no memory. */
static char *item_key(enum metadef_kind kind, const char *name)
{
	char *key = strdup(name), *p;

	if (key && kind == METADEF_TAG)
		for (p = key; *p; p++)
			*p = (char)tolower((unsigned char)*p);
	return key;
}

static int no_item(enum metadef_kind kind, const char *name, struct error *err)
{
	static const char *const what[] = {
		[METADEF_OBJECT] = "metadata object",
		[METADEF_PROPERTY] = "property",
		[METADEF_TAG] = "metadata tag",
	};

	return error_set(err, -ENOENT, 0, "Could not find %s %s", what[kind],
			 name);
}

static int item_exists(enum metadef_kind kind, const char *ns, const char *name,
		       bool update, struct error *err)
{
	static const char *const what[] = { "object", "property" };

	if (kind == METADEF_TAG)
		return error_set(err, -EEXIST, 0,
				 "A metadata tag with name=%s already exists "
				 "in namespace=%s. (Please note that metadata "
				 "tag names are case insensitive).",
				 name, ns);
	if (update)
		return error_set(err, -EEXIST, 0,
				 "Invalid update. It would result in a "
				 "duplicate metadata definition %s with the "
				 "same name=%s in namespace=%s.",
				 what[kind], name, ns);
	return error_set(err, -EEXIST, 0,
			 "A metadata definition %s with name=%s already "
			 "exists in namespace=%s.",
			 what[kind], name, ns);
}

#define ITEM_SELECT                                                       \
	"SELECT n, name, body, created_at, updated_at FROM metadef_items" \
	" WHERE "

static json_t *item_from_row(sqlite3_stmt *st)
{
	json_t *o = json_object();

	if (!o ||
	    json_object_set_new(o, "name", json_string(index_text(st, 1))) <
		    0 ||
	    json_object_set_new(o, "body",
				json_loads(index_text(st, 2), 0, NULL)) < 0 ||
	    json_object_set_new(o, "created_at",
				json_time(sqlite.column_int64(st, 3))) < 0 ||
	    json_object_set_new(o, "updated_at",
				json_time(sqlite.column_int64(st, 4))) < 0) {
		json_decref(o);
		return NULL;
	}
	return o;
}

/* Binds ?3 and ?4, and the key as ?5. */
static int item_sql(struct index_tx *tx, const char *sql, int64_t ns,
		    enum metadef_kind kind, const char *name,
		    sqlite3_stmt **ret, struct error *err)
{
	CLEANUP(freep) char *key = item_key(kind, name);
	int r = key ? index_sql(tx, sql, ret, err) : no_memory(err);

	if (r < 0)
		return r;
	index_bind_u64(*ret, 3, (uint64_t)ns);
	index_bind_u64(*ret, 4, kind);
	index_bind_text(*ret, 5, key);
	return 0;
}

/* @ret, @ret_n: optional. */
static int get_item(struct index_tx *tx, int64_t ns, enum metadef_kind kind,
		    const char *name, json_t **ret, int64_t *ret_n,
		    struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	json_t *item;
	int r = item_sql(tx, ITEM_SELECT "ns = ?3 AND kind = ?4 AND key = ?5",
			 ns, kind, name, &st, err);

	if (r < 0)
		return r;
	r = index_step(st, err);
	if (r <= 0)
		return r < 0 ? r : no_item(kind, name, err);
	if (ret_n)
		*ret_n = sqlite.column_int64(st, 0);
	if (!ret)
		return 0;
	item = item_from_row(st);
	if (!item)
		return no_memory(err);
	*ret = item;
	return 0;
}

int metadef_item(struct index_tx *tx, const struct metadef_ns *ns,
		 enum metadef_kind kind, const char *name, json_t **ret,
		 struct error *err)
{
	return get_item(tx, ns->n, kind, name, ret, NULL, err);
}

int metadef_item_add(struct index_tx *tx, int64_t ns, const char *ns_name,
		     enum metadef_kind kind, const char *name,
		     const json_t *body, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	CLEANUP(freep) char *text = json_dumps(body, JSON_COMPACT);
	struct error why = { 0 };
	int r = text ? item_sql(tx,
				"INSERT INTO metadef_items (ns, kind, key,"
				" name, body, created_at, updated_at)"
				" VALUES (?3, ?4, ?5, ?6, ?7, ?8, ?8)",
				ns, kind, name, &st, err)
		     : no_memory(err);

	if (r < 0)
		return r;
	index_bind_text(st, 6, name);
	index_bind_text(st, 7, text);
	index_bind_u64(st, 8, (uint64_t)time_now_usec());
	r = index_run(st, &why);
	if (r == -EEXIST)
		return item_exists(kind, ns_name, name, false, err);
	return r < 0 ? error_set(err, r, 0, "%s", why.msg) : 0;
}

int metadef_item_update(struct index_tx *tx, const struct metadef_ns *ns,
			enum metadef_kind kind, const char *name,
			const char *new_name, const json_t *body,
			struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	CLEANUP(freep) char *text = json_dumps(body, JSON_COMPACT);
	struct error why = { 0 };
	int64_t n = 0;
	int r = get_item(tx, ns->n, kind, name, NULL, &n, err);

	if (r >= 0 && !text)
		r = no_memory(err);
	if (r >= 0)
		r = item_sql(tx,
			     "UPDATE metadef_items SET ns = ?3, kind = ?4,"
			     " key = ?5, name = ?6, body = ?7,"
			     " updated_at = ?8 WHERE n = ?9",
			     ns->n, kind, new_name, &st, err);
	if (r < 0)
		return r;
	index_bind_text(st, 6, new_name);
	index_bind_text(st, 7, text);
	index_bind_u64(st, 8, (uint64_t)time_now_usec());
	index_bind_u64(st, 9, (uint64_t)n);
	r = index_run(st, &why);
	if (r == -EEXIST)
		return item_exists(kind, json_member(ns->fields, "namespace"),
				   new_name, true, err);
	return r < 0 ? error_set(err, r, 0, "%s", why.msg) : 0;
}

int metadef_item_remove(struct index_tx *tx, const struct metadef_ns *ns,
			enum metadef_kind kind, const char *name,
			struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = item_sql(tx,
			 "DELETE FROM metadef_items"
			 " WHERE ns = ?3 AND kind = ?4 AND key = ?5",
			 ns->n, kind, name, &st, err);

	if (r >= 0)
		r = index_run(st, err);
	if (r >= 0 && !index_changes(tx))
		return no_item(kind, name, err);
	return r;
}

int metadef_items_remove(struct index_tx *tx, int64_t ns,
			 enum metadef_kind kind, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "DELETE FROM metadef_items"
			  " WHERE ns = ?1 AND kind = ?2",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_u64(st, 1, (uint64_t)ns);
	index_bind_u64(st, 2, kind);
	return index_run(st, err);
}

int metadef_items(struct index_tx *tx, const struct metadef_ns *ns,
		  enum metadef_kind kind, const struct metadef_page *page,
		  json_t *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	const struct sort *sort =
		find_sort(page ? page->sort_key : NULL, true, err);
	int64_t marker = 0;
	char sql[512];
	int r = 0;

	if (!sort)
		return err->code;
	page_sql(sql, sizeof(sql), ITEM_SELECT "ns = ?3 AND kind = ?4",
		 "metadef_items", sort,
		 page ? page->ascending : kind != METADEF_TAG);
	if (page && page->marker)
		r = get_item(tx, ns->n, kind, page->marker, NULL, &marker, err);
	if (r >= 0)
		r = index_sql(tx, sql, &st, err);
	if (r < 0)
		return r;
	bind_page(st, page, marker);
	index_bind_u64(st, 3, (uint64_t)ns->n);
	index_bind_u64(st, 4, kind);
	while ((r = index_step(st, err)) > 0)
		if (json_array_append_new(ret, item_from_row(st)) < 0)
			return no_memory(err);
	return r;
}

/* ---- kinds of resources ---- */

static int add_times(json_t *o, sqlite3_stmt *st, int col)
{
	if (json_object_set_new(o, "created_at",
				json_time(sqlite.column_int64(st, col))) < 0)
		return -1;
	return json_object_set_new(o, "updated_at",
				   json_time(sqlite.column_int64(st, col + 1)));
}

int metadef_types(struct index_tx *tx, json_t *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT name, created_at, updated_at"
			  " FROM metadef_types ORDER BY n",
			  &st, err);

	if (r < 0)
		return r;
	while ((r = index_step(st, err)) > 0) {
		json_t *o = json_object();

		if (set_text(o, "name", st, 0) < 0 || add_times(o, st, 1) < 0 ||
		    json_array_append(ret, o) < 0)
			r = no_memory(err);
		json_decref(o);
		if (r < 0)
			break;
	}
	return r;
}

int metadef_links(struct index_tx *tx, int64_t ns, const char *type,
		  json_t *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT t.name, l.prefix, l.properties_target,"
			  " l.created_at, l.updated_at"
			  " FROM metadef_links l JOIN metadef_types t"
			  " ON t.n = l.type WHERE l.ns = ?1"
			  " AND (?2 IS NULL OR t.name = ?2)"
			  " ORDER BY l.created_at, t.n",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_u64(st, 1, (uint64_t)ns);
	index_bind_text(st, 2, type);
	while ((r = index_step(st, err)) > 0) {
		json_t *o = json_object();

		if (set_text(o, "name", st, 0) < 0 ||
		    set_text(o, "prefix", st, 1) < 0 ||
		    set_text(o, "properties_target", st, 2) < 0 ||
		    add_times(o, st, 3) < 0 || json_array_append(ret, o) < 0)
			r = no_memory(err);
		json_decref(o);
		if (r < 0)
			break;
	}
	return r;
}

/* A kind that nobody named before becomes one. */
static int make_type(struct index_tx *tx, const char *name, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO metadef_types (name, created_at,"
			  " updated_at) VALUES (?1, ?2, ?2)"
			  " ON CONFLICT DO NOTHING",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, name);
	index_bind_u64(st, 2, (uint64_t)time_now_usec());
	return index_run(st, err);
}

int metadef_link_add(struct index_tx *tx, int64_t ns, const char *ns_name,
		     const json_t *link, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	const char *type = json_member(link, "name");
	struct error why = { 0 };
	int r = make_type(tx, type, err);

	if (r >= 0)
		r = index_sql(tx,
			      "INSERT INTO metadef_links (ns, type, prefix,"
			      " properties_target, created_at, updated_at)"
			      " SELECT ?1, n, ?3, ?4, ?5, ?5"
			      " FROM metadef_types WHERE name = ?2",
			      &st, err);
	if (r < 0)
		return r;
	index_bind_u64(st, 1, (uint64_t)ns);
	index_bind_text(st, 2, type);
	index_bind_text(st, 3, json_member(link, "prefix"));
	index_bind_text(st, 4, json_member(link, "properties_target"));
	index_bind_u64(st, 5, (uint64_t)time_now_usec());
	r = index_run(st, &why);
	if (r == -EEXIST)
		return error_set(err, r, 0,
				 "The metadata definition resource-type "
				 "association of resource-type=%s to "
				 "namespace=%s already exists.",
				 type, ns_name);
	return r < 0 ? error_set(err, r, 0, "%s", why.msg) : 0;
}

int metadef_link_remove(struct index_tx *tx, int64_t ns, const char *type,
			struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "DELETE FROM metadef_links WHERE ns = ?1 AND type ="
			  " (SELECT n FROM metadef_types WHERE name = ?2)",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_u64(st, 1, (uint64_t)ns);
	index_bind_text(st, 2, type);
	r = index_run(st, err);
	if (r >= 0 && !index_changes(tx))
		return error_set(err, -ENOENT, 0,
				 "Failed to find resource type %s to delete",
				 type);
	return r;
}
