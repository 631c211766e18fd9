/* SPDX-License-Identifier: BSD-3-Clause */
/* What the service says of itself: schemas, stores, methods of import. */
#include <stdio.h>
#include <string.h>

#include "glance/import.h"
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

const struct route info_routes[] = {
	{ HTTP_GET, "/v2/info/import", get_import },
	{ HTTP_GET, "/v2/info/stores", get_stores },
	{ HTTP_GET, "/v2/info/stores/detail", get_stores },
	{ HTTP_GET, "/v2/schemas/{}", NULL, get_schema },
	{ HTTP_GET, "/v2/schemas/metadefs/{}", NULL, get_schema },
	{ 0 },
};
