/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients who write to an overlay of their connection alone. It is gone with
 * the server; one who comes again to the next would find an older disk, and is
 * refused.
 *
 * NBD clients have no names. Who comes by a unix socket is told by his process,
 * who comes by TCP by his address alone: so nobody of that address is let in any
 * more until "platter serve" itself is started anew.
 */
#ifndef NBD_PEERS_H
#define NBD_PEERS_H

#include <stdbool.h>

#include "iouring/error.h"

#define PEER_BYTES_MAX 112U /* of an identity, its end included */
#define PEERS_MAX      16384U

/*
 * Takes the file @fd over, in which servers before this one have written; -1:
 * there is none, and nobody is refused.
 */
int peers_use(int fd, struct error *err);

/*
 * From here on @peer has something to lose, until peers_drop(*ret). -1 where
 * there is no file. Any thread. -ENOSPC: there are too many.
 */
int peers_add(const char *peer, int *ret, struct error *err);
void peers_drop(int slot); /* -1 is fine */

/* Had he something to lose when a server died? */
bool peers_has_lost(const char *peer);

#endif
