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
 * Locks the file of @src for reading, writing and resizing by us alone. The
 * locks are those of @src's own descriptor and end with the source: a process
 * that is killed keeps them until the last of its requests for the file, a
 * write by O_DIRECT perhaps, has ended. Somebody who has it open in a way that
 * this excludes is waited for @patience_ms; then -EBUSY. A file system without
 * locks is no failure.
 */
int file_lock_writer(const struct source *src, unsigned int patience_ms,
		     struct error *err);

/*
 * The same for who reads, and does not bear that others write or resize; many
 * may. -EBUSY: somebody may write it.
 */
int file_lock_reader(const struct source *src, struct error *err);

/* Ends either, before the source does. */
void file_unlock(const struct source *src);

#endif
