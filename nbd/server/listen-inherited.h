/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets that somebody else has made: systemd, as sd_listen_fds(3) says. */
#ifndef NBD_SERVER_LISTEN_INHERITED_H
#define NBD_SERVER_LISTEN_INHERITED_H

#include "nbd/server/listen.h"

/*
 * 1: there are such sockets for this process, and @ret has them; 0: there are
 * none. A file that belongs to one stays at the end, for it is not ours. What is
 * no stream socket that listens is -EINVAL. The environment that names them is
 * gone afterwards.
 */
int listen_inherited(struct listener *ret, struct error *err);

#endif
