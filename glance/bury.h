/* SPDX-License-Identifier: BSD-3-Clause */
/* What is deleted while the server runs. */
#ifndef GLANCE_BURY_H
#define GLANCE_BURY_H

#include "glance/glance.h"

/*
 * The data of image @id, whose record_delete() is durable. Its tombstone goes
 * some time later, with others.
 */
void glance_bury(struct glance *g, const char *id);

/*
 * -EEXIST: there are data of an image @id that the index does not know, and
 * that whoever makes another would get hold of.
 */
int glance_check_id(const struct glance *g, const char *id, struct error *err);

/* g->graves; -ENOMEM. At the end the last tombstones go; NULL is fine. */
int graves_new(struct graves **ret, struct error *err);
void graves_end(struct glance *g);

#endif
