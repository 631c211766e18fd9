/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image's layers as far as they can be opened. chain_open() decides
 * whether an image is served, and why not; this goes down the same way to
 * show what is there above the layer that stops it.
 */
#include <errno.h>
#include <string.h>

#include "formats/backing-name.h"
#include "formats/chain.h"
#include "iouring/util.h"
#include "nbd/cmd.h"

static int open_top(const char *path, const struct open_options *options,
		    struct layer **ret, struct error *err)
{
	unsigned int flags =
		FILE_BLOCK_DEVICE | (options->direct ? FILE_DIRECT : 0);
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	CLEANUP(source_unrefp) struct source *src = NULL;
	int r;

	r = file_source_open(path, flags, &src, err);
	if (r >= 0)
		r = folder_of_file(path, &folder, err);
	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	return layer_open(TAKE_PTR(src), path, folder, options->format, true,
			  options, ret, err);
}

static bool seen(const struct layers *ls, const struct layer *l)
{
	unsigned int i;

	for (i = 0; i < ls->depth; i++)
		if (ls->layers[i]->dev == l->dev &&
		    ls->layers[i]->ino == l->ino)
			return true;
	return false;
}

/* Opens the next layer; false when there is none that can be shown. */
static bool open_next(struct layers *ls, const struct open_options *options)
{
	struct layer *child = ls->layers[ls->depth - 1];
	CLEANUP(backing_name_done) struct backing_name name = { 0 };
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	CLEANUP(freep) char *path = NULL;
	CLEANUP(layer_freep) struct layer *next = NULL;
	int r;

	ls->verdict = REFERENCE_OK;
	if (!child->parent.name || ls->depth == CHAIN_DEPTH_MAX)
		return false;
	r = backing_name_parse(&name, child->parent.name, child->parent.format,
			       &options->allow, NULL);
	if (r < 0) {
		ls->verdict = r == -EPERM ? REFERENCE_PREFIX : REFERENCE_FAILED;
		return false;
	}
	r = reference_open(child->folder, name.path, "backing file",
			   &options->allow, options->direct, &src, &folder,
			   &path, &ls->verdict, NULL);
	if (r < 0)
		return false;
	/* From here on the name is right and it is the file that is not. */
	if (backing_name_window(&name, &src, NULL) < 0 ||
	    layer_open(TAKE_PTR(src), path, folder, name.format, false, options,
		       &next, NULL) < 0 ||
	    seen(ls, next))
		return false;
	ls->layers[ls->depth++] = TAKE_PTR(next);
	return true;
}

int layers_open(const struct cmd *c, bool chain, struct layers *ret,
		struct error *err)
{
	struct open_options options;
	struct chain whole = { 0 };
	int r;

	*ret = (struct layers){ 0 };
	config_open_options(&c->config, &options);
	if (chain &&
	    !chain_open(c->config.image, &options, &whole, &ret->reason)) {
		memcpy(ret->layers, whole.layers,
		       whole.depth * sizeof(*whole.layers));
		ret->depth = whole.depth;
		ret->complete = true;
		return 0;
	}
	r = open_top(c->config.image, &options, &ret->layers[0], err);
	if (r < 0)
		return r;
	ret->depth = 1;
	while (chain && open_next(ret, &options))
		;
	/* All are there, and a key is all that is wanting. */
	ret->locked = chain && ret->reason.code == -EACCES &&
		      !ret->layers[ret->depth - 1]->parent.name;
	return 0;
}

void layers_done(struct layers *l)
{
	while (l->depth)
		layer_free(l->layers[--l->depth]);
}
