/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets that somebody else has made: systemd, as sd_listen_fds(3) says. */
#ifndef NBD_SERVER_LISTEN_INHERITED_H
#define NBD_SERVER_LISTEN_INHERITED_H

#include <stdbool.h>
#include <stdio.h>

#include "nbd/server/listen.h"

/*
 * 1: there are such sockets for this process, and @l, empty before, has them; 0:
 * there are none. A file that belongs to one stays at the end, for it is not ours. What is
 * no stream socket that listens is -EINVAL. The environment that names them is
 * gone afterwards.
 */
int listen_inherited(struct listener *l, struct error *err);

/*
 * Writes down @l for who runs in this process' place, where the descriptors are
 * the same, and reads that. @text is changed. false: it is no such text, and @l,
 * empty before, is not to be used.
 */
void listener_write(const struct listener *l, FILE *fp);
bool listener_read(struct listener *l, char *text);

#endif
