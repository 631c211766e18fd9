/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "formats/reference.h"
#include "glance/cache-list.h"
#include "glance/fetch.h"
#include "glance/glance.h"
#include "glance/import.h"
#include "glance/keystone.h"
#include "glance/legacy.h"
#include "glance/limits.h"
#include "glance/locations.h"
#include "glance/recover.h"
#include "glance/routes.h"
#include "glance/scan.h"
#include "glance/stores.h"
#include "glance/task-tokens.h"
#include "glance/http/tunnel.h"
#include "glance/worker.h"

static int open_index(struct glance *g, struct error *err)
{
	return index_open(store_index_path(g->store), &g->index, err);
}

static int open_grant_key(struct glance *g, struct error *err)
{
	CLEANUP(freep) char *path = NULL;

	if (asprintf(&path, "%s/grant.key", g->config->store) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return grant_key_open(path, &g->grant_key, err);
}

static int open_store(struct glance *g, struct error *err)
{
	int r = store_open(g->config->store, &g->store, err);

	if (r >= 0)
		r = store_lock(g->store, err);
	if (r >= 0)
		r = recover_check(g->store, err);
	return r < 0 ? r : stores_open(g, err);
}

static int open_http(struct glance *g, struct error *err)
{
	const struct glance_config *c = g->config;
	const struct http_config http = {
		.listen = c->listen,
		.cert_file = c->cert,
		.key_file = c->key,
		.idle = c->timeout,
		.per_address = c->per_address,
		.proxies = c->proxies,
		.hosts = c->hosts,
		.cors_origins = c->cors_origins,
	};

	return c->listen ? http_listen(&http, &g->http, err) : 0;
}

static int open_observer(struct glance *g, struct error *err)
{
	return observer_new(g->config->access_log, &g->observer, err);
}

static int check_direct_url(struct glance *g, struct error *err)
{
	const char *url = g->config->direct_url;

	if (!url ||
	    ((!strncmp(url, "nbd://", 6) || !strncmp(url, "nbds://", 7)) &&
	     url[strlen(url) - 1] == '/'))
		return 0;
	return error_set(err, -EINVAL, 0,
			 "direct-url: %.128s is neither nbd://HOST:PORT/ nor "
			 "nbds://HOST:PORT/",
			 url);
}

static int open_locations(struct glance *g, struct error *err)
{
	const struct glance_config *c = g->config;

	return location_rules_new(c->store, c->show_locations, c->location_dirs,
				  &g->locations, err);
}

static int open_certificates(struct glance *g, struct error *err)
{
	const char *path = g->config->certificates;
	struct error why = { 0 };

	if (!path || folder_open(path, &g->certificates, &why) >= 0)
		return 0;
	return error_set(err, -EINVAL, 0, "signature-certificates: %s",
			 why.msg);
}

static int open_cache_list(struct glance *g, struct error *err)
{
	return cache_list_new(&g->cached, err);
}

static int open_tunnels(struct glance *g, struct error *err)
{
	return tunnels_new(&g->tunnels, err);
}

static int open_tokens(struct glance *g, struct error *err)
{
	return task_tokens_new(&g->tokens, err);
}

static int open_limits(struct glance *g, struct error *err)
{
	return limits_open(g->config->limits, &g->limits, err);
}

static int open_fetch(struct glance *g, struct error *err)
{
	const struct glance_config *c = g->config;
	int r = fetch_rules_new(c->import_hosts, c->import_ports,
				c->import_nets, &g->fetch, err);

	if (r < 0 || !c->import_min_rate)
		return r;
	return fetch_rules_set_rate(g->fetch, c->import_min_rate, err);
}

static int open_auth(struct glance *g, struct error *err)
{
	const struct glance_config *c = g->config;
	const struct keystone_account account = { c->keystone_user,
						  c->keystone_project,
						  c->keystone_password };
	struct auth_options o = { .account = &account,
				  .service_roles = c->service_roles };

	if (!g->http)
		return 0;
	o.waiters_max = http_connections_max(g->http) / 2;
	return auth_new(c->auth, http_is_local(g->http), &o, &g->auth, err);
}

int glance_prepare(const struct glance_config *c, struct glance **ret,
		   struct error *err)
{
	/* The store first: nothing is said of the rest where it is in use. */
	static int (*const steps[])(struct glance * g, struct error * err) = {
		open_store,    open_http,	  open_grant_key,
		open_observer, check_direct_url,  open_locations,
		open_tunnels,  open_limits,	  open_fetch,
		open_auth,     open_certificates, open_cache_list,
		open_tokens,
	};
	struct glance *g = calloc(1, sizeof(*g));
	size_t i;
	int r;

	if (!g)
		return error_set(err, -ENOMEM, 0, "out of memory");
	g->config = c;
	r = openssl_load(err);
	for (i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++)
		r = steps[i](g, err);
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
				      .done = observe_request,
				      .opaque = g,
				      .unasked =
					      g->auth && !auth_asks(g->auth) };
	int r = stores_lock_in_server(g, err);

	if (r >= 0)
		r = open_index(g, err);
	if (r >= 0)
		r = recover(g, err);
	if (r >= 0)
		r = limits_start(g->limits,
				 g->auth ? auth_keystone(g->auth) : NULL, err);
	if (r >= 0)
		r = scanner_start(g->index, g->config->store, &g->scanner, err);
	if (r >= 0 && g->http)
		r = worker_start(g, import_run, &g->worker, err);
	if (r >= 0 && g->http)
		r = http_start(g->http, &app, err);
	return r;
}

void glance_free(struct glance *g)
{
	if (!g)
		return;
	tunnels_stop(g->tunnels);
	auth_stop(g->auth);
	http_free(g->http);
	tunnels_free(g->tunnels);
	observer_free(g->observer);
	worker_stop(g->worker);
	task_tokens_free(g->tokens);
	scanner_stop(g->scanner);
	fetch_rules_free(g->fetch);
	limits_free(g->limits);
	location_rules_free(g->locations);
	folder_unref(g->certificates);
	cache_list_free(g->cached);
	auth_free(g->auth);
	recover_end(g);
	index_close(g->index);
	stores_close(g);
	free(g);
}

bool glance_asks(const struct glance *g)
{
	/* Without a server for HTTP nobody can say who may see what. */
	return g->auth && auth_asks(g->auth);
}

/* ---- who may open what ---- */
