/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/locations.h"
#include "glance/record-rows.h"
#include "glance/stores.h"
#include "glance/time-text.h"

static void add_text(struct text_buf *b, const char *name, const char *value)
{
	text_addf(b, "\"%s\": ", name);
	text_add_json(b, value);
	text_add(b, ", ");
}

static void add_number(struct text_buf *b, const char *name, bool has,
		       uint64_t value)
{
	text_addf(b, "\"%s\": ", name);
	if (has)
		text_add_u64(b, value);
	else
		text_add(b, "null");
	text_add(b, ", ");
}

static void add_flag(struct text_buf *b, const char *name, bool value)
{
	text_addf(b, "\"%s\": %s, ", name, value ? "true" : "false");
}

static void add_time(struct text_buf *b, const char *name, int64_t usec)
{
	char text[21];

	time_format(usec, text);
	add_text(b, name, text);
}

static void add_tags(struct text_buf *b, const struct record *r)
{
	size_t i;

	text_add(b, "\"tags\": [");
	for (i = 0; i < r->n_tags; i++) {
		if (i)
			text_add(b, ", ");
		text_add_json(b, r->tags[i]);
	}
	text_add(b, "], ");
}

static bool has_data(const struct record *r)
{
	return r->status == IMAGE_ACTIVE || r->status == IMAGE_DEACTIVATED;
}

/* Of several stores the metadata tell which. */
static void add_store(struct text_buf *b, const struct glance *g,
		      const char *key, const char *metadata)
{
	text_add(b, "{\"store\": ");
	text_add_json(b, stores_name(g, key));
	text_add(b, metadata[1] == '}' ? "" : ", ");
	text_add(b, metadata + 1);
}

static void add_location(struct text_buf *b, const struct record *r,
			 const struct location *l, const char *metadata,
			 const struct image_view *view)
{
	CLEANUP(freep) char *url = location_url(view->g, r, l);

	text_add(b, "{\"url\": ");
	text_add_json(b, url ? url : "");
	text_add(b, ", \"metadata\": ");
	if (stores_many(view->g) && (!l || !strcmp(l->store, LOCATION_OWN)))
		add_store(b, view->g, l ? l->url + strlen(OWN_URL) : "",
			  metadata);
	else
		text_add(b, metadata);
	text_add_char(b, '}');
}

void image_json_add_locations(struct text_buf *b, const struct record *r,
			      const struct image_view *view)
{
	size_t i;

	text_add_char(b, '[');
	for (i = 0; i < r->n_locations; i++) {
		text_add(b, i ? ", " : "");
		add_location(b, r, &r->locations[i], r->locations[i].metadata,
			     view);
	}
	if (!i && has_data(r))
		add_location(b, r, NULL, "{}", view);
	text_add_char(b, ']');
}

/* Where data lie is told to an administrator, and to whom they belong. */
static bool may_see_locations(const struct identity *who,
			      const struct record *r)
{
	return who->admin ||
	       (who->project && r->owner && !strcmp(who->project, r->owner));
}

/* In the order of its locations. */
static void add_stores(struct text_buf *b, const struct record *r,
		       const struct glance *g)
{
	struct text_buf names = { 0 };
	size_t i;

	if (!has_data(r) || !stores_many(g))
		return;
	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, LOCATION_OWN))
			text_addf(&names, "%s%s", names.len ? "," : "",
				  stores_name(g, r->locations[i].url +
							 strlen(OWN_URL)));
	if (!names.len && record_is_in(r, ""))
		text_add(&names, stores_name(g, ""));
	if (names.len && !names.failed) {
		text_add(b, "\"stores\": ");
		text_add_json(b, names.text);
		text_add(b, ", ");
	}
	text_buf_done(&names);
}

static void add_view(struct text_buf *b, const struct record *r,
		     const struct image_view *view)
{
	if (location_rules_show(view->g->locations)) {
		text_add(b, "\"locations\": ");
		if (may_see_locations(view->who, r))
			image_json_add_locations(b, r, view);
		else
			text_add(b, "[]");
		text_add(b, ", ");
	}
	if (view->g->config->direct_url && has_data(r)) {
		CLEANUP(freep) char *url = location_url(view->g, r, NULL);

		text_add(b, "\"direct_url\": ");
		text_add_json(b, url ? url : "");
		text_add(b, ", ");
	}
}

void image_json_add(struct text_buf *b, const struct record *r,
		    const struct image_view *view)
{
	size_t i;

	text_add_char(b, '{');
	for (i = 0; i < r->n_properties; i++) {
		text_add_json(b, r->properties[i].name);
		text_add(b, ": ");
		text_add_json(b, r->properties[i].value);
		text_add(b, ", ");
	}
	add_text(b, "name", r->name);
	add_text(b, "disk_format", r->disk_format);
	add_text(b, "container_format", r->container_format);
	add_text(b, "visibility", image_visibility_name(r->visibility));
	add_number(b, "size", r->has_size, r->size);
	add_number(b, "virtual_size", r->has_virtual_size, r->virtual_size);
	add_text(b, "status", image_status_name(r->status));
	add_text(b, "checksum", r->checksum);
	add_flag(b, "protected", r->protected_);
	add_number(b, "min_ram", true, r->min_ram);
	add_number(b, "min_disk", true, r->min_disk);
	add_text(b, "owner", r->owner);
	add_flag(b, "os_hidden", r->hidden);
	add_text(b, "os_hash_algo", r->hash_algo);
	add_text(b, "os_hash_value", r->hash_value);
	add_text(b, "id", r->id);
	add_time(b, "created_at", r->created_usec);
	add_time(b, "updated_at", r->updated_usec);
	add_tags(b, r);
	add_view(b, r, view);
	add_stores(b, r, view->g);
	text_addf(b, "\"self\": \"/v2/images/%s\", ", r->id);
	text_addf(b, "\"file\": \"/v2/images/%s/file\", ", r->id);
	text_add(b, "\"schema\": \"/v2/schemas/image\"}");
}

static bool is_owner(const struct identity *who, const struct record *r)
{
	return who->project && r->owner && !strcmp(who->project, r->owner);
}

int image_may_see(struct index_tx *tx, const struct identity *who,
		  const struct record *r, struct error *err)
{
	if (who->admin || is_owner(who, r))
		return 1;
	switch (r->visibility) {
	case IMAGE_PUBLIC:
	case IMAGE_COMMUNITY:
		return 1;
	case IMAGE_SHARED:
		return who->project ? record_is_member(tx, r->n, who->project,
						       NULL, err)
				    : 0;
	default:
		return 0;
	}
}

bool image_is_own(const struct identity *who, const struct record *r)
{
	return who->admin || is_owner(who, r);
}

bool image_may_change(const struct identity *who, const struct record *r)
{
	return who->admin || (who->member && is_owner(who, r));
}

int image_load(struct index_tx *tx, const struct identity *who, const char *id,
	       struct record *ret, struct error *err)
{
	struct record r = { 0 };
	int may = record_id_ok(id) ? record_load(tx, id, &r, NULL) : -ENOENT;

	if (!may)
		may = image_may_see(tx, who, &r, err);
	if (may == 1) {
		*ret = r;
		return 0;
	}
	record_done(&r);
	if (may < 0 && may != -ENOENT)
		return error_set(err, may, 0, "the index cannot be read");
	return error_set(err, -ENOENT, 0, "No image found with ID %.64s", id);
}

int image_load_own(struct index_tx *tx, const struct identity *who,
		   const char *id, struct record *ret, struct error *err)
{
	int r = image_load(tx, who, id, ret, err);

	if (r < 0 || image_may_change(who, ret))
		return r;
	record_done(ret);
	*ret = (struct record){ 0 };
	return error_set(err, -EPERM, 0,
			 "You are not authorized to complete this action.");
}

int image_of_request(struct request *q, struct record *ret)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, q->uri.segments[2], ret, &err);
	if (r < 0)
		respond_failure(q, &err);
	return r;
}
