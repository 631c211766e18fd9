/* SPDX-License-Identifier: BSD-3-Clause */
/* libext2fs of e2fsprogs, loaded when the first file system is made. */
#ifndef FORMATS_ROOTFS_EXT2FS_LIB_H
#define FORMATS_ROOTFS_EXT2FS_LIB_H

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include "iouring/error.h"

#define EXT2FS_FN(name) __typeof__(ext2fs_##name) *name

/* The functions that are used, without their prefix. */
struct ext2fs_api {
	EXT2FS_FN(allocate_tables);
	EXT2FS_FN(block_alloc_stats_range);
	EXT2FS_FN(blocks_count);
	EXT2FS_FN(close_free);
	EXT2FS_FN(extent_free);
	EXT2FS_FN(extent_insert);
	EXT2FS_FN(extent_open2);
	EXT2FS_FN(find_first_set_generic_bmap);
	EXT2FS_FN(find_first_zero_generic_bmap);
	EXT2FS_FN(free);
	EXT2FS_FN(iblk_set);
	EXT2FS_FN(initialize);
	EXT2FS_FN(inode_alloc_stats2);
	EXT2FS_FN(inode_size_set);
	EXT2FS_FN(write_inode_full);
	EXT2FS_FN(xattr_set);
	EXT2FS_FN(xattrs_close);
	EXT2FS_FN(xattrs_open);
};

/* Only after ext2fs_load(). */
extern struct ext2fs_api ext2fs;

/* Returns 0, or -ENOTSUP when libext2fs is not installed. Any thread. */
int ext2fs_load(struct error *err);

#endif
