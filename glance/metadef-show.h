/* SPDX-License-Identifier: BSD-3-Clause */
/* Metadata definitions as the API shows them: JSON objects, with their links. */
#ifndef GLANCE_METADEF_SHOW_H
#define GLANCE_METADEF_SHOW_H

#include <jansson.h>

#include "glance/metadef-index.h"

#define METADEF_ROOT "/v2/metadefs/namespaces"

extern const struct metadef_kind_text {
	const char *segment;
	const char *schema; /* of one */
	const char *list_schema;
	const char *word; /* in refusals */
} metadef_kinds[METADEF_KINDS]; /* by enum metadef_kind */

/* ROOT, @ns and what is in it; NULLs are left out. To be freed. */
char *metadef_path(const char *ns, const char *what, const char *name);

/* An item of the index as the API shows it; takes @item. */
json_t *metadef_show_item(const char *ns, enum metadef_kind kind, json_t *item,
			  const char *prefix);

/* Properties by name, without the name inside. @items: the index's. */
json_t *metadef_show_properties(const json_t *items, const char *prefix);

/* The same for objects and tags, as a list; of tags the names alone. */
json_t *metadef_show_list(const char *ns, enum metadef_kind kind,
			  const json_t *items, const char *prefix);

/* The namespace's own fields and its associations; not yet its links. */
int metadef_show_short(struct index_tx *tx, const struct metadef_ns *ns,
		       json_t **ret, struct error *err);

/* Adds a namespace's links to @o, which is returned; NULL: no memory. */
json_t *metadef_ns_links(json_t *o);

/* Whole, as GET and POST show it. */
int metadef_show_ns(struct index_tx *tx, const struct metadef_ns *ns,
		    const char *prefix, json_t **ret, struct error *err);

#endif
