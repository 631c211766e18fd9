/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What /v2/cache tells of. Glance copies images from its stores to a folder of
 * each server; the stores here are such folders, so that there is nothing to copy.
 * What is kept, in memory, is who has been wanted, and how often: the last
 * CACHE_LIST_MAX of them. Who asks for an image to be cached sees it queued for
 * CACHE_QUEUED_SEC, as clients expect of a queue that is worked off at intervals, or
 * until it is downloaded.
 */
#ifndef GLANCE_CACHE_LIST_H
#define GLANCE_CACHE_LIST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

#define CACHE_LIST_MAX	 1024U
#define CACHE_QUEUED_SEC 2U

struct cache_list; /* any thread */

int cache_list_new(struct cache_list **ret, struct error *err);
void cache_list_free(struct cache_list *c); /* NULL is fine */

/* Image @id, of @bytes, is wanted; @hit: its data were sent. */
void cache_list_enter(struct cache_list *c, const char *id, uint64_t bytes,
		      bool hit);
/* False: it was not there. */
bool cache_list_drop(struct cache_list *c, const char *id);
void cache_list_clear(struct cache_list *c, bool cached, bool queued);
/* As the API has them, both lists; NULL: no memory. */
json_t *cache_list_json(struct cache_list *c);

#endif
