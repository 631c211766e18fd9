/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exports: names that NBD clients open, and the images behind them. All
 * connections to one export share one image.
 *
 *	NAME      [@SNAPSHOT]; "" and "@SNAPSHOT" for the one image of the
 *	          command line. '@', '+', '/', '%' inside a part are written
 *	          as %40, %2B, %2F, %25.
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "formats/image.h"
#include "nbd/config.h"

/* As long as the NBD protocol lets a name be. */
#define EXPORT_NAME_MAX 4096

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

/*
 * The name of the export of snapshot @snapshot: "@" and the encoded part.
 * NULL when it is too long, or there is no memory. To be freed.
 */
char *export_snapshot_name(const char *snapshot);

#endif
