/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that serve NBD: each has sockets, buffers and a queue of its own, and
 * waits for all of them at once. A client stays with the loop that he was given
 * to, which is the one with the fewest.
 */
#ifndef NBD_SERVER_LOOP_H
#define NBD_SERVER_LOOP_H

#include "nbd/server/tls.h"
#include "nbd/service.h"
#include "nbd/session.h"

struct loops;

struct loops_options {
	unsigned int n; /* threads */
	const int *listen_fds; /* they stay the caller's */
	unsigned int n_listen_fds;
	const struct service *service;
	struct tls_keys *tls; /* the caller's; NULL: TLS is not offered */
	bool tls_required;
	void (*tell)(const struct fault *f); /* any thread */
};

int loops_start(const struct loops_options *o, struct loops **ret,
		struct error *err);

/*
 * Takes no more clients and no more requests, answers what is under way, for
 * a while, and ends the threads.
 */
void loops_stop(struct loops *l);

/*
 * Gives a loop the socket @fd, which it owns from then on, also on failure, and
 * which may open @export alone. @peer: who is at its other end. Any thread.
 */
int loops_hand(struct loops *l, int fd, const char *export, const char *peer,
	       struct error *err);

#endif
