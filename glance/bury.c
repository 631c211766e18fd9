/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glance/bury.h"
#include "glance/cache-list.h"
#include "glance/log.h"
#include "glance/stores.h"
#include "glance/tombstone.h"

/* Tombstones that go together. */
#define GRAVES_MAX 64U

struct graves {
	pthread_mutex_t lock; /* of the ids */
	char ids[GRAVES_MAX][37];
	size_t n;
};

static int drop_tombstones(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct graves *v = opaque;
	int r = 0;
	size_t i;

	for (i = 0; i < v->n && r >= 0; i++)
		r = tombstone_drop(tx, TOMBSTONE_GONE, v->ids[i], err);
	return r;
}

/* What was removed stays so; only then nobody need know of it any more. */
static void forget(struct glance *g, const struct graves *v)
{
	struct error err = { 0 };
	int r = stores_sync(g, &err);

	if (r >= 0)
		r = index_write(g->index, drop_tombstones, (void *)(uintptr_t)v,
				&err);
	if (r < 0)
		log_line("store: %s", err.msg);
}

void glance_bury(struct glance *g, const char *id)
{
	struct graves *v = g->graves, full = { .n = 0 };

	stores_remove(g, id);
	if (g->cached)
		cache_list_drop(g->cached, id);
	store_discard(g->store, STORE_STAGING, id);
	pthread_mutex_lock(&v->lock);
	snprintf(v->ids[v->n++], sizeof(*v->ids), "%s", id);
	if (v->n == GRAVES_MAX) {
		memcpy(full.ids, v->ids, sizeof(v->ids));
		full.n = v->n;
		v->n = 0;
	}
	pthread_mutex_unlock(&v->lock);
	if (full.n)
		forget(g, &full);
}

int glance_check_id(const struct glance *g, const char *id, struct error *err)
{
	if (!stores_have(g, id) &&
	    !store_file_is(g->store, id, STORE_SIDECAR) &&
	    !store_has_staged(g->store, id))
		return 0;
	return error_set(err, -EEXIST, 0, "Image ID %s already exists!", id);
}

int graves_new(struct graves **ret, struct error *err)
{
	struct graves *v = calloc(1, sizeof(*v));

	if (!v)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&v->lock, NULL);
	*ret = v;
	return 0;
}

void graves_end(struct glance *g)
{
	struct graves *v = TAKE_PTR(g->graves);

	if (!v)
		return;
	if (v->n)
		forget(g, v);
	pthread_mutex_destroy(&v->lock);
	free(v);
}
