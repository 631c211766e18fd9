/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Glance v2: metadata definitions, under /v2/metadefs. Everybody may read
 * what is public or its own; admins write. One function for each route runs
 * in a transaction of the index; what it leaves in its call is the answer.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "glance/glance.h"
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/metadef-index.h"
#include "glance/metadef-show.h"
#include "glance/routes.h"
#include "glance/schemas.h"

#define LIMIT_DEFAULT 25
#define LIMIT_MAX     1000

/* One request on its way through the index. */
struct metadef_call {
	struct request *q;
	const json_t *body;
	json_t *result; /* of a run that succeeded; NULL: no body */
	char *location;
	struct metadef_page page; /* of lists */
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, 0, "out of memory");
}

/* ---- what is in the path ---- */

static const char *segment(const struct request *q, size_t i)
{
	return i < q->uri.n_segments ? q->uri.segments[i] : "";
}

static const char *ns_name(const struct request *q)
{
	return segment(q, 3);
}

static const char *item_name(const struct request *q)
{
	return segment(q, 5);
}

static enum metadef_kind kind_of(const struct request *q)
{
	size_t i;

	for (i = 0; i + 1 < METADEF_KINDS; i++)
		if (!strcmp(metadef_kinds[i].segment, segment(q, 4)))
			break;
	return (enum metadef_kind)i;
}

/* ---- who may ---- */

/* What the request does, as Glance's policies name it. */
static const char *policy_verb(const struct request *q)
{
	if (q->method == HTTP_POST)
		return "add";
	return q->method == HTTP_PUT ? "modify" : "delete";
}

static const char *policy_noun(const struct request *q)
{
	if (q->uri.n_segments < 5)
		return "namespace";
	if (!strcmp(segment(q, 4), "resource_types"))
		return "resource_type_association";
	return metadef_kinds[kind_of(q)].word;
}

static int require_admin(const struct request *q, struct error *err)
{
	if (q->who.admin)
		return 0;
	return error_set(err, -EPERM, 0,
			 "You are not authorized to complete %s_metadef_%s "
			 "action.",
			 policy_verb(q), policy_noun(q));
}

/* The namespace that the path names, to change something of it. */
static int find_to_change(struct index_tx *tx, const struct request *q,
			  struct metadef_ns *ret, struct error *err)
{
	int r = metadef_find(tx, &q->who, ns_name(q), ret, err);

	return r < 0 ? r : require_admin(q, err);
}

static int refuse_protected(const struct metadef_ns *ns, const char *what,
			    const char *name, struct error *err)
{
	if (!ns->is_protected)
		return 0;
	return error_set(err, -EPERM, 0,
			 "Metadata definition %s %s is protected and cannot be "
			 "deleted.",
			 what, name);
}

/* ---- bodies ---- */

/* Names go into paths, where control characters are refused. */
static int check_name(const char *name, struct error *err)
{
	if (!*name || !uri_text_ok(name))
		return error_set(err, -EINVAL, 0,
				 "A name is empty or has control characters.");
	return 0;
}

/* Against @schema; "name" or "namespace" is @key. */
static int check_body(const json_t *body, const char *schema, const char *key,
		      struct error *err)
{
	const char *name;
	json_t *v;
	int r;

	json_object_foreach((json_t *)body, name, v)
		if (schema_read_only(schema, name))
			return error_set(err, -EPERM, 0,
					 "Attribute '%s' is read-only.", name);
	r = schema_check(schema, body, err);
	return r < 0 ? r : check_name(json_member(body, key), err);
}

/* A default is shown as text, whatever it is a default of; lists are not. */
static json_t *default_text(const json_t *v)
{
	CLEANUP(freep) char *text = NULL;

	if (json_is_string(v))
		return json_incref((json_t *)v);
	if (json_is_boolean(v))
		return json_string(json_is_true(v) ? "True" : "False");
	if (json_is_integer(v))
		return json_sprintf("%lld", (long long)json_integer_value(v));
	if (!json_is_real(v))
		return json_null();
	text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	return text ? json_string(text) : NULL;
}

static json_t *stored_property(const json_t *body)
{
	json_t *o = json_copy((json_t *)body);
	const json_t *v = json_object_get(o, "default");

	if (v)
		json_object_set_new(o, "default", default_text(v));
	return o;
}

static json_t *stored_properties(const json_t *map)
{
	json_t *all = json_object(), *v;
	const char *name;

	json_object_foreach((json_t *)map, name, v)
		json_object_set_new(all, name, stored_property(v));
	return all;
}

/*
 * What is stored of an object, a property or a tag. Of a property that is a
 * body of its own its name is a part, and lists show it; as Glance has it.
 */
static json_t *stored_body(enum metadef_kind kind, const json_t *body)
{
	const json_t *v = json_object_get(body, "required");
	json_t *o;

	if (kind == METADEF_PROPERTY)
		return stored_property(body);
	o = json_object();
	if (kind == METADEF_TAG)
		return o;
	json_object_set_new(o, "required",
			    v ? json_incref((json_t *)v) : json_array());
	v = json_object_get(body, "description");
	if (v)
		json_object_set(o, "description", (json_t *)v);
	json_object_set_new(
		o, "properties",
		stored_properties(json_object_get(body, "properties")));
	return o;
}

static int add_item(struct index_tx *tx, int64_t ns, const char *ns_text,
		    enum metadef_kind kind, const char *name,
		    const json_t *body, struct error *err)
{
	json_t *stored = stored_body(kind, body);
	int r = check_name(name, err);

	if (r >= 0 && !stored)
		r = no_memory(err);
	if (r >= 0)
		r = metadef_item_add(tx, ns, ns_text, kind, name, stored, err);
	json_decref(stored);
	return r;
}

/* ---- answers ---- */

/*
 * What properties' names begin with for the kind of resource that the query
 * names; "" where there is none. To be freed.
 */
static int find_prefix(struct index_tx *tx, const struct request *q,
		       const struct metadef_ns *ns, char **ret,
		       struct error *err)
{
	const char *type = uri_query(&q->uri, "resource_type");
	CLEANUP(json_decrefp) json_t *links = json_array();
	const char *prefix;
	int r = type ? metadef_links(tx, ns->n, type, links, err) : 0;

	if (r < 0)
		return r;
	prefix = json_member(json_array_get(links, 0), "prefix");
	*ret = strdup(prefix ? prefix : "");
	return *ret ? 0 : no_memory(err);
}

/* ---- running ---- */

static int run_change(struct index_tx *tx, void *opaque, struct error *err)
{
	struct metadef_call *c = opaque;

	return c->q->route->call(tx, c, err);
}

static void answer(struct metadef_call *c, int r, unsigned int status,
		   const struct error *err)
{
	if (r < 0) {
		json_decref(c->result);
		respond_failure(c->q, err);
	} else {
		if (c->location)
			respond_header(c->q, "Location", c->location);
		if (status == 204)
			respond_empty(c->q, 204);
		else
			respond_json_value(c->q, status, c->result);
	}
	free(c->location);
}

/* What the route's row says, with no more than a look at the index. */
static void get(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct metadef_call c = { .q = q };
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = q->route->call(tx, &c, &err);
	answer(&c, r, q->route->status, &err);
}

/* A change, without a body. */
static void change(struct request *q)
{
	struct glance *g = q->app;
	struct metadef_call c = { .q = q };
	struct error err = { 0 };
	int r = index_write(g->index, run_change, &c, &err);

	answer(&c, r, q->route->status, &err);
}

/* With one. */
static void put(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	struct metadef_call c = { .q = q, .body = body };
	struct error err = { 0 };
	int r;

	if (!body)
		return;
	r = index_write(g->index, run_change, &c, &err);
	answer(&c, r, q->route->status, &err);
}

/* ---- lists ---- */

static int query_limit(const struct request *q, uint64_t *ret,
		       struct error *err)
{
	const char *text = uri_query(&q->uri, "limit");
	char *end;
	long long v;

	*ret = LIMIT_DEFAULT;
	if (!text)
		return 0;
	errno = 0;
	v = strtoll(text, &end, 10);
	if (!*text || *end)
		return error_set(err, -EINVAL, 0,
				 "limit param must be an integer");
	if (v < 0)
		return error_set(err, -EINVAL, 0,
				 "limit param must be positive");
	*ret = min_u64((uint64_t)v, LIMIT_MAX);
	return 0;
}

static int query_page(const struct request *q, struct metadef_page *ret,
		      struct error *err)
{
	const char *dir = uri_query(&q->uri, "sort_dir");

	*ret = (struct metadef_page){
		.marker = uri_query(&q->uri, "marker"),
		.sort_key = uri_query(&q->uri, "sort_key"),
		.ascending = dir && !strcmp(dir, "asc"),
	};
	if (dir && strcmp(dir, "asc") && strcmp(dir, "desc"))
		return error_set(err, -EINVAL, 0, "Invalid sort direction: %s",
				 dir);
	return query_limit(q, &ret->limit, err);
}

/* This list again, from @marker on; NULL: from the beginning. */
static json_t *list_link(const struct request *q, const char *marker)
{
	struct text_buf b = { 0 };
	CLEANUP(freep) char *text = NULL;
	char before = '?';
	size_t i;

	text_add(&b, METADEF_ROOT);
	for (i = 0; i < q->uri.n_query; i++) {
		const struct uri_pair *p = &q->uri.query[i];

		if (!strcmp(p->name, "marker"))
			continue;
		text_add_char(&b, before);
		text_add_percent(&b, p->name);
		text_add_char(&b, '=');
		text_add_percent(&b, p->value);
		before = '&';
	}
	if (marker) {
		text_add_char(&b, before);
		text_add(&b, "marker=");
		text_add_percent(&b, marker);
	}
	text = text_buf_take(&b);
	return text ? json_string(text) : NULL;
}

static int add_to_list(struct index_tx *tx, const struct metadef_ns *ns,
		       void *opaque, struct error *err)
{
	json_t *list = opaque, *o = NULL;
	int r = metadef_show_short(tx, ns, &o, err);

	if (r < 0)
		return r;
	return json_array_append_new(list, metadef_ns_links(o)) < 0
		       ? no_memory(err)
		       : 0;
}

static int list_namespaces(struct index_tx *tx, struct metadef_call *c,
			   struct error *err)
{
	const struct request *q = c->q;
	const struct metadef_filter filter = {
		.visibility = uri_query(&q->uri, "visibility"),
		.resource_types = uri_query(&q->uri, "resource_types"),
	};
	json_t *list = json_array();
	const char *last;
	size_t n;
	int r = query_page(q, &c->page, err);

	c->result = json_pack("{s:o}", "namespaces", list);
	if (r >= 0 && filter.visibility &&
	    strcmp(filter.visibility, "public") &&
	    strcmp(filter.visibility, "private"))
		r = error_set(err, -EINVAL, 0, "Invalid visibility value: %s",
			      filter.visibility);
	if (r >= 0)
		r = metadef_list(tx, &q->who, &filter, &c->page, add_to_list,
				 list, err);
	if (r < 0)
		return r;
	n = json_array_size(list);
	if (n && n == c->page.limit) {
		last = json_member(json_array_get(list, n - 1), "namespace");
		json_object_set_new(c->result, "next", list_link(q, last));
	}
	json_object_set_new(c->result, "schema",
			    json_string("/v2/schemas/metadefs/namespaces"));
	json_object_set_new(c->result, "first", list_link(q, NULL));
	return 0;
}

/*
 * Tags come in pages; the others whole, as Glance has it, which for objects looks
 * at the limit none the less.
 */
static int list_items(struct index_tx *tx, struct metadef_call *c,
		      struct error *err)
{
	const struct request *q = c->q;
	enum metadef_kind kind = kind_of(q);
	CLEANUP(json_decrefp) json_t *items = json_array();
	struct metadef_ns ns = { 0 };
	int r = kind == METADEF_TAG	 ? query_page(q, &c->page, err)
		: kind == METADEF_OBJECT ? query_limit(q, &c->page.limit, err)
					 : 0;

	if (r >= 0)
		r = metadef_find(tx, &q->who, ns_name(q), &ns, err);
	if (r >= 0)
		r = metadef_items(tx, &ns, kind,
				  kind == METADEF_TAG ? &c->page : NULL, items,
				  err);
	metadef_ns_done(&ns);
	if (r < 0)
		return r;
	c->result = json_object();
	json_object_set_new(
		c->result, metadef_kinds[kind].segment,
		kind == METADEF_PROPERTY
			? metadef_show_properties(items, "")
			: metadef_show_list(ns_name(q), kind, items, ""));
	if (kind == METADEF_OBJECT)
		json_object_set_new(
			c->result, "schema",
			json_sprintf("v2/schemas/%s",
				     metadef_kinds[kind].list_schema));
	return 0;
}

static int list_types(struct index_tx *tx, struct metadef_call *c,
		      struct error *err)
{
	json_t *list = json_array();

	c->result = json_pack("{s:o}", "resource_types", list);
	return metadef_types(tx, list, err);
}

static int list_links(struct index_tx *tx, struct metadef_call *c,
		      struct error *err)
{
	json_t *list = json_array();
	struct metadef_ns ns = { 0 };
	int r = metadef_find(tx, &c->q->who, ns_name(c->q), &ns, err);

	c->result = json_pack("{s:o}", "resource_type_associations", list);
	if (r >= 0)
		r = metadef_links(tx, ns.n, NULL, list, err);
	metadef_ns_done(&ns);
	return r;
}

/* ---- namespaces ---- */

static int show_namespace(struct index_tx *tx, struct metadef_call *c,
			  struct error *err)
{
	CLEANUP(freep) char *prefix = NULL;
	struct metadef_ns ns = { 0 };
	int r = metadef_find(tx, &c->q->who, ns_name(c->q), &ns, err);

	if (r >= 0)
		r = find_prefix(tx, c->q, &ns, &prefix, err);
	if (r >= 0)
		r = metadef_show_ns(tx, &ns, prefix, &c->result, err);
	metadef_ns_done(&ns);
	return r;
}

static int add_nested_items(struct index_tx *tx, int64_t n, const char *name,
			    enum metadef_kind kind, const json_t *list,
			    struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);

		r = json_member(item, "name")
			    ? add_item(tx, n, name, kind,
				       json_member(item, "name"), item, err)
			    : error_set(err, -EINVAL, 0,
					"Each of %s must have a name",
					metadef_kinds[kind].segment);
	}
	return r;
}

/* What a POST brings along in a namespace. */
static int add_nested(struct index_tx *tx, int64_t n, const json_t *body,
		      struct error *err)
{
	const char *name = json_member(body, "namespace");
	const json_t *links =
		json_object_get(body, "resource_type_associations");
	const char *key;
	json_t *v;
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < json_array_size(links); i++)
		r = metadef_link_add(tx, n, name, json_array_get(links, i),
				     err);
	json_object_foreach(json_object_get(body, "properties"), key, v)
		if (r >= 0)
			r = add_item(tx, n, name, METADEF_PROPERTY, key, v,
				     err);
	if (r >= 0)
		r = add_nested_items(tx, n, name, METADEF_OBJECT,
				     json_object_get(body, "objects"), err);
	if (r >= 0)
		r = add_nested_items(tx, n, name, METADEF_TAG,
				     json_object_get(body, "tags"), err);
	return r;
}

static int post_namespace(struct index_tx *tx, struct metadef_call *c,
			  struct error *err)
{
	const struct request *q = c->q;
	const char *name = json_member(c->body, "namespace");
	/* Whoever adds one sees the answer, whoever owns it. */
	const struct identity all = { .admin = true };
	struct metadef_ns ns = { 0 };
	int64_t n = 0;
	int r = require_admin(q, err);

	if (r >= 0)
		r = check_body(c->body, "metadefs/namespace", "namespace", err);
	if (r >= 0)
		r = metadef_add(tx, c->body, q->who.project, &n, err);
	if (r >= 0)
		r = add_nested(tx, n, c->body, err);
	if (r >= 0)
		r = metadef_find(tx, &all, name, &ns, err);
	if (r >= 0)
		r = metadef_show_ns(tx, &ns, "", &c->result, err);
	metadef_ns_done(&ns);
	return r;
}

static int put_namespace(struct index_tx *tx, struct metadef_call *c,
			 struct error *err)
{
	const struct request *q = c->q;
	const struct identity all = { .admin = true };
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = check_body(c->body, "metadefs/namespace", "namespace", err);
	if (r >= 0)
		r = metadef_update(tx, ns.n, c->body, q->who.project, err);
	metadef_ns_done(&ns);
	if (r >= 0)
		r = metadef_find(tx, &all, json_member(c->body, "namespace"),
				 &ns, err);
	if (r >= 0)
		c->result = metadef_ns_links(json_incref(ns.fields));
	metadef_ns_done(&ns);
	return r;
}

static int delete_namespace(struct index_tx *tx, struct metadef_call *c,
			    struct error *err)
{
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, c->q, &ns, err);

	if (r >= 0)
		r = refuse_protected(&ns, "namespace", ns_name(c->q), err);
	if (r >= 0)
		r = metadef_remove(tx, ns.n, err);
	metadef_ns_done(&ns);
	return r;
}

/* ---- objects, properties, tags ---- */

/* A property asked for by the name it has on a kind of resource. */
static int strip_prefix(struct index_tx *tx, const struct request *q,
			const struct metadef_ns *ns, const char **name,
			struct error *err)
{
	CLEANUP(freep) char *prefix = NULL;
	int r = find_prefix(tx, q, ns, &prefix, err);
	size_t len;

	if (r < 0)
		return r;
	len = strlen(prefix);
	if (strncmp(*name, prefix, len))
		return error_set(err, -ENOENT, 0,
				 "Property %s does not start with the expected "
				 "resource type association prefix of '%s'.",
				 *name, prefix);
	*name += len;
	return 0;
}

static int show_one(struct index_tx *tx, const struct metadef_ns *ns,
		    enum metadef_kind kind, const char *name, json_t **ret,
		    struct error *err)
{
	json_t *item = NULL;
	int r = metadef_item(tx, ns, kind, name, &item, err);

	if (r < 0)
		return r;
	*ret = metadef_show_item(json_member(ns->fields, "namespace"), kind,
				 item, "");
	return 0;
}

static int get_item(struct index_tx *tx, struct metadef_call *c,
		    struct error *err)
{
	const struct request *q = c->q;
	enum metadef_kind kind = kind_of(q);
	const char *name = item_name(q);
	struct metadef_ns ns = { 0 };
	int r = metadef_find(tx, &q->who, ns_name(q), &ns, err);

	if (r >= 0 && kind == METADEF_PROPERTY)
		r = strip_prefix(tx, q, &ns, &name, err);
	if (r >= 0)
		r = show_one(tx, &ns, kind, name, &c->result, err);
	metadef_ns_done(&ns);
	return r;
}

static int check_name_alone(enum metadef_kind kind, const char *name,
			    struct error *err)
{
	CLEANUP(json_decrefp) json_t *v = json_string(name);

	return v ? schema_check_property(metadef_kinds[kind].schema, "name", v,
					 err)
		 : no_memory(err);
}

/* One more; a tag's name is in the path. */
static int post_item(struct index_tx *tx, struct metadef_call *c,
		     struct error *err)
{
	const struct request *q = c->q;
	enum metadef_kind kind = kind_of(q);
	const char *name =
		c->body ? json_member(c->body, "name") : item_name(q);
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0 && c->body)
		r = check_body(c->body, metadef_kinds[kind].schema, "name",
			       err);
	if (r >= 0 && !c->body)
		r = check_name_alone(kind, name, err);
	if (r >= 0)
		r = add_item(tx, ns.n, ns_name(q), kind, name, c->body, err);
	if (r >= 0)
		r = show_one(tx, &ns, kind, name, &c->result, err);
	metadef_ns_done(&ns);
	return r;
}

static int put_item(struct index_tx *tx, struct metadef_call *c,
		    struct error *err)
{
	const struct request *q = c->q;
	enum metadef_kind kind = kind_of(q);
	const char *name = json_member(c->body, "name");
	CLEANUP(json_decrefp) json_t *stored = NULL;
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = check_body(c->body, metadef_kinds[kind].schema, "name",
			       err);
	if (r >= 0) {
		stored = stored_body(kind, c->body);
		r = metadef_item_update(tx, &ns, kind, item_name(q), name,
					stored, err);
	}
	if (r >= 0)
		r = show_one(tx, &ns, kind, name, &c->result, err);
	metadef_ns_done(&ns);
	return r;
}

static int delete_item(struct index_tx *tx, struct metadef_call *c,
		       struct error *err)
{
	const struct request *q = c->q;
	enum metadef_kind kind = kind_of(q);
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = refuse_protected(&ns, metadef_kinds[kind].word,
				     item_name(q), err);
	if (r >= 0)
		r = metadef_item_remove(tx, &ns, kind, item_name(q), err);
	metadef_ns_done(&ns);
	return r;
}

static int delete_items(struct index_tx *tx, struct metadef_call *c,
			struct error *err)
{
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, c->q, &ns, err);

	if (r >= 0)
		r = refuse_protected(&ns, "namespace", ns_name(c->q), err);
	if (r >= 0)
		r = metadef_items_remove(tx, ns.n, kind_of(c->q), err);
	metadef_ns_done(&ns);
	return r;
}

/* All tags anew, or more of them where the client says so. */
static int post_tags(struct index_tx *tx, struct metadef_call *c,
		     struct error *err)
{
	const struct request *q = c->q;
	const char *append = request_header(q, "X-Openstack-Append");
	const json_t *tags = json_object_get(c->body, "tags");
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = schema_check("metadefs/tags", c->body, err);
	if (r >= 0 && !tags) /* which would remove them all */
		r = error_set(err, -EINVAL, 0, "'tags' is a required property");
	if (r >= 0 && !(append && !strcasecmp(append, "true")))
		r = metadef_items_remove(tx, ns.n, METADEF_TAG, err);
	if (r >= 0)
		r = add_nested_items(tx, ns.n, ns_name(q), METADEF_TAG, tags,
				     err);
	if (r >= 0)
		c->result = json_pack(
			"{s:o}", "tags",
			metadef_show_list(ns_name(q), METADEF_TAG, tags, ""));
	metadef_ns_done(&ns);
	return r;
}

/* ---- associations ---- */

static int post_link(struct index_tx *tx, struct metadef_call *c,
		     struct error *err)
{
	const struct request *q = c->q;
	CLEANUP(json_decrefp) json_t *list = json_array();
	const char *type = json_member(c->body, "name");
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = check_body(c->body, "metadefs/resource_type", "name", err);
	if (r >= 0)
		r = metadef_link_add(tx, ns.n, ns_name(q), c->body, err);
	if (r >= 0)
		r = metadef_links(tx, ns.n, type, list, err);
	if (r >= 0)
		c->result = json_incref(json_array_get(list, 0));
	metadef_ns_done(&ns);
	return r;
}

static int delete_link(struct index_tx *tx, struct metadef_call *c,
		       struct error *err)
{
	const struct request *q = c->q;
	struct metadef_ns ns = { 0 };
	int r = find_to_change(tx, q, &ns, err);

	if (r >= 0)
		r = refuse_protected(&ns, "resource-type-association",
				     item_name(q), err);
	if (r >= 0)
		r = metadef_link_remove(tx, ns.n, item_name(q), err);
	metadef_ns_done(&ns);
	return r;
}

/* ---- routes ---- */

static int post_namespace_and_place(struct index_tx *tx, struct metadef_call *c,
				    struct error *err)
{
	CLEANUP(freep) char *base = request_base_url(c->q);
	CLEANUP(freep) char *path = NULL;
	int r = post_namespace(tx, c, err);

	if (r < 0)
		return r;
	path = metadef_path(json_member(c->body, "namespace"), NULL, NULL);
	if (!base || !path || asprintf(&c->location, "%s%s", base, path) < 0) {
		c->location = NULL;
		return no_memory(err);
	}
	return 0;
}

#define NS    METADEF_ROOT "/{}"
#define TYPES NS "/resource_types"
#define OBJS  NS "/objects"
#define PROPS NS "/properties"
#define TAGS  NS "/tags"

const struct route metadef_routes[] = {
	{ HTTP_GET, "/v2/metadefs/resource_types", get, .call = list_types,
	  .status = 200, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, METADEF_ROOT, get, .call = list_namespaces, .status = 200 },
	{ HTTP_POST, METADEF_ROOT, put, .call = post_namespace_and_place,
	  .status = 201 },
	{ HTTP_GET, NS, get, .call = show_namespace, .status = 200,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_PUT, NS, put, .call = put_namespace, .status = 200 },
	{ HTTP_DELETE, NS, change, .call = delete_namespace, .status = 204,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, TYPES, get, .call = list_links, .status = 200,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, TYPES, put, .call = post_link, .status = 201 },
	{ HTTP_DELETE, TYPES "/{}", change, .call = delete_link, .status = 204,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, OBJS, get, .call = list_items, .status = 200 },
	{ HTTP_POST, OBJS, put, .call = post_item, .status = 201 },
	{ HTTP_DELETE, OBJS, change, .call = delete_items, .status = 204 },
	{ HTTP_GET, OBJS "/{}", get, .call = get_item, .status = 200,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_PUT, OBJS "/{}", put, .call = put_item, .status = 200 },
	{ HTTP_DELETE, OBJS "/{}", change, .call = delete_item, .status = 204,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, PROPS, get, .call = list_items, .status = 200,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, PROPS, put, .call = post_item, .status = 201 },
	{ HTTP_DELETE, PROPS, change, .call = delete_items, .status = 204 },
	{ HTTP_GET, PROPS "/{}", get, .call = get_item, .status = 200 },
	{ HTTP_PUT, PROPS "/{}", put, .call = put_item, .status = 200 },
	{ HTTP_DELETE, PROPS "/{}", change, .call = delete_item,
	  .status = 204 },
	{ HTTP_GET, TAGS, get, .call = list_items, .status = 200 },
	{ HTTP_POST, TAGS, put, .call = post_tags, .status = 201 },
	{ HTTP_DELETE, TAGS, change, .call = delete_items, .status = 204 },
	{ HTTP_GET, TAGS "/{}", get, .call = get_item, .status = 200,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, TAGS "/{}", change, .call = post_item, .status = 201,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_PUT, TAGS "/{}", put, .call = put_item, .status = 200 },
	{ HTTP_DELETE, TAGS "/{}", change, .call = delete_item, .status = 204,
	  .flags = ROUTE_NO_BODY },
	{ 0 },
};
