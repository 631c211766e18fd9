/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections of the server to itself: the image service hands a client who
 * asked by HTTP through to NBD (glance.h, struct nbd_door). Who has come this
 * way is known by the address of his end of the connection; nobody else can
 * have that while it is open.
 */
#ifndef NBD_BRIDGE_H
#define NBD_BRIDGE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "iouring/error.h"

/*
 * Finds out where nbdkit listens: a socket that listens and is none of @ours.
 * After the fork, when nbdkit has bound its sockets.
 */
void bridge_find_server(const int *ours, size_t n_ours);

/* As struct nbd_door has them. */
int bridge_connect(const char *id, const char *grant, const char *peer,
		   int *ret_fd, struct error *err);
void bridge_close(int fd);

#define BRIDGE_NAME_BYTES 1024
#define BRIDGE_PEER_BYTES 80

/* What a client who came this way may open, and who he is. */
struct bridged {
	char export[BRIDGE_NAME_BYTES]; /* "ID~GRANT" */
	char peer[BRIDGE_PEER_BYTES];
};

/* Did the client at address @sa come this way? */
bool bridge_lookup(const struct sockaddr_storage *sa, socklen_t len,
		   struct bridged *ret);

#endif
