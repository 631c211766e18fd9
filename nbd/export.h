/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exports: names that NBD clients open (export-name.h), and the images behind
 * them. All connections to one export share one image. Served are "" and
 * "@SNAPSHOT", of the one image of the command line.
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "formats/image.h"
#include "nbd/config.h"

struct export
{
	struct image *image;
	char *name; /* as the client gave it */
	char *snapshot; /* decoded; NULL: the live state */
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
 * top layer is @top, until it returns non-zero, and returns that. At most @max.
 */
int export_list(struct layer *top, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque);

#endif
