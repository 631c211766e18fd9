/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks a running server by its control socket (nbd/control.h). */
#ifndef NBD_CMD_CONTROL_CLIENT_H
#define NBD_CMD_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "iouring/error.h"

/*
 * Asks, drops @ask, and takes the answer, the caller's. NULL: it failed, or the
 * server says so. @what: is called so while it shows how far it is, unless @quiet.
 */
json_t *control_ask(const char *path, json_t *ask, const char *what, bool quiet,
		    struct error *err);

#endif
