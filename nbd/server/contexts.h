/* SPDX-License-Identifier: BSD-3-Clause */
/* Options LIST_META_CONTEXT and SET_META_CONTEXT; see nbd/context.h. */
#ifndef NBD_SERVER_CONTEXTS_H
#define NBD_SERVER_CONTEXTS_H

#include <stdbool.h>

#include "nbd/server/option.h"

/* False: the client ends. */
bool contexts_take(struct client *c, const struct option *o);

#endif
