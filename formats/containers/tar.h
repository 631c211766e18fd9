/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tar: POSIX.1-1988 ustar, pax (POSIX.1-2001), GNU's long names, sizes of base 256
 * and sparse files. Only headers are read; data are told of by where they lie.
 */
#ifndef FORMATS_CONTAINERS_TAR_H
#define FORMATS_CONTAINERS_TAR_H

#include "formats/containers/container.h"

#define TAR_XATTRS_MAX 256U /* of an entry */

/* As the kernel names it; a pax record SCHILY.xattr.NAME. */
struct tar_xattr {
	char *name;
	uint8_t *value;
	size_t bytes;
};

enum tar_type {
	TAR_FILE = '0',
	TAR_HARD_LINK = '1',
	TAR_SYMLINK = '2',
	TAR_CHAR_DEVICE = '3',
	TAR_BLOCK_DEVICE = '4',
	TAR_FOLDER = '5',
	TAR_FIFO = '6',
};

/* What it has of memory is the walk's, but for what each() takes out of it. */
struct tar_entry {
	char *name; /* as it is written */
	char *link; /* of a link; else NULL */
	enum tar_type type;
	uint32_t mode; /* permissions, 07777 */
	uint32_t uid, gid;
	bool has_owner; /* else the header has no numbers where mode, owner,
			   time or device are */
	uint32_t major, minor; /* of a device */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	/* Of a file: see struct member. */
	uint64_t off, bytes;
	bool sparse;
	struct member_run *runs;
	size_t n_runs;
	struct tar_xattr *xattrs;
	size_t n_xattrs;
};

bool tar_probe(const uint8_t *head, size_t bytes);

/*
 * Calls @each with every entry of @src, in order, until it returns non-zero, and
 * returns that; or 0, or a negative errno. Types that are not above are left out.
 */
int tar_each(struct source *src,
	     int (*each)(void *opaque, struct tar_entry *e, struct error *err),
	     void *opaque, struct error *err);

#endif
