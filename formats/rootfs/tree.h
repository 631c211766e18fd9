/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files of a machine that was built of layers, each a tar archive that adds to
 * and takes from what is below it: OCI image-spec 1.0, "Image Layer Filesystem
 * Changeset".
 *
 *	.wh.NAME	NAME of a layer below is not there
 *	.wh..wh..opq	nothing of layers below is in this folder
 *
 * Names resolve inside the tree, through symbolic links as where such a layer is
 * unpacked with it as the root; nothing leads out of it.
 */
#ifndef FORMATS_ROOTFS_TREE_H
#define FORMATS_ROOTFS_TREE_H

#include "formats/containers/tar.h"

/* Of a tree: what it may take of memory. */
#define TREE_NODES_MAX	(1U << 17)
#define TREE_RUNS_MAX	(1U << 19) /* of data, of all files */
#define TREE_TEXT_MAX	(16U << 20) /* bytes of names, targets, attributes */
#define TREE_LAYERS_MAX 256U

/* What names lead to; hard links are several names of one. */
struct tree_file {
	enum tar_type type; /* never TAR_HARD_LINK */
	uint32_t links; /* names of it */
	uint32_t mode, uid, gid, major, minor;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	char *target; /* of a symbolic link */
	/* Of a file: in which layer's source its data lie, and where. */
	uint32_t layer;
	uint64_t bytes;
	struct member_run *runs; /* of data; the rest are holes */
	size_t n_runs;
	struct tar_xattr *xattrs;
	size_t n_xattrs;
	uint32_t ino; /* for who numbers them; 0 before */
};

/* A name. */
struct tree_node {
	char *name; /* "" is the root's */
	struct tree_node *parent; /* the root's is itself */
	struct tree_node *first, **end; /* of a folder: what is in it */
	struct tree_node *next, **link;
	struct tree_file *file;
	uint32_t layer; /* that put it here, or last touched it */
	uint32_t hid; /* the layer that last hid what is below it; 0: none */
};

struct tree {
	struct tree_node *root;
	void *index; /* tsearch(3)'s, by parent and name */
	size_t n_nodes, n_runs, text_bytes;
	uint32_t layer; /* that is added now */
};

int tree_init(struct tree *t, struct error *err);
void tree_done(struct tree *t);

/*
 * Puts the layer @src, a tar archive, over what is there. On failure the tree is
 * good for tree_done() alone. -EBADMSG: a name with "..", a link to nothing;
 * -EFBIG: a limit.
 */
int tree_add_layer(struct tree *t, struct source *src, struct error *err);

/* The next one of a walk over all names, parents first; from NULL on; NULL: end. */
struct tree_node *tree_next(const struct tree *t, struct tree_node *n);

static inline bool tree_is_folder(const struct tree_node *n)
{
	return n->file->type == TAR_FOLDER;
}

#endif
