/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens of Keystone (Identity API v3) for who reads from OpenStack's stores: by
 * password, for a project, with where the store is from the catalogue. A token is
 * asked for once for all sources of the same user, and again when a store does not
 * take it any more.
 */
#ifndef IOURING_SOURCES_KEYSTONE_TOKEN_H
#define IOURING_SOURCES_KEYSTONE_TOKEN_H

#include "iouring/sources/credentials.h"

/* Whoever waits for a token; his until done() has been called. */
struct keystone_waiter {
	/* In the engine's thread. @token: NULL: there is none, @err says why. */
	void (*done)(struct keystone_waiter *w, const char *token,
		     const char *endpoint, const struct error *err);
	const char *service; /* type of the store: "object-store", "image" */
	struct keystone_waiter *next;
};

/*
 * Has @w->done() called with a token for @c, which has login and auth of Keystone,
 * other than @stale (NULL: any). @endpoint: the store's, of the catalogue; NULL: it
 * has none. By a holder of the engine (http-engine.h); any thread.
 */
void keystone_token_get(const struct credentials *c, const char *stale,
			struct keystone_waiter *w);

/*
 * The same, waited for: sets @c->token, and @c->endpoint where it is not given.
 * -EACCES: Keystone refuses. -EIO: it cannot be asked. -EINVAL: there is no such
 * store.
 */
int keystone_token_wait(struct credentials *c, const char *service,
			struct error *err);

#endif
