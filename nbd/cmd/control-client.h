/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking a running server by its control socket (nbd/control.h). */
#ifndef NBD_CMD_CONTROL_CLIENT_H
#define NBD_CMD_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "iouring/error.h"

/* *ret is the caller's to fclose(); NULL, with @err: nobody listens there. */
FILE *control_connect(const char *path, struct error *err);

/* The epoch that a word of the command line is: digits, and not over the most. */
bool control_epoch(const char *text, uint64_t *ret);

/*
 * One question, which is dropped, to a server that was connected to, called @path in
 * messages, and its answer, which is the caller's; NULL, with @err: there is none, or
 * it tells what is wrong.
 */
json_t *control_talk(FILE *fp, json_t *ask, const char *path,
		     struct error *err);

/*
 * Asks who listens on @path, drops @ask, and waits for the answer, which is the
 * caller's; how far it is is shown, as @what, unless @quiet. NULL, with @err: it failed, or
 * the server says so.
 */
json_t *control_ask(const char *path, json_t *ask, const char *what, bool quiet,
		    struct error *err);

#endif
