/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an image may be said to be, and when it may be active: the one decision
 * for every dialect of the API, for imports, scans and locations. Whatever they
 * allow themselves, no change comes into the index that this refuses:
 * record_insert() and record_update() ask.
 */
#ifndef GLANCE_ADMIT_H
#define GLANCE_ADMIT_H

#include "glance/record.h"

/* Formats that there are, API v2's and the three of Cyclades; NULL: none yet. */
int admit_formats(const struct record *r, struct error *err); /* -EINVAL */

/*
 * What the data of @r are said to be, as record.seen_as has it; to be freed.
 * NULL: no memory.
 */
char *admit_label(const struct record *r);

/*
 * Nobody looks at the data of @r, which may be others tomorrow: they are a web
 * server's, and are handed on, not opened.
 */
int admit_unseen(struct record *r, struct error *err);

/*
 * May the index have @r where it has @was (NULL: nothing)? An image with data
 * is what was seen of them: a format, a location, and active after it was out
 * of use, are for who has looked at the data for this change, as what they are
 * said to be. -EINVAL: there is no such format; -EPERM.
 */
int admit_change(const struct record *was, const struct record *r,
		 struct error *err);

#endif
