/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "formats/rootfs/ext2fs-lib.h"
#include "iouring/library.h"
#include "iouring/util.h"

struct ext2fs_api ext2fs;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

#define SYMBOL(name)                                   \
	{                                              \
		"ext2fs_" #name, (void **)&ext2fs.name \
	}

static const struct library_symbol symbols[] = {
	SYMBOL(allocate_tables),
	SYMBOL(block_alloc_stats_range),
	SYMBOL(blocks_count),
	SYMBOL(close_free),
	SYMBOL(extent_free),
	SYMBOL(extent_insert),
	SYMBOL(extent_open2),
	SYMBOL(find_first_set_generic_bmap),
	SYMBOL(find_first_zero_generic_bmap),
	SYMBOL(free),
	SYMBOL(iblk_set),
	SYMBOL(initialize),
	SYMBOL(inode_alloc_stats2),
	SYMBOL(inode_size_set),
	SYMBOL(write_inode_full),
	SYMBOL(xattr_set),
	SYMBOL(xattrs_close),
	SYMBOL(xattrs_open),
};

_Static_assert(sizeof(ext2fs) == ARRAY_SIZE(symbols) * sizeof(void *),
	       "all are looked up");

static void load(void)
{
	loaded = library_load("libext2fs.so.2", symbols, ARRAY_SIZE(symbols));
}

int ext2fs_load(struct error *err)
{
	pthread_once(&once, load);
	if (!loaded)
		return error_set(err, -ENOTSUP, 0,
				 "libext2fs is needed to read this, and not "
				 "installed");
	return 0;
}
