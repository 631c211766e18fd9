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
	struct store *store;
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
	struct worker *worker; /* NULL: the index alone */
	struct graves *graves; /* recover.h; NULL: there are none yet */
	struct scanner *scanner;
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

/* min-disk=: does the inspection set what the client left at 0? */
bool glance_sets_min_disk(const struct glance *g);

/* An image whose data can be served. Strings are owned. */
struct glance_image {
	char *id;
	char *project; /* in whose name space overlays are; NULL: in nobody's */
	int fd; /* its file, open to be read; owned */
	char *path; /* says where that lies, to people and in overlays */
	const char *format; /* of the drivers' */
};

void glance_image_done(struct glance_image *i);

/* What a client of NBD asks for. */
struct glance_wish {
	const char *name; /* the image's id, or its name if no other has that */
	const char *grant; /* grant.h; NULL: none */
	const char *overlay; /* of it; NULL: none */
	const char *project; /* whose, as the client says; NULL: he does not */
	bool by_operator; /* it is the operator, who needs no grant */
};

/*
 * The active image that @w names, and its file, opened here and nowhere else.
 * -ENOENT: there is none, its data are no disk, or @w may not have it. NBD asks
 * nobody who he is; where the API does (auth_asks()), a public image is
 * everybody's to read, and all else takes a grant that holds now and whose
 * project may see the image now.
 */
int glance_find_image(struct glance *g, const struct glance_wish *w,
		      struct glance_image *ret, struct error *err);

/* Are people asked who they are? */
bool glance_asks(const struct glance *g);

/* Calls @each with the id and the name ("" for none) of those images. */
int glance_each_image(struct glance *g, unsigned int max,
		      int (*each)(void *opaque, const char *id,
				  const char *name),
		      void *opaque);

#endif
