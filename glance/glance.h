/* SPDX-License-Identifier: BSD-3-Clause */
/* The image service: a store, its index, and the HTTP API in front. */
#ifndef GLANCE_GLANCE_H
#define GLANCE_GLANCE_H

#include "glance/auth.h"
#include "glance/config.h"
#include "glance/grant.h"
#include "glance/http/http.h"
#include "glance/index.h"
#include "glance/observe.h"
#include "glance/store.h"

/* How the API gets to the server's NBD, which is above this room. */
struct nbd_door {
	/*
	 * A connection on which the default export is image @id, opened by the
	 * right of @grant, and there is no other. @peer: who will speak on it.
	 * NULL: there is no NBD.
	 */
	int (*connect)(const char *id, const char *grant, const char *peer,
		       int *ret_fd, struct error *err);
	void (*close)(int fd);
};

struct glance {
	const struct glance_config *config;
	struct index *index;
	struct store *store; /* the first: see stores.h */
	struct store *more_stores[MORE_STORES_MAX];
	struct auth *auth;
	struct http_server *http; /* NULL: the index alone */
	struct grant_key grant_key;
	struct observer *observer;
	/* Adds what is above this room to GET /metrics; NULL: nothing. */
	void (*add_metrics)(struct text_buf *b);
	struct nbd_door nbd;
	struct tunnels *tunnels; /* clients who came through it */
	struct fetch_rules *fetch; /* what may be imported from */
	struct limits *limits; /* NULL: none */
	struct location_rules *locations;
	struct folder *certificates; /* NULL: none; see signature.h */
	struct task_tokens *tokens; /* of who asks for imports */
	struct worker *worker; /* NULL: the index alone */
	struct graves *graves; /* bury.h; NULL: there are none yet */
	struct sidecars *sidecars; /* NULL: not yet */
	struct scanner *scanner;
	struct cache_list *cached; /* see cache-list.h */
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

/* Are people asked who they are? */
bool glance_asks(const struct glance *g);

#endif
