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
 * Locks @src for reading, writing and resizing by us alone, until it is
 * closed. -EBUSY: somebody has it open in a way that this excludes. A file
 * system without locks is no failure.
 */
int file_lock_writer(const struct source *src, struct error *err);

/*
 * Lets others in. Needed even before a close: a ring that knows the file
 * keeps it open.
 */
void file_unlock(const struct source *src);

#endif
