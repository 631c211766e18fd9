/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locks by which writers of an image file keep out of each other's way, QEMU
 * among them: open-file-description locks on single bytes far inside the
 * file, which need not be there.
 *
 *	100 + n  held by who makes use n of the file
 *	200 + n  held by who does not bear that others do
 *
 * The uses: 0 read, 1 write, 2 write what is there already, 3 resize.
 */
#ifndef FORMATS_FILE_LOCK_H
#define FORMATS_FILE_LOCK_H

#include "iouring/error.h"
#include "iouring/source.h"

/*
 * Locks the file of @src for reading, writing and resizing by us alone.
 * *ret_fd holds the locks until it is closed: a descriptor of its own, as the
 * kernel's side of a ring keeps those that it knows for a while after the
 * process is gone. -EBUSY: somebody has it open in a way that this excludes. A
 * file system without locks is no failure.
 */
int file_lock_writer(const struct source *src, int *ret_fd, struct error *err);

/*
 * The same for who reads, and does not bear that others write or resize; many
 * may. -EBUSY: somebody may write it.
 */
int file_lock_reader(const struct source *src, int *ret_fd, struct error *err);

#endif
