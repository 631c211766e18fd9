/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What outlives a server: nameless files that "platter serve" opens and each
 * server that it starts inherits. A server that was not started by it has none.
 */
#ifndef NBD_KEEP_H
#define NBD_KEEP_H

#include "iouring/error.h"

enum keep {
	KEEP_DISK, /* of the temporary overlay */
	KEEP_LOG, /* its log */
	KEEP_PEERS, /* who writes to an overlay of his connection alone */
	KEEP_FILES
};

/* Where the disk of a temporary overlay lies. */
const char *keep_folder(void);

/* Opens them; *ret are the caller's to keep_done(). */
int keep_open(int ret[KEEP_FILES], struct error *err);
void keep_done(int fds[KEEP_FILES]);

/*
 * In a child that is about to become a server: the descriptors @fds are from
 * @first on then, and the environment says so. Returns 0 or -1.
 */
int keep_hand_on(const int fds[KEEP_FILES], int first);

/* In a server, once, before it has threads: takes what was handed on. */
void keep_take(void);
int keep_fd(enum keep which); /* -1: there is none */

#endif
