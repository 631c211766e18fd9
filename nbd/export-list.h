/* SPDX-License-Identifier: BSD-3-Clause */
/* What there is to be opened of an image: its states, as exports are named. */
#ifndef NBD_EXPORT_LIST_H
#define NBD_EXPORT_LIST_H

#include "formats/history.h"

struct container;

/*
 * Calls @each with the name and description of each export of image @image (""
 * or that of export=, decoded) whose layers are @c, until it returns non-zero,
 * and returns that. At most @max.
 * Overlays are not among them; see overlays.h.
 */
int export_list(const struct chain *c, const char *image, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque);

/*
 * The same for an image whose file is a container of several disks: their names.
 */
int export_list_members(const struct container *c, const char *image,
			unsigned int max,
			int (*each)(void *opaque, const char *name,
				    const char *description),
			void *opaque);

/* The name of the export of @image's state; NULL: see export_name_format(). */
char *export_state_name(const char *image, const struct history_state *s);

#endif
