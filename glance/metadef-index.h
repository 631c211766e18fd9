/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata definitions in the index: namespaces, and in them objects,
 * properties and tags, all of which are a name and a JSON value here; kinds
 * of resources, and which namespaces are for them.
 *
 * Every function runs in a transaction. -ENOENT, -EEXIST: in words for the
 * client.
 */
#ifndef GLANCE_METADEF_INDEX_H
#define GLANCE_METADEF_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "glance/auth.h"
#include "glance/index.h"

/* As the API shows it, but for "self", "schema" and what it holds. */
struct metadef_ns {
	int64_t n;
	json_t *fields;
	bool is_protected;
};

void metadef_ns_done(struct metadef_ns *ns);

enum metadef_kind {
	METADEF_OBJECT,
	METADEF_PROPERTY,
	METADEF_TAG,
	METADEF_KINDS, /* how many */
};

/* One page of a list. */
struct metadef_page {
	const char *marker; /* the name behind which it begins, or NULL */
	const char *sort_key; /* NULL: "created_at" */
	bool ascending;
	uint64_t limit;
};

/* The namespace @name, if @who may see it. */
int metadef_find(struct index_tx *tx, const struct identity *who,
		 const char *name, struct metadef_ns *ret, struct error *err);

/*
 * Adds the namespace of the API's fields in @body; @owner, @visibility and
 * "protected" where they are absent are its defaults.
 */
int metadef_add(struct index_tx *tx, const json_t *body, const char *owner,
		int64_t *ret_n, struct error *err);

/* All fields anew; what it holds stays. */
int metadef_update(struct index_tx *tx, int64_t n, const json_t *body,
		   const char *owner, struct error *err);
int metadef_remove(struct index_tx *tx, int64_t n, struct error *err);

/* What is to be in a list of namespaces; NULL: all that may be seen. */
struct metadef_filter {
	const char *visibility;
	const char *resource_types; /* separated by commas */
};

/* @each gets namespaces that are @this function's; a failure of it ends all. */
int metadef_list(struct index_tx *tx, const struct identity *who,
		 const struct metadef_filter *filter,
		 const struct metadef_page *page,
		 int (*each)(struct index_tx *tx, const struct metadef_ns *ns,
			     void *opaque, struct error *err),
		 void *opaque, struct error *err);

/*
 * Items: {"name", "body", "created_at", "updated_at"}. Tags' names are the
 * same in any case.
 */
int metadef_item(struct index_tx *tx, const struct metadef_ns *ns,
		 enum metadef_kind kind, const char *name, json_t **ret,
		 struct error *err);
int metadef_item_add(struct index_tx *tx, int64_t ns, const char *ns_name,
		     enum metadef_kind kind, const char *name,
		     const json_t *body, struct error *err);
/* May give it another name. */
int metadef_item_update(struct index_tx *tx, const struct metadef_ns *ns,
			enum metadef_kind kind, const char *name,
			const char *new_name, const json_t *body,
			struct error *err);
int metadef_item_remove(struct index_tx *tx, const struct metadef_ns *ns,
			enum metadef_kind kind, const char *name,
			struct error *err);
int metadef_items_remove(struct index_tx *tx, int64_t ns,
			 enum metadef_kind kind, struct error *err);
/* Appends to the array @ret. @page NULL: all, the newest first. */
int metadef_items(struct index_tx *tx, const struct metadef_ns *ns,
		  enum metadef_kind kind, const struct metadef_page *page,
		  json_t *ret, struct error *err);

/* Kinds of resources: {"name", "created_at", "updated_at"} each. */
int metadef_types(struct index_tx *tx, json_t *ret, struct error *err);

/* {"name", "prefix"?, "properties_target"?, times} each, or of one @type. */
int metadef_links(struct index_tx *tx, int64_t ns, const char *type,
		  json_t *ret, struct error *err);
int metadef_link_add(struct index_tx *tx, int64_t ns, const char *ns_name,
		     const json_t *link, struct error *err);
int metadef_link_remove(struct index_tx *tx, int64_t ns, const char *type,
			struct error *err);

#endif
