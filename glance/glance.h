/* SPDX-License-Identifier: BSD-3-Clause */
/* The image service: a store, its index, and the HTTP API in front. */
#ifndef GLANCE_GLANCE_H
#define GLANCE_GLANCE_H

#include "glance/auth.h"
#include "glance/config.h"
#include "glance/http.h"
#include "glance/index.h"
#include "glance/store.h"

struct glance {
	const struct glance_config *config;
	struct index *index;
	struct store *store;
	struct auth *auth;
	struct http_server *http; /* NULL: the index alone */
};

/*
 * Looks at everything that can be wrong, and listens. Before the fork: no
 * thread, no open index is left.
 */
int glance_prepare(const struct glance_config *c, struct glance **ret,
		   struct error *err);
/* Afterwards: opens the index, tidies up, answers. */
int glance_start(struct glance *g, struct error *err);
void glance_free(struct glance *g); /* stops; NULL is fine */

#endif
