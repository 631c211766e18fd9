/* SPDX-License-Identifier: BSD-3-Clause */
/* The server that `platter serve` runs, in a process of its own. */
#ifndef NBD_SERVER_SERVER_H
#define NBD_SERVER_SERVER_H

#include "nbd/server/listen.h"
#include "nbd/server/tls.h"

struct server_options {
	const struct listener *listener;
	unsigned int loops; /* threads that have clients; 0: one a processor */
	unsigned int per_client; /* requests of one that may wait at a time */
	struct tls_options tls;
	const char *pidfile; /* written when it serves; NULL: none */
	char **params; /* "KEY=VALUE" */
	size_t n_params;
};

/* Serves until SIGTERM, SIGINT, SIGQUIT or SIGHUP. The process's exit status. */
int server_run(const struct server_options *o);

#endif
