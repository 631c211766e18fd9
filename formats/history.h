/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The states that an image can be read at beside the live one: the snapshots
 * that its file or bundle holds, and the layers below its top, each of which
 * is what the disk was before the layer above was made.
 *
 * A snapshot is called by its id or name, a layer by the name of its file,
 * without folders, or by "#1", "#2", ... from the one below the top downwards.
 * Where a name fits several, snapshots come before layers, "#N" before file
 * names; two layers of one name are called by number alone.
 */
#ifndef FORMATS_HISTORY_H
#define FORMATS_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/image.h"

struct history_state {
	const char *name; /* by which it is opened, and no other */
	const char *format; /* of the layer, or that holds the snapshot */
	uint64_t bytes; /* virtual size of the disk then */
	unsigned int depth; /* of a layer; 0: a snapshot inside the top */
};

/*
 * Calls @each for every state of the image whose layers are @c, snapshots
 * first, until it returns non-zero, and returns that, or 0. Snapshots that
 * cannot be called, for control characters in their names, are left out. A
 * damaged table of snapshots does not hide the layers: it is told at the end.
 */
int history_each(const struct chain *c,
		 int (*each)(void *opaque, const struct history_state *s),
		 void *opaque, struct error *err);

/*
 * Opens the state @name of @live, with what the two have in common shared.
 * @options: those that @live was opened with. One that there is not is
 * -ENOENT.
 */
int history_open(struct image *live, const struct open_options *options,
		 const char *name, struct image **ret, struct error *err);

#endif
