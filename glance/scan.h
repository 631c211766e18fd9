/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images that lie in a folder already: each file that is one becomes an image
 * of the index, in place. Nothing is moved, written or removed there.
 *
 * Such an image has a location of the store SCAN_STORE, whose metadata have
 * what the file looked like ("size", "mtime" in ns), and "missing" once it has
 * gone: the image is deactivated then, with the property SCAN_MISSING, until
 * its file is there again. One that was deleted by the API stays so while its
 * file stays as it was: the id is made of that (see record_insert()).
 *
 * Left out are hidden names, links, the store's own files, what a program has
 * open for writing, raw disks whose names end in neither .raw, .img nor .iso,
 * and what is no image, or refers to others.
 */
#ifndef GLANCE_SCAN_H
#define GLANCE_SCAN_H

#include "glance/record.h"

#define SCAN_STORE     LOCATION_FOUND
#define SCAN_MISSING   "platter_missing"
#define SCAN_DEPTH_MAX 8U

enum scan_event {
	SCAN_NEW,
	SCAN_CHANGED, /* the file is another than it was */
	SCAN_GONE,
	SCAN_BACK,
	SCAN_REFUSED, /* looks like an image, and cannot be one */
	SCAN_EVENTS,
};

const char *scan_event_name(enum scan_event e);

struct scan_options {
	const char *store; /* the folder whose own files are left out */
	const char *owner; /* of new images; NULL: nobody's */
	enum image_visibility visibility;
	/* Optional. @id: NULL where refused; @why: only there. */
	void (*tell)(void *opaque, enum scan_event e, const char *path,
		     const char *id, const char *why);
	/* Optional: each folder that was looked into. */
	void (*folder)(void *opaque, const char *path);
	void *opaque;
};

struct scan_result {
	unsigned int known; /* as they were */
	unsigned int events[SCAN_EVENTS];
};

/* Looks through @folder and below, and brings the index up to date. */
int scan(struct index *ix, const char *folder, const struct scan_options *o,
	 struct scan_result *ret, struct error *err);

/* ---- and again, whenever something changes ---- */

struct scanner;

/* Scans the store's folder, and goes on in a thread. */
int scanner_start(struct index *ix, const char *store, struct scanner **ret,
		  struct error *err);
void scanner_stop(struct scanner *s); /* NULL is fine */

#endif
