/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An index that takes the place of the one that is there, or is not: out of a
 * backup, or out of the data and their sidecars. It is made beside, as
 * STORE_INDEX_NEW, and swapped in at once; the old one stays beside it. With
 * the store's lock.
 */
#ifndef GLANCE_REBUILD_H
#define GLANCE_REBUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "glance/index.h"
#include "glance/store.h"

enum rebuild_event {
	REBUILD_KEPT, /* as the old index had it */
	REBUILD_MADE, /* from its sidecar */
	REBUILD_UPDATED, /* the old index was older than its sidecar */
	REBUILD_UNPROVEN, /* private: nobody knows whether that is current */
	REBUILD_BARE, /* private: there is no sidecar that could be read */
	REBUILD_MISMATCH, /* deactivated: other data than were digested */
	REBUILD_UNREADABLE, /* deactivated: the data cannot be read */
	REBUILD_LEFT, /* a file that becomes no image */
	REBUILD_EVENTS,
};

const char *rebuild_event_name(enum rebuild_event e);

struct rebuild_options {
	/* Of each that is out of the common; @id may be a file's name. */
	void (*tell)(void *opaque, enum rebuild_event e, const char *id,
		     const char *why);
	void (*progress)(void *opaque, uint64_t done_bytes, uint64_t all_bytes);
	bool (*stop)(void *opaque); /* true ends it with -ECANCELED */
	void *opaque;
};

struct rebuild_result {
	uint64_t events[REBUILD_EVENTS];
	uint64_t no_data; /* images whose data are missing */
	char replaced[128]; /* the old index's name; "": there was none */
	char unused[256]; /* why nothing of it was taken; "": it was */
};

/*
 * The rows of the old index, where that is sound, and one for each file of data
 * that it does not know. All data are digested and compared.
 */
int rebuild(struct store *s, const struct rebuild_options *o,
	    struct rebuild_result *ret, struct error *err);

/* @file: a backup. -EUCLEAN: it is damaged, or no index. */
int rebuild_restore(struct store *s, const char *file,
		    struct rebuild_result *ret, struct error *err);

/*
 * Digests the data of each image, and compares them with what the index has:
 * REBUILD_KEPT, REBUILD_MISMATCH or REBUILD_UNREADABLE. Beside a server, too.
 */
int rebuild_compare(struct store *s, struct index *ix,
		    const struct rebuild_options *o, struct rebuild_result *ret,
		    struct error *err);

#endif
