/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Option STARTTLS: from its coming until the client goes on with options, as if
 * he had sent none before. Workers do the arithmetic.
 */
#ifndef NBD_SERVER_STARTTLS_H
#define NBD_SERVER_STARTTLS_H

#include "nbd/server/option.h"

/* False: the client ends. */
bool starttls_take(struct client *c, const struct option *o);

/*
 * PHASE_TLS: goes on with the handshake, if the answer to the option has gone,
 * nobody is at it, and there is nothing to be waited for (tls_events).
 */
void starttls_go_on(struct client *c);

#endif
