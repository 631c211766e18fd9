/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IOURING_OWN_FOLDER_H
#define IOURING_OWN_FOLDER_H

#include <sys/types.h>

#include "iouring/error.h"

/*
 * Opens the folder @name, from @at (openat(2)) on, which is made if it is not there.
 * *ret is a descriptor, the caller's. -EPERM: it is not who runs this that owns it, or
 * it has one of the mode's bits @open_to.
 */
int own_folder_open(int at, const char *name, mode_t open_to, int *ret,
		    struct error *err);

#endif
