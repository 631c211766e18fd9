/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's file descriptors. Clients get what there is but for a reserve,
 * so that the control socket, the image service and those who are connected go on
 * when there are none for another client.
 */
#ifndef NBD_DESCRIPTORS_H
#define NBD_DESCRIPTORS_H

#include <stdbool.h>

#include "iouring/error.h"

/*
 * Raises the limit as far as it may be, up to 524,288. Children get the old one
 * back, so a process that goes on in a child must call this there again. While
 * there is one thread.
 */
void descriptors_raise(void);

/* How many there may be. */
unsigned long descriptors_max(void);

/*
 * Are there some left for one more client, or, @more, for what a client opens
 * beside his connection? -EMFILE: only the reserve. Any thread; two system calls.
 */
int descriptors_check(bool more, struct error *err);

#endif
