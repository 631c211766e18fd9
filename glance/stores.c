/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/stores.h"

static struct store *nth(const struct glance *g, size_t i)
{
	return i ? g->more_stores[i - 1] : g->store;
}

static size_t count(const struct glance *g)
{
	return 1 + g->config->n_more_stores;
}

int stores_open(struct glance *g, struct error *err)
{
	const struct glance_config *c = g->config;
	size_t i;
	int r = 0;

	for (i = 0; i < c->n_more_stores && r >= 0; i++) {
		r = store_open(c->more_stores[i].path, &g->more_stores[i], err);
		if (r >= 0)
			r = store_lock(g->more_stores[i], err);
		if (r >= 0)
			r = store_clean(g->more_stores[i], err);
	}
	return r;
}

int stores_lock_in_server(struct glance *g, struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < count(g) && r >= 0; i++)
		r = store_lock_in_server(nth(g, i), err);
	return r;
}

void stores_close(struct glance *g)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(g->more_stores); i++)
		store_close(g->more_stores[i]);
	store_close(g->store);
}

bool stores_many(const struct glance *g)
{
	return g->config->n_more_stores;
}

const char *stores_key(const struct glance *g, size_t i)
{
	if (i >= count(g))
		return NULL;
	return i ? g->config->more_stores[i - 1].name : "";
}

const char *stores_name(const struct glance *g, const char *key)
{
	if (*key)
		return key;
	return g->config->store_name ? g->config->store_name : "file";
}

const char *stores_key_of(const struct glance *g, const char *name)
{
	size_t i;

	for (i = 0; i < count(g); i++)
		if (!strcmp(stores_name(g, stores_key(g, i)), name))
			return stores_key(g, i);
	return NULL;
}

struct store *stores_find(const struct glance *g, const char *key)
{
	size_t i;

	for (i = 0; i < count(g); i++)
		if (!strcmp(stores_key(g, i), key))
			return nth(g, i);
	return NULL;
}

bool stores_have(const struct glance *g, const char *id)
{
	size_t i;

	for (i = 0; i < count(g); i++)
		if (store_file_is(nth(g, i), id, STORE_DATA))
			return true;
	return false;
}

void stores_remove(const struct glance *g, const char *id)
{
	size_t i;

	/* The first has what says that they are an image's. */
	for (i = count(g); i--;)
		store_remove(nth(g, i), id);
}

int stores_sync(const struct glance *g, struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < count(g) && r >= 0; i++)
		r = store_sync_all(nth(g, i), err);
	return r;
}
