/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store at its server's start.
 *
 * What tombstones name is removed, and nothing else. What the index does not
 * know stays where it is, and is named: the index may be older than the data.
 */
#ifndef GLANCE_RECOVER_H
#define GLANCE_RECOVER_H

#include "glance/glance.h"

/*
 * With the store's lock, before anything: may a server begin here? An index is
 * made where there is nothing. -EUCLEAN: there are data, and no index that
 * could know them, in one line that says what to do.
 */
int recover_check(struct store *s, struct error *err);
/* With the index open, before anybody is answered. */
int recover(struct glance *g, struct error *err);
void recover_end(struct glance *g); /* before the index is closed */

/* For programs beside the server: the store's index, if it may be made. */
int recover_open_index(struct store *s, struct index **ret, struct error *err);

#endif
