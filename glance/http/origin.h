/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where nobody is asked who he is, a browser that can reach the server is as
 * good as its user, whatever page it shows. What such a page makes it send has
 * the page's own address in Origin, and, where a name of the page's has been
 * made to lead here (DNS rebinding), that name in Host.
 */
#ifndef GLANCE_HTTP_ORIGIN_H
#define GLANCE_HTTP_ORIGIN_H

#include <stdbool.h>

#include "iouring/error.h"

/*
 * May @host ("NAME", "NAME:PORT") be meant for a server on this machine's
 * loopback addresses? Such an address, localhost and what ends in .localhost
 * may, and what is in @names (by commas; NULL: nothing).
 */
bool origin_host_ok(const char *host, const char *names);

/*
 * Is @origin ("SCHEME://NAME:PORT", "null") what @host names? The port that is
 * the scheme's own may be left out of both.
 */
bool origin_is_host(const char *origin, const char *host);

struct origin_rules {
	bool check_host; /* else it may be anything */
	const char *names; /* see origin_host_ok() */
};

/* @host, @origin: headers; NULL: absent, which is fine. -EPERM: refused. */
int origin_check(const struct origin_rules *r, const char *host,
		 const char *origin, struct error *err);

#endif
