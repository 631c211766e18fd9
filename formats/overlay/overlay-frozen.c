/* SPDX-License-Identifier: BSD-3-Clause */
/* The files that were frozen: their names, and who else relies on them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/file-lock.h"
#include "formats/overlay/overlay-inside.h"
#include "iouring/write.h"

const char *overlay_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *overlay_frozen_path(const char *path, const char *name)
{
	size_t len = strlen(path), end = strlen(OVERLAY_SUFFIX);
	char *ret;

	if (len > end && !strcmp(path + len - end, OVERLAY_SUFFIX))
		len -= end;
	if (asprintf(&ret, "%.*s@%s" OVERLAY_SUFFIX, (int)len, path, name) < 0)
		return NULL;
	return ret;
}

int overlay_snapshot_path(const struct overlay *o, const char *name, char **ret,
			  struct error *err)
{
	if (!o->path)
		return error_set(err, -ENOTSUP, 0,
				 "a temporary overlay has no snapshots");
	*ret = overlay_frozen_path(o->path, name);
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int overlay_find_frozen(const struct overlay *o, const char *name)
{
	CLEANUP(freep)
	char *frozen =
		o->path ? overlay_frozen_path(overlay_file_name(o->path), name)
			: NULL;
	const struct image *base = o->file->base;
	unsigned int i;

	for (i = 0; frozen && base && i < base->chain.depth; i++)
		if (!strcmp(overlay_file_name(base->chain.layers[i]->path),
			    frozen))
			return (int)i;
	return -1;
}

char *overlay_layer_path(const struct overlay *o, unsigned int at)
{
	const char *name =
		overlay_file_name(o->file->base->chain.layers[at]->path);
	int folder = (int)(overlay_file_name(o->path) - o->path);
	char *ret;

	return asprintf(&ret, "%.*s%s", folder, o->path, name) < 0 ? NULL : ret;
}

int overlay_lock_frozen(const char *path, const char *name, struct source **ret,
			struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	int r;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return error_set(err, -ENOENT, 0, "there is no snapshot \"%s\"",
				 name);
	r = file_source_open_rw(path, 0, &src, err);
	if (r >= 0)
		r = file_lock_writer(src, 0, err);
	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	*ret = TAKE_PTR(src);
	return 0;
}

int overlay_remove_frozen(const char *path, struct error *err)
{
	if (unlink(path) < 0)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	return sync_folder_of(path, err);
}
