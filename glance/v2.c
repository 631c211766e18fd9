/* SPDX-License-Identifier: BSD-3-Clause */
/* Glance v2: images. */
#include "glance/glance.h"
#include "glance/routes.h"

static void get_healthcheck(struct request *q)
{
	respond_empty(q, 200);
}

const struct route v2_routes[] = {
	{ HTTP_GET, "/healthcheck", get_healthcheck, NULL, ROUTE_PUBLIC },
	{ 0 },
};
