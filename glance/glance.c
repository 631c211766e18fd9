/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "glance/glance.h"
#include "glance/routes.h"

static int open_index(struct glance *g, struct error *err)
{
	return index_open(store_index_path(g->store), &g->index, err);
}

int glance_prepare(const struct glance_config *c, struct glance **ret,
		   struct error *err)
{
	struct glance *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return error_set(err, -ENOMEM, 0, "out of memory");
	g->config = c;
	r = store_open(c->store, &g->store, err);
	if (r >= 0)
		r = open_index(g, err);
	if (r >= 0) {
		index_close(TAKE_PTR(g->index));
		if (c->listen)
			r = http_listen(
				&(struct http_config){ .listen = c->listen,
						       .cert_file = c->cert,
						       .key_file = c->key },
				&g->http, err);
	}
	if (r >= 0 && g->http)
		r = auth_new(c->auth, http_is_local(g->http), &g->auth, err);
	if (r < 0) {
		glance_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

int glance_start(struct glance *g, struct error *err)
{
	const struct http_app app = { .begin = routes_begin,
				      .finish = routes_finish,
				      .opaque = g };
	int r = open_index(g, err);

	if (r >= 0 && g->http)
		r = http_start(g->http, &app, err);
	return r;
}

void glance_free(struct glance *g)
{
	if (!g)
		return;
	http_free(g->http);
	auth_free(g->auth);
	index_close(g->index);
	store_close(g->store);
	free(g);
}
