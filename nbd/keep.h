/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What outlives a server: nameless files that "platter serve" opens and each
 * server that it starts inherits. A server that was not started by it has none.
 */
#ifndef NBD_KEEP_H
#define NBD_KEEP_H

#include <stddef.h>

#include "iouring/error.h"

/* Two files each are kept of at most that many temporary overlays. */
#define KEEP_OVERLAYS_MAX 100U
#define KEEP_FILES_MAX	  (1 + 2 * KEEP_OVERLAYS_MAX)

/*
 * The first, of clients who write to an overlay of their connection alone; then
 * the disk and the log of each temporary overlay. { 0 }: there are none.
 */
struct keep {
	int *fds;
	size_t n;
};

/* Where the disk of a temporary overlay lies. */
const char *keep_folder(void);

/* Opens those for @overlays; *ret is the caller's to keep_done(). */
int keep_open(size_t overlays, struct keep *ret, struct error *err);
/* Takes over @n descriptors from @fds, as keep_open() made them. */
int keep_adopt(const int *fds, size_t n, struct keep *ret, struct error *err);
void keep_done(struct keep *k);

/*
 * In a child that is about to become a server: the descriptors of @k are from
 * @first on then, and the environment says so. Returns 0 or -1.
 */
int keep_hand_on(const struct keep *k, int first);

/* In a server, once, before it has threads: takes what was handed on. */
void keep_take(void);
/* Each: -1: there is none. */
int keep_peers(void);
int keep_disk(size_t overlay);
int keep_log(size_t overlay);

#endif
