/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The folders that images may lie in. The first is the default; the index, the
 * sidecars and what is staged are there alone. Inside, a store is known by its
 * key: "" for the first, so that it may be given a name later, else its name.
 */
#ifndef GLANCE_STORES_H
#define GLANCE_STORES_H

#include "glance/glance.h"

/* Opens those that the configuration has beside the first, and locks them. */
int stores_open(struct glance *g, struct error *err);
int stores_lock_in_server(struct glance *g, struct error *err);
void stores_close(struct glance *g);

/* Is there more than one? Else clients hear of none. */
bool stores_many(const struct glance *g);
/* Of the @i-th, 0 is the first; NULL: there are fewer. */
const char *stores_key(const struct glance *g, size_t i);
/* What clients call it; for any key. */
const char *stores_name(const struct glance *g, const char *key);
/* NULL: there is none of that name. */
const char *stores_key_of(const struct glance *g, const char *name);
/* NULL: there is none with that key (any more). */
struct store *stores_find(const struct glance *g, const char *key);

/* Has any of them data of @id? */
bool stores_have(const struct glance *g, const char *id);
/* As store_remove() and store_sync_all(), in all of them. */
void stores_remove(const struct glance *g, const char *id);
int stores_sync(const struct glance *g, struct error *err);

#endif
