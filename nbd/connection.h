/* SPDX-License-Identifier: BSD-3-Clause */
/* A client's connection to an export. */
#ifndef NBD_CONNECTION_H
#define NBD_CONNECTION_H

#include <time.h>

#include "nbd/context.h"
#include "nbd/export.h"

struct connection;

/*
 * Who is at the other end; strings are copied. Text is for people; identity is
 * what tells him from others when he comes again, see peers.h.
 */
struct peer {
	const char *text, *identity;
};

/*
 * Opens export @name for a client. *ret is the caller's to connection_close(),
 * when no request is under way. -EPERM: what he wrote is lost. -ESTALE: the
 * overlay has a later epoch than @name.
 */
int connection_open(const struct config *c, const char *name,
		    const struct peer *peer, struct connection **ret,
		    struct error *err);
void connection_close(struct connection *c);

/*
 * The export, which stays until connection_leave(); NULL: it was shut, and
 * there is nothing to leave.
 */
struct export *connection_enter(struct connection *c);
void connection_leave(struct connection *c);

/*
 * Before a change of the export, by who has entered: its client has something
 * to lose from then on. -ESHUTDOWN: he is fenced off. One of a later epoch than the
 * overlay's fences all others off, which may wait for them, and for disks.
 */
int connection_will_change(struct connection *c, struct error *err);
void connection_has_changed(struct connection *c); /* after it, if it was let */

/*
 * Hands @x, a context of the connection's export, to it, by who has entered: it is
 * closed with it, or when it is shut. There are fewer than CONTEXTS_MAX.
 */
void connection_keep_context(struct connection *c, struct context *x);
/* Closes them, while no request is under way. */
void connection_drop_contexts(struct connection *c);

/* What a connection looks like from outside. */
struct connection_info {
	const char *export; /* its name */
	const char *peer;
	time_t since;
	unsigned int requests; /* under way */
	uint64_t epoch; /* that he came with */
};

/*
 * The overlay of @e, which takes writes, is at @epoch when it returns 0, durably:
 * see overlay_fence(). @e's holder need not be a client.
 */
int connection_fence(struct export *e, uint64_t epoch, struct error *err);

/* Calls @each with every connection. */
void connection_each(int (*each)(void *opaque, const struct connection_info *i),
		     void *opaque);

/*
 * Shuts all connections to the export @name: waits for requests under way, and
 * lets go of it. Returns how many there were.
 */
unsigned int connection_shut(const char *name);

#endif
