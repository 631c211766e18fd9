/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glance/cache-list.h"
#include "glance/time-text.h"

struct entry {
	char id[37];
	uint64_t bytes, hits;
	int64_t entered_usec, used_usec;
	bool asked; /* for, and not downloaded since */
};

struct cache_list {
	pthread_mutex_t lock; /* of all below */
	struct entry of[CACHE_LIST_MAX];
	size_t n;
};

int cache_list_new(struct cache_list **ret, struct error *err)
{
	struct cache_list *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&c->lock, NULL);
	*ret = c;
	return 0;
}

void cache_list_free(struct cache_list *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct entry *find(struct cache_list *c, const char *id)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		if (!strcmp(c->of[i].id, id))
			return &c->of[i];
	return NULL;
}

/* The one that was wanted longest ago makes room. */
static struct entry *make_room(struct cache_list *c)
{
	struct entry *oldest = c->of;
	size_t i;

	if (c->n < CACHE_LIST_MAX)
		return &c->of[c->n++];
	for (i = 1; i < c->n; i++)
		if (c->of[i].used_usec < oldest->used_usec)
			oldest = &c->of[i];
	return oldest;
}

static bool is_queued(const struct entry *e, int64_t now)
{
	return e->asked &&
	       now - e->entered_usec < (int64_t)CACHE_QUEUED_SEC * 1000000;
}

/* The first download only brings it in. */
void cache_list_enter(struct cache_list *c, const char *id, uint64_t bytes,
		      bool hit)
{
	int64_t now = time_now_usec();
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	e = find(c, id);
	if (!e) {
		e = make_room(c);
		*e = (struct entry){ .bytes = bytes,
				     .entered_usec = now,
				     .used_usec = now,
				     .asked = !hit };
		snprintf(e->id, sizeof(e->id), "%s", id);
	} else if (hit) {
		e->asked = false;
		e->hits++;
		e->used_usec = now;
	}
	pthread_mutex_unlock(&c->lock);
}

bool cache_list_drop(struct cache_list *c, const char *id)
{
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	e = find(c, id);
	if (e)
		*e = c->of[--c->n];
	pthread_mutex_unlock(&c->lock);
	return e;
}

void cache_list_clear(struct cache_list *c, bool cached, bool queued)
{
	int64_t now = time_now_usec();
	size_t i, n = 0;

	pthread_mutex_lock(&c->lock);
	for (i = 0; i < c->n; i++)
		if (is_queued(&c->of[i], now) ? !queued : !cached)
			c->of[n++] = c->of[i];
	c->n = n;
	pthread_mutex_unlock(&c->lock);
}

static json_t *entry_json(const struct entry *e)
{
	return json_pack("{s:s, s:I, s:f, s:f, s:I}", "image_id", e->id, "hits",
			 (json_int_t)e->hits, "last_accessed",
			 (double)e->used_usec / 1e6, "last_modified",
			 (double)e->entered_usec / 1e6, "size",
			 (json_int_t)e->bytes);
}

json_t *cache_list_json(struct cache_list *c)
{
	json_t *cached = json_array(), *queued = json_array();
	int64_t now = time_now_usec();
	const struct entry *e;
	size_t i;

	pthread_mutex_lock(&c->lock);
	for (i = 0; i < c->n; i++) {
		e = &c->of[i];
		if (is_queued(e, now))
			json_array_append_new(queued, json_string(e->id));
		else
			json_array_append_new(cached, entry_json(e));
	}
	pthread_mutex_unlock(&c->lock);
	return json_pack("{s:o, s:o}", "cached_images", cached, "queued_images",
			 queued);
}
