/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of pages that another server has shown, as Horizon's, which uploads
 * from the browser itself (the Fetch standard, 3.2). What the operator's list
 * does not name is answered as if there were none of this: the browser keeps
 * the answer from the page.
 */
#ifndef GLANCE_HTTP_CORS_H
#define GLANCE_HTTP_CORS_H

#include <stdbool.h>

#include "glance/http/request.h"

/* @origins: "SCHEME://NAME[:PORT]" by commas; NULL: none. -EINVAL: which is not. */
int cors_check(const char *origins, struct error *err);

/* Is @origin, a header's value or NULL, in @origins? */
bool cors_lists(const char *origins, const char *origin);

/*
 * Adds what the browser wants to the answer of @q; answers it where it only
 * asks whether it may send another.
 */
void cors_take(struct request *q, const char *origins);

#endif
