/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QEMU's monitor by JSON ("QMP", docs/interop/qmp-spec of the QEMU project), as
 * far as moving a disk takes it: a command and its answer; events are passed over.
 * Who is at the other end is as trusted as the guest that it runs: what it sends
 * is bounded. One thread.
 */
#ifndef NBD_CMD_QMP_H
#define NBD_CMD_QMP_H

#include <jansson.h>

#include "iouring/error.h"

struct qmp;

/* The unix socket @path, on which nobody else is. */
int qmp_open(const char *path, struct qmp **ret, struct error *err);
void qmp_close(struct qmp *q); /* NULL is fine */
void qmp_closep(struct qmp **q);

/*
 * Runs @command with @args, which may be NULL and are dropped. *ret_answer, which
 * may be NULL, is the caller's. -EIO: it failed, in QEMU's words, or QEMU is gone,
 * -EPIPE.
 */
int qmp_run(struct qmp *q, const char *command, json_t *args,
	    json_t **ret_answer, struct error *err);

#endif
