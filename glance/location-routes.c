/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /v2/images/ID/locations of API 2.17: where an image's data lie, told to
 * administrators, and registered by them while it has none.
 */
#include <errno.h>

#include "glance/glance.h"
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/http/json-body.h"
#include "glance/locations.h"
#include "glance/record-rows.h"
#include "glance/routes.h"

static bool may(struct request *q, const char *action)
{
	struct glance *g = q->app;

	if (!location_rules_show(g->locations))
		respond_errorf(q, 403,
			       "It's not allowed to %s locations if locations "
			       "are invisible.",
			       action);
	else if (!q->who.admin)
		respond_errorf(q, 403,
			       "You are not authorized to complete "
			       "%s_image_location action.",
			       action);
	else
		return true;
	return false;
}

static void get_locations(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	const struct image_view view = { q->app, &q->who };
	struct text_buf b = { 0 };

	if (image_of_request(q, &image) < 0 || !may(q, "get"))
		return;
	image_json_add_locations(&b, &image, &view);
	respond_json(q, 200, &b);
}

struct addition {
	struct request *q;
	json_t *value; /* as PATCH has it */
	struct location_sizes sizes;
};

static int add(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct addition *a = opaque;
	struct request *q = a->q;
	const struct location_change x = { .g = q->app,
					   .who = &q->who,
					   .sizes = &a->sizes };
	CLEANUP(record_done) struct record image = { 0 };
	int r = image_load(tx, &q->who, q->uri.segments[2], &image, err);

	if (r >= 0 && image.status != IMAGE_QUEUED)
		r = error_set(err, -EEXIST, 0,
			      "Image %s is %s: a location may only be added "
			      "while it is queued",
			      image.id, image_status_name(image.status));
	if (r >= 0)
		r = location_add(&x, &image, a->value, err);
	return r < 0 ? r : record_update(tx, &image, err);
}

/* {"url": ..., "validation_data": {...}}; the metadata are the store's here. */
static void post_location(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	CLEANUP(json_decrefp) json_t *list = NULL;
	struct addition a = { .q = q, .value = body };
	struct error err = { 0 };
	struct glance *g = q->app;

	if (!body || image_of_request(q, &image) < 0 || !may(q, "add"))
		return;
	json_object_set_new(body, "metadata", json_object());
	list = json_pack("[O]", body);
	if (image_field_check("locations", list, &err) < 0 ||
	    location_probe(g, body, &a.sizes, &err) < 0 ||
	    index_write(g->index, add, &a, &err) < 0)
		respond_failure(q, &err);
	else
		respond_empty(q, 202);
}

const struct route location_routes[] = {
	{ HTTP_GET, "/v2/images/{}/locations", get_locations },
	{ HTTP_POST, "/v2/images/{}/locations", post_location },
	{ 0 },
};
