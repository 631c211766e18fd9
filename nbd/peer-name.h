/* SPDX-License-Identifier: BSD-3-Clause */
/* Who is at the other end of a socket, for people and for peers.h. */
#ifndef NBD_PEER_NAME_H
#define NBD_PEER_NAME_H

#include <stdint.h>
#include <sys/socket.h>

#include "nbd/peers.h"

struct peer_names {
	char text[128];
	char identity[PEER_BYTES_MAX];
};

/* @pid: of who connected by a unix socket; <= 0: unknown. */
void peer_name(const struct sockaddr_storage *sa, socklen_t len, int64_t pid,
	       struct peer_names *ret);

#endif
