/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exports: names that NBD clients open (export-name.h), and the images behind
 * them. All connections to one export share one image; the states of an image
 * (formats/history.h) and the differences between them share its layers.
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "formats/difference.h"
#include "formats/history.h"
#include "formats/image.h"
#include "nbd/config.h"

struct export
{
	struct image *image; /* what is read */
	struct image *from; /* of a difference that ends there; or NULL */
	char *name; /* however the client spelled it */
	bool live; /* else a snapshot, a layer, or a difference */
	unsigned int refs;
	struct export *next;
};

/*
 * Opens export @name, or joins those who have it open. Names are checked;
 * one that there is not is -ENOENT.
 */
int export_open(const struct config *c, const char *name, struct export **ret,
		struct error *err);
void export_close(struct export *e);

/* Closes what is still open, at the server's end. */
void export_close_all(void);

/*
 * Calls @each with the name and description of each export of an image whose
 * layers are @c, until it returns non-zero, and returns that. At most @max.
 */
int export_list(const struct chain *c, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque);

/* The name of the export of that state; NULL: see export_name_format(). */
char *export_state_name(const struct history_state *s);

#endif
