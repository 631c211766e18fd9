/* SPDX-License-Identifier: BSD-3-Clause */
/* What the service says of itself: schemas, stores, methods of import. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/image-json.h"
#include "glance/import.h"
#include "glance/http/json-body.h"
#include "glance/limits.h"
#include "glance/routes.h"
#include "glance/schemas.h"

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
	respond_text(q, 200, "application/json",
		     strdup("{\"import-methods\": {\"description\": "
			    "\"Import methods available.\", \"type\": "
			    "\"array\", \"value\": [" IMPORT_METHODS_JSON
			    "]}}"));
}

/* As a Glance with one store answers. */
static void get_stores(struct request *q)
{
	respond_error(q, 404, "Multi backend is not supported at this site.");
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

/*
 * As a Glance with one store and without a cache of images answers: what is
 * read often is in the page cache already.
 */
static void refuse_cache(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	const char *id = q->uri.n_segments > 2 ? q->uri.segments[2] : NULL;
	struct error err = { 0 };
	int r = id ? index_read(g->index, &tx, &err) : 0;

	if (id && r >= 0)
		r = image_load(tx, &q->who, id, &image, &err);
	if (r == -ENOENT)
		respond_errorf(q, 404, "Image %.64s not found.", id);
	else if (r < 0)
		respond_failure(q, &err);
	else if (!q->who.admin)
		respond_error(q, 403, "Access was denied to this resource.");
	else
		respond_error(q, 404,
			      "Caching via API is not supported at this site.");
}

static void refuse_store(struct request *q)
{
	respond_error(q, 404, "The resource could not be found.");
}

const struct route info_routes[] = {
	{ HTTP_GET, "/v2/info/import", get_import, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/stores", get_stores, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/stores/detail", get_stores,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/info/usage", get_usage },
	{ HTTP_GET, "/v2/cache", refuse_cache, .flags = ROUTE_NO_BODY },
	{ HTTP_DELETE, "/v2/cache", refuse_cache },
	{ HTTP_PUT, "/v2/cache/{}", refuse_cache },
	{ HTTP_DELETE, "/v2/cache/{}", refuse_cache },
	{ HTTP_DELETE, "/v2/stores/{}/{}", refuse_store,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/schemas/{}", NULL, get_schema,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/schemas/metadefs/{}", NULL, get_schema,
	  .flags = ROUTE_NO_BODY },
	{ 0 },
};
