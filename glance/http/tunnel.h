/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tunnels: two stream sockets joined, so that what one end sends, the other
 * receives. Knows neither what is spoken nor by whom. A thread for each, with a
 * buffer a way: an end that does not receive is waited for, and makes the other
 * wait.
 */
#ifndef GLANCE_HTTP_TUNNEL_H
#define GLANCE_HTTP_TUNNEL_H

#include <stddef.h>

#include "iouring/error.h"

/* At a time; HTTP's other requests shall find connections, too. */
#define TUNNELS_MAX 256U

struct tunnels;

struct tunnel_ends {
	int near; /* who asked for it */
	int far;
	/* Called once, after the last byte; closes both. */
	void (*close)(void *opaque);
	void *opaque;
};

int tunnels_new(struct tunnels **ret, struct error *err);
/* Shuts all that there are and waits for their ends. NULL is fine. */
void tunnels_stop(struct tunnels *t);
void tunnels_free(struct tunnels *t); /* after tunnels_stop(); NULL is fine */

unsigned int tunnels_count(struct tunnels *t);

/*
 * A place among TUNNELS_MAX, which tunnel_start() takes, or tunnel_give_back().
 * -EAGAIN: there is none.
 */
int tunnel_reserve(struct tunnels *t, struct error *err);
void tunnel_give_back(struct tunnels *t);

/*
 * Joins them from now on. @first: what @near has sent already. Does not fail:
 * where there is no thread or no memory, both ends are closed.
 */
void tunnel_start(struct tunnels *t, const struct tunnel_ends *ends,
		  const void *first, size_t first_bytes);

#endif
