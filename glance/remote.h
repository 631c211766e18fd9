/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data of an image that lie at a web server (LOCATION_HTTP), on their way to a
 * client: a thread of their own asks for them while they are sent. fetch.h has
 * the rules for what may be asked.
 */
#ifndef GLANCE_REMOTE_H
#define GLANCE_REMOTE_H

#include "glance/fetch.h"
#include "glance/http/http.h"

/*
 * [@off, @off + @len), not empty, of @url, as the body of an answer; the first of
 * them are there when this returns. *ret is for respond_producer(). -ENOENT: the
 * web server has them no more; -EIO: they do not come.
 */
int remote_open(const struct fetch_rules *r, const char *url, uint64_t off,
		uint64_t len, struct producer *ret, struct error *err);

#endif
