/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a crash leaves beside an overlay when it comes in the middle of a change
 * of the chain, and what becomes of it when the overlay is opened next. Files
 * of other names are nobody's business here; STEM.qcow2 is the overlay's file:
 *
 *	STEM@NAME.qcow2, the same file	a snapshot that was not made: it goes
 *	STEM@NAME.qcow2.new, .part	new files that got no name: they go
 *	STEM.qcow2.new, .part
 *	STEM@NAME.qcow2.doomed		the snapshot was to go: it does when
 *					nothing of the chain is it, else it stays
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/new-file.h"
#include "formats/overlay/overlay-inside.h"
#include "iouring/write.h"

#define DOOMED	   ".doomed"
#define UNFINISHED ".new"

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);

	return len >= n && !strcmp(text + len - n, end);
}

/* How much of the file name @name is before its suffix. */
static size_t stem_bytes(const char *name)
{
	size_t len = strlen(name);

	return ends_with(name, OVERLAY_SUFFIX) ? len - strlen(OVERLAY_SUFFIX)
					       : len;
}

/* Is @name, a file's, one of a snapshot of @file? */
static bool is_snapshot_of(const char *name, const char *file)
{
	size_t stem = stem_bytes(file);

	return !strncmp(name, file, stem) && name[stem] == '@' &&
	       strlen(name) > stem + 1 + strlen(OVERLAY_SUFFIX) &&
	       ends_with(name, OVERLAY_SUFFIX);
}

static char *doomed_path(const char *frozen)
{
	char *ret;

	return asprintf(&ret, "%s" DOOMED, frozen) < 0 ? NULL : ret;
}

int overlay_doom(const struct overlay *o, const char *frozen, struct error *err)
{
	CLEANUP(freep) char *path = doomed_path(frozen);
	CLEANUP(closep) int fd = -1;

	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	return sync_folder_of(o->path, err);
}

void overlay_spare(const char *frozen)
{
	CLEANUP(freep) char *path = doomed_path(frozen);

	if (path)
		unlink(path);
}

/* The folder in which @path lies, to be read. */
static int open_folder(const char *path, DIR **ret, struct error *err)
{
	size_t n = (size_t)(overlay_file_name(path) - path);
	CLEANUP(freep) char *folder = n ? strndup(path, n) : strdup(".");
	DIR *dir = folder ? opendir(folder) : NULL;

	if (!dir)
		return error_set(err, -errno, 0, "%s: %s",
				 folder ? folder : path, errno_text(errno));
	*ret = dir;
	return 0;
}

/* Is @name of the chain? */
static bool is_below(const struct overlay *o, const char *name)
{
	const struct image *base = o->file->base;
	unsigned int i;

	for (i = 0; base && i < base->chain.depth; i++)
		if (!strcmp(overlay_file_name(base->chain.layers[i]->path),
			    name))
			return true;
	return false;
}

static bool is_the_file(const struct overlay *o, int folder, const char *name)
{
	struct stat st;

	return !fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) &&
	       identity_is_file(&o->file->top->identity, &st);
}

static bool is_unfinished(const char *name, const char *file)
{
	CLEANUP(freep) char *whole = NULL;

	if (ends_with(name, NEW_FILE_SUFFIX))
		whole = strndup(name, strlen(name) - strlen(NEW_FILE_SUFFIX));
	else
		whole = strdup(name);
	if (!whole)
		return false;
	if (ends_with(whole, UNFINISHED))
		whole[strlen(whole) - strlen(UNFINISHED)] = '\0';
	return strcmp(whole, name) != 0 &&
	       (!strcmp(whole, file) || is_snapshot_of(whole, file));
}

/* Somebody else may have come to rely on it. */
static bool is_nobodys(const struct overlay *o, const char *frozen)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	int folder = (int)(overlay_file_name(o->path) - o->path);
	CLEANUP(freep) char *path = NULL;

	if (asprintf(&path, "%.*s%s", folder, o->path, frozen) < 0)
		path = NULL;
	return path && overlay_lock_frozen(path, frozen, &src, NULL) >= 0;
}

/* @name ends with DOOMED. */
static void end_doomed(const struct overlay *o, int folder, const char *name)
{
	CLEANUP(freep)
	char *frozen = strndup(name, strlen(name) - strlen(DOOMED));

	if (!frozen || !is_snapshot_of(frozen, overlay_file_name(o->path)))
		return;
	if (!is_below(o, frozen) && is_nobodys(o, frozen))
		unlinkat(folder, frozen, 0);
	unlinkat(folder, name, 0);
}

static void look_at(const struct overlay *o, int folder, const char *name)
{
	const char *file = overlay_file_name(o->path);

	if (is_unfinished(name, file))
		unlinkat(folder, name, 0);
	else if (ends_with(name, DOOMED))
		end_doomed(o, folder, name);
	else if (is_snapshot_of(name, file) && is_the_file(o, folder, name) &&
		 !is_below(o, name))
		unlinkat(folder, name, 0);
}

int overlay_tidy(struct overlay *o, struct error *err)
{
	struct dirent *d;
	DIR *dir;
	int r;

	/* Its chain has not been opened: nobody knows what is of it. */
	if (o->file->options.alone)
		return 0;
	r = open_folder(o->path, &dir, err);
	if (r < 0)
		return r;
	while ((d = readdir(dir)))
		look_at(o, dirfd(dir), d->d_name);
	closedir(dir);
	return 0;
}

int overlay_find_orphan(const char *path, char **ret, struct error *err)
{
	const char *file = overlay_file_name(path);
	struct dirent *d;
	DIR *dir;
	int r = open_folder(path, &dir, err);

	*ret = NULL;
	if (r < 0)
		return r;
	while (r >= 0 && !*ret && (d = readdir(dir))) {
		if (!is_snapshot_of(d->d_name, file))
			continue;
		*ret = strdup(d->d_name);
		if (!*ret)
			r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	closedir(dir);
	return r;
}
