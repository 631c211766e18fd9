/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which of the stores have an image's data: what its locations say
 * (record_is_in()). A copy comes, or goes, under a tombstone: should the server
 * end in between, then what no location names is removed at the next start,
 * and what one names is whole.
 */
#ifndef GLANCE_COPIES_H
#define GLANCE_COPIES_H

#include "glance/glance.h"
#include "glance/record.h"

/*
 * Removes the data of image @id that no location of it names, for which there
 * is a TOMBSTONE_COPY. Who reads them reads on. What goes wrong is logged, and
 * done at the next start.
 */
void copies_sweep(struct glance *g, const char *id);
/* The same in a change that has the tombstones yet, at the start. */
int copies_drop(struct glance *g, struct index_tx *tx, const char *id,
		struct error *err);

#endif
