/* SPDX-License-Identifier: BSD-3-Clause */
/* Metadata definitions as the API shows them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/http/json-in.h"
#include "glance/http/text-buf.h"
#include "glance/metadef-show.h"

const struct metadef_kind_text metadef_kinds[METADEF_KINDS] = {
	[METADEF_OBJECT] = { "objects", "metadefs/object", "metadefs/objects",
			     "object" },
	[METADEF_PROPERTY] = { "properties", "metadefs/property",
			       "metadefs/properties", "property" },
	[METADEF_TAG] = { "tags", "metadefs/tag", "metadefs/tags", "tag" },
};

/* Appends "/" and @name, whose odd characters a path could not have. */
static void add_segment(struct text_buf *b, const char *name)
{
	static const char plain[] = "!$&'()*+,;=:@";
	char one[2] = { 0 };

	text_add_char(b, '/');
	for (; *name; name++) {
		one[0] = *name;
		if (strchr(plain, *name))
			text_add_char(b, *name);
		else
			text_add_percent(b, one);
	}
}

char *metadef_path(const char *ns, const char *what, const char *name)
{
	struct text_buf b = { 0 };

	text_add(&b, METADEF_ROOT);
	add_segment(&b, ns);
	if (what)
		add_segment(&b, what);
	if (name)
		add_segment(&b, name);
	return text_buf_take(&b);
}

/* Takes both @o, which is returned, and @link. */
static json_t *with_links(json_t *o, char *link, const char *schema)
{
	CLEANUP(freep) char *self = link;
	json_t *text = json_sprintf("/v2/schemas/%s", schema);

	if (!self || !text ||
	    json_object_set_new(o, "self", json_string(self)) < 0 ||
	    json_object_set(o, "schema", text) < 0) {
		json_decref(o);
		o = NULL;
	}
	json_decref(text);
	return o;
}

static int set_prefixed(json_t *to, const char *prefix, const char *name,
			json_t *value)
{
	CLEANUP(freep) char *key = NULL;

	if (asprintf(&key, "%s%s", prefix, name) < 0) {
		key = NULL;
		return -1;
	}
	return json_object_set(to, key, value);
}

/* An object's properties and "required" get @prefix. */
static void prefix_object(json_t *o, const char *prefix)
{
	json_t *properties = json_object(), *required = json_array(), *v;
	const char *name;
	size_t i;

	json_object_foreach(json_object_get(o, "properties"), name, v)
		set_prefixed(properties, prefix, name, v);
	json_array_foreach(json_object_get(o, "required"), i, v)
		json_array_append_new(
			required,
			json_sprintf("%s%s", prefix, json_string_value(v)));
	json_object_set_new(o, "properties", properties);
	json_object_set_new(o, "required", required);
}

json_t *metadef_show_item(const char *ns, enum metadef_kind kind, json_t *item,
			  const char *prefix)
{
	CLEANUP(json_decrefp) json_t *from = item;
	const char *name = json_member(from, "name");
	json_t *o = json_object();

	json_object_set(o, "name", json_object_get(item, "name"));
	json_object_update(o, json_object_get(item, "body"));
	if (kind == METADEF_PROPERTY)
		return o;
	json_object_set(o, "created_at", json_object_get(item, "created_at"));
	json_object_set(o, "updated_at", json_object_get(item, "updated_at"));
	if (kind == METADEF_TAG)
		return o;
	if (*prefix)
		prefix_object(o, prefix);
	return with_links(o,
			  metadef_path(ns, metadef_kinds[kind].segment, name),
			  metadef_kinds[kind].schema);
}

json_t *metadef_show_properties(const json_t *items, const char *prefix)
{
	json_t *all = json_object();
	size_t i;

	for (i = 0; i < json_array_size(items); i++) {
		const json_t *item = json_array_get(items, i);

		set_prefixed(all, prefix, json_member(item, "name"),
			     json_object_get(item, "body"));
	}
	return all;
}

json_t *metadef_show_list(const char *ns, enum metadef_kind kind,
			  const json_t *items, const char *prefix)
{
	json_t *all = json_array();
	size_t i;

	for (i = 0; i < json_array_size(items); i++) {
		json_t *item = json_array_get(items, i);

		if (kind == METADEF_TAG)
			json_array_append_new(
				all, json_pack("{s:O}", "name",
					       json_object_get(item, "name")));
		else
			json_array_append_new(
				all,
				metadef_show_item(ns, kind, json_incref(item),
						  prefix));
	}
	return all;
}

/* All of @kind in the namespace, as its own answer has them. */
static int show_kind(struct index_tx *tx, const struct metadef_ns *ns,
		     enum metadef_kind kind, const char *prefix, json_t *to,
		     struct error *err)
{
	CLEANUP(json_decrefp) json_t *items = json_array();
	int r = metadef_items(tx, ns, kind, NULL, items, err);

	if (r < 0 || !json_array_size(items))
		return r;
	if (json_object_set_new(
		    to, metadef_kinds[kind].segment,
		    kind == METADEF_PROPERTY
			    ? metadef_show_properties(items, prefix)
			    : metadef_show_list(
				      json_member(ns->fields, "namespace"),
				      kind, items, prefix)) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return 0;
}

int metadef_show_short(struct index_tx *tx, const struct metadef_ns *ns,
		       json_t **ret, struct error *err)
{
	CLEANUP(json_decrefp) json_t *links = json_array();
	CLEANUP(json_decrefp) json_t *o = json_copy(ns->fields);
	int r = links && o ? metadef_links(tx, ns->n, NULL, links, err)
			   : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0 && json_array_size(links) &&
	    json_object_set(o, "resource_type_associations", links) < 0)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		*ret = TAKE_PTR(o);
	return r;
}

json_t *metadef_ns_links(json_t *o)
{
	return with_links(o,
			  metadef_path(json_member(o, "namespace"), NULL, NULL),
			  "metadefs/namespace");
}

int metadef_show_ns(struct index_tx *tx, const struct metadef_ns *ns,
		    const char *prefix, json_t **ret, struct error *err)
{
	json_t *o = NULL;
	int r = metadef_show_short(tx, ns, &o, err);

	if (r >= 0)
		r = show_kind(tx, ns, METADEF_PROPERTY, prefix, o, err);
	if (r >= 0)
		r = show_kind(tx, ns, METADEF_OBJECT, prefix, o, err);
	if (r >= 0)
		r = show_kind(tx, ns, METADEF_TAG, prefix, o, err);
	if (r < 0) {
		json_decref(o);
		return r;
	}
	*ret = metadef_ns_links(o);
	return 0;
}
