/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/backing-name.h"
#include "formats/chain.h"

static int check_loop(const struct chain *c, const struct layer *l,
		      struct error *err)
{
	unsigned int i;

	/* Files only: names would miss hard links. */
	for (i = 0; l->src->fd >= 0 && i < c->depth; i++)
		if (c->layers[i]->src->fd >= 0 && c->layers[i]->dev == l->dev &&
		    c->layers[i]->ino == l->ino)
			return error_set(err, -EBADMSG, 0,
					 "is its own backing file, by way of "
					 "%u layers",
					 c->depth - i);
	return 0;
}

static int check_unlocked(const struct layer *l, struct error *err)
{
	if (!l->locked)
		return 0;
	return error_set(err, -EACCES, 0,
			 "%s: is encrypted: give its passphrase with key=FILE",
			 l->path);
}

/* Opens the parent that the last layer names. */
static int open_parent(struct chain *c, const struct open_options *options,
		       struct layer **ret, struct error *err)
{
	struct layer *child = c->layers[c->depth - 1];
	CLEANUP(backing_name_done) struct backing_name name = { 0 };
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	CLEANUP(freep) char *path = NULL;
	CLEANUP(layer_freep) struct layer *parent = NULL;
	int r;

	if (c->depth == CHAIN_DEPTH_MAX)
		return error_set(err, -EFBIG, 0,
				 "more than %d layers in the chain",
				 CHAIN_DEPTH_MAX);
	r = backing_name_parse(&name, child->parent.name, child->parent.format,
			       &options->allow, err);
	if (r >= 0)
		r = reference_open(child->folder, name.path, "backing file",
				   &options->allow, options->direct, &src,
				   &folder, &path, NULL, err);
	if (r >= 0)
		r = backing_name_window(&name, &src, err);
	if (r < 0) {
		error_prefix(err, "%s", child->path);
		return r;
	}
	r = layer_open(TAKE_PTR(src), path, folder, name.format, false,
		       options, &parent, err);
	if (r < 0)
		return r;
	r = check_loop(c, parent, err);
	if (r >= 0 && child->ops->check_parent && !options->force_parent)
		r = child->ops->check_parent(child, parent, err);
	if (r < 0) {
		error_prefix(err, "%s", child->path);
		return r;
	}
	r = check_unlocked(parent, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(parent);
	return 0;
}

int chain_open_source(struct source *src, const char *path,
		      struct folder *folder,
		      const struct open_options *options, struct chain *ret,
		      struct error *err)
{
	struct chain c = { 0 };
	int r;

	r = layer_open(src, path, folder, options->format, true, options,
		       &c.layers[0], err);
	if (r < 0)
		return r;
	c.depth = 1;
	c.bytes = c.layers[0]->bytes;
	r = check_unlocked(c.layers[0], err);
	while (r >= 0 && c.layers[c.depth - 1]->parent.name) {
		r = open_parent(&c, options, &c.layers[c.depth], err);
		if (r >= 0)
			c.depth++;
	}
	if (r < 0) {
		chain_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

int chain_open(const char *path, const struct open_options *options,
	       struct chain *ret, struct error *err)
{
	unsigned int flags = FILE_BLOCK_DEVICE |
			     (options->direct ? FILE_DIRECT : 0);
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	struct source *src;
	int r;

	r = file_source_open(path, flags, &src, err);
	if (r >= 0) {
		r = folder_of_file(path, &folder, err);
		if (r < 0)
			source_unref(src);
	}
	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	return chain_open_source(src, path, folder, options, ret, err);
}

void chain_done(struct chain *c)
{
	while (c->depth)
		layer_free(TAKE_PTR(c->layers[--c->depth]));
}

int chain_map(const struct chain *c, uint64_t guest_off, uint64_t len,
	      struct extent *ret, struct error *err)
{
	struct extent e;
	unsigned int i;
	int r;

	for (i = 0; i < c->depth; i++) {
		struct layer *l = c->layers[i];

		/* Behind the end of a shorter layer there are zeroes. */
		if (guest_off >= l->bytes) {
			e = (struct extent){ .kind = EXTENT_ZERO, .len = len };
			break;
		}
		len = min_u64(len, l->bytes - guest_off);
		r = layer_map(l, guest_off, len, &e, err);
		if (r < 0)
			return r;
		if (e.kind != EXTENT_HOLE)
			break;
		len = e.len;
	}
	if (i == c->depth) {
		e = (struct extent){ .kind = EXTENT_ZERO,
				     .len = len,
				     .absent = true };
		i = 0;
	}
	e.depth = (uint16_t)i;
	*ret = e;
	return 0;
}
