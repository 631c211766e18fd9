/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tree as an ext4 file system, of which only what is not files' data is written
 * anywhere: superblock, tables, folders. Where a file's bytes lie on the disk is
 * told, and they stay where they are.
 *
 * The same tree is the same file system, as long as libext2fs puts things where it
 * did.
 */
#ifndef FORMATS_ROOTFS_EXT4_H
#define FORMATS_ROOTFS_EXT4_H

#include "formats/rootfs/tree.h"

#define EXT4_BLOCK_BYTES 4096U

/* [@at, @at + @len) of the disk is at @off in layer @layer's source. */
struct ext4_run {
	uint64_t at, len, off;
	uint32_t layer;
};

struct ext4_disk {
	uint64_t bytes; /* of the disk */
	struct ext4_run *runs; /* in the order of at, not overlapping */
	size_t n_runs;
};

/*
 * Makes the file system of @t, of @bytes, or 0: of as much as seems good, numbering
 * its files. -EINVAL: the files do not fit in @bytes. What is not data is written to
 * the empty file @fd, the caller's, at its place on the disk; it is as large as
 * that, and the rest are holes. ret->runs is the caller's to free().
 */
int ext4_make(struct tree *t, uint64_t bytes, int fd, struct ext4_disk *ret,
	      struct error *err);

#endif
