/* SPDX-License-Identifier: BSD-3-Clause */
/* What the service says of itself: schemas, stores, methods of import. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "glance/cache-list.h"
#include "glance/copies.h"
#include "glance/image-json.h"
#include "glance/import-methods.h"
#include "glance/http/json-body.h"
#include "glance/limits.h"
#include "glance/locations.h"
#include "glance/record-rows.h"
#include "glance/routes.h"
#include "glance/schemas.h"
#include "glance/stores.h"

/* /v2/schemas/NAME and /v2/schemas/metadefs/NAME */
static void get_schema(struct request *q)
{
	const struct uri *u = &q->uri;
	char name[64];
	const char *text;

	snprintf(name, sizeof(name), "%s%s",
		 u->n_segments > 3 ? "metadefs/" : "",
		 u->segments[u->n_segments - 1]);
	text = schema_text(name);
	if (text)
		respond_text(q, 200, "application/json", strdup(text));
	else
		respond_error(q, 404, "The resource could not be found.");
}

static void get_import(struct request *q)
{
	respond_json_value(q, 200,
			   json_pack("{s:{s:s, s:s, s:o}}", "import-methods",
				     "description", "Import methods available.",
				     "type", "array", "value",
				     import_methods(q->app)));
}

/* Where there is one, clients hear of none. */
static bool has_stores(struct request *q)
{
	if (stores_many(q->app))
		return true;
	respond_error(q, 404, "Multi backend is not supported at this site.");
	return false;
}

static json_t *store_json(const struct glance *g, const char *key, bool detail)
{
	json_t *o = json_pack("{s:s}", "id", stores_name(g, key));

	if (!*key)
		json_object_set_new(o, "default", json_string("true"));
	if (detail) {
		json_object_set_new(o, "type", json_string("file"));
		json_object_set_new(o, "properties",
				    json_pack("{s:s}", "data_dir",
					      store_path(stores_find(g, key))));
	}
	return o;
}

static void respond_stores(struct request *q, bool detail)
{
	const struct glance *g = q->app;
	json_t *list = json_array();
	const char *key;
	size_t i;

	for (i = 0; (key = stores_key(g, i)); i++)
		json_array_append_new(list, store_json(g, key, detail));
	respond_json_value(q, 200, json_pack("{s:o}", "stores", list));
}

static void get_stores(struct request *q)
{
	if (has_stores(q))
		respond_stores(q, false);
}

static void get_stores_detail(struct request *q)
{
	if (!q->who.admin)
		respond_error(q, 403,
			      "You are not authorized to complete "
			      "stores_info_detail action.");
	else if (has_stores(q))
		respond_stores(q, true);
}

static void get_usage(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	json_t *usage;
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = limits_usage(g->limits, tx, q->who.project, &usage, &err);
	if (r < 0)
		respond_failure(q, &err);
	else
		respond_json_value(q, 200, json_pack("{s:o}", "usage", usage));
}

/* ---- the cache ---- */

static bool may_cache(struct request *q, const char *action)
{
	if (q->who.admin)
		return true;
	respond_errorf(q, 403,
		       "You are not authorized to complete cache_%s action.",
		       action);
	return false;
}

static void get_cache(struct request *q)
{
	struct glance *g = q->app;

	if (may_cache(q, "list"))
		respond_json_value(q, 200, cache_list_json(g->cached));
}

static void clear_cache(struct request *q)
{
	const char *target = request_header(q, "X-Image-Cache-Clear-Target");
	struct glance *g = q->app;

	if (!may_cache(q, "delete"))
		return;
	if (target && *target && strcasecmp(target, "cache") != 0 &&
	    strcasecmp(target, "queue") != 0) {
		respond_error(
			q, 400,
			"If provided 'x-image-cache-clear-target' must be "
			"'cache', 'queue' or empty string.");
		return;
	}
	cache_list_clear(g->cached, !target || strcasecmp(target, "queue") != 0,
			 !target || strcasecmp(target, "cache") != 0);
	respond_empty(q, 204);
}

/* The image of the path; answers where there is none. */
static int load_to_cache(struct request *q, struct record *ret)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, q->uri.segments[2], ret, &err);
	if (r == -ENOENT)
		respond_errorf(q, 404, "Image %.64s not found.",
			       q->uri.segments[2]);
	else if (r < 0)
		respond_failure(q, &err);
	return r;
}

static void put_cache(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(closep) int fd = -1;
	struct glance *g = q->app;

	if (load_to_cache(q, &image) < 0 || !may_cache(q, "image"))
		return;
	if (image.status != IMAGE_ACTIVE) {
		respond_error(q, 400,
			      "Only images with status active can be targeted "
			      "for queueing");
	} else if (location_open(g, &image, &fd, NULL, NULL) < 0) {
		respond_errorf(q, 400,
			       "The data of image %s are not in a store of "
			       "this server",
			       image.id);
	} else {
		cache_list_enter(g->cached, image.id, image.size, false);
		respond_empty(q, 202);
	}
}

static void delete_cached(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct glance *g = q->app;

	if (load_to_cache(q, &image) < 0 || !may_cache(q, "delete"))
		return;
	cache_list_drop(g->cached, image.id);
	respond_empty(q, 204);
}

struct forgetting {
	struct request *q;
	const char *id, *key;
};

static int forget(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct forgetting *f = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = image_load_own(tx, &f->q->who, f->id, &image, err);

	if (r >= 0 && image.status != IMAGE_ACTIVE)
		r = error_set(err, -EEXIST, 0,
			      "Image %s is %s: only of an active one data may "
			      "be deleted",
			      image.id, image_status_name(image.status));
	if (r >= 0)
		r = copies_forget(f->q->app, tx, &image, f->key, err);
	return r < 0 ? r : record_update(tx, &image, err);
}

static void delete_from_store(struct request *q)
{
	struct glance *g = q->app;
	struct forgetting f = { q, q->uri.segments[3],
				stores_key_of(g, q->uri.segments[2]) };
	struct error err = { 0 };

	if (!stores_many(g)) {
		respond_error(q, 404, "The resource could not be found.");
	} else if (!f.key) {
		respond_errorf(q, 409,
			       "The selected store %.64s is not available on "
			       "this node.",
			       q->uri.segments[2]);
	} else if (index_write(g->index, forget, &f, &err) < 0) {
		respond_failure(q, &err);
	} else {
		copies_sweep(g, f.id);
		respond_empty(q, 204);
	}
}

const struct route info_routes[] = {
	{ HTTP_GET, "/v2/info/import", get_import, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/stores", get_stores, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/stores/detail", get_stores_detail,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/usage", get_usage },
	{ HTTP_GET, "/v2/cache", get_cache, .flags = ROUTE_NO_BODY },
	{ HTTP_DELETE, "/v2/cache", clear_cache },
	{ HTTP_PUT, "/v2/cache/{}", put_cache },
	{ HTTP_DELETE, "/v2/cache/{}", delete_cached },
	{ HTTP_DELETE, "/v2/stores/{}/{}", delete_from_store,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/schemas/{}", NULL, get_schema,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/schemas/metadefs/{}", NULL, get_schema,
	  .flags = ROUTE_NO_BODY },
	{ 0 },
};
