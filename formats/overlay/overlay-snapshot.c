/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An overlay over time: the file that takes its writes now, and the files that
 * were frozen before it.
 *
 * A snapshot drains and flushes, makes the file what it would be after a clean
 * end, gives it the snapshot's name, and puts a new file in its place. On the
 * disk: a new file under a name of no meaning, a second name for the old file,
 * then rename() of the new one over the first name. A crash before that leaves
 * the overlay as it was, and perhaps a second name; after it, the snapshot is
 * there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/backing-name.h"
#include "formats/file-lock.h"
#include "formats/overlay/overlay-inside.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/write.h"

/* What is below the new file: the frozen one, and what is below that. */
static int open_frozen(struct qcow2_file *old, const char *path,
		       struct image **ret, struct error *err)
{
	struct open_options options = { .format = "qcow2" };
	struct chain c = { .depth = 1 };
	unsigned int below = old->base ? old->base->chain.depth : 0;
	int r;

	if (below + 2 > CHAIN_DEPTH_MAX)
		return error_set(err, -EFBIG, 0,
				 "more than %d layers in the chain",
				 CHAIN_DEPTH_MAX);
	r = chain_open_top(path, &options, &c.layers[0], err);
	if (r < 0)
		return r;
	if (below)
		chain_add_below(&old->base->chain, 0, &c);
	c.bytes = c.layers[0]->bytes;
	return image_from_chain(&c, ret, err);
}

/* The new file, under its name of no meaning, over the frozen one, @base. */
static int open_new_top(struct overlay *o, const char *temp,
			const char *base_name, struct image *base,
			struct qcow2_file **ret, struct error *err)
{
	struct overlay_options options = { .open.direct = o->direct,
					   .detect = o->detect,
					   .bytes_max = o->bytes_max,
					   .free_min = o->free_min,
					   .log = o->log };

	return qcow2_file_open(temp, base, base_name, &options, &o->gate, ret,
			       err);
}

/*
 * Puts the file @temp in the place of the one that takes writes now. Swap and
 * gate are held: nobody else is here.
 */
static int replace_top(struct overlay *o, const char *temp,
		       const char *base_name, struct image *base,
		       struct error *err)
{
	struct qcow2_file *top = NULL;
	int r = open_new_top(o, temp, base_name, base, &top, err);

	if (r >= 0 && o->file->s->epoch)
		r = qcow2_set_epoch(top, o->file->s->epoch, err);
	if (r >= 0)
		r = log_will_be_beside(top, o->path, err);
	if (r >= 0 && rename(temp, o->path) < 0)
		r = error_set(err, -errno, 0, "%s: %s", o->path,
			      errno_text(errno));
	if (r < 0) {
		qcow2_file_close(top);
		return r;
	}
	free(top->path);
	top->path = TAKE_PTR(o->file->path);
	/* Of the old one, if it has not ended: nobody shall find it. */
	log_remove(o->file);
	qcow2_file_close(o->file);
	o->file = top;
	return 0;
}

/* As replace_top(). */
static int freeze(struct overlay *o, const char *temp, const char *frozen,
		  struct error *err)
{
	CLEANUP(image_unrefp) struct image *base = NULL;
	int r;

	o->file->gate_held = true;
	r = flush_last(o->file, err);
	o->file->gate_held = false;
	if (r >= 0 && link(o->path, frozen) < 0)
		r = error_set(err, -errno, 0, "%s: %s%s", frozen,
			      errno_text(errno),
			      errno == EPERM || errno == EOPNOTSUPP
				      ? " (a snapshot needs a file system with "
					"hard links)"
				      : "");
	if (r < 0)
		return r;
	/* The second name is there before the first may lead elsewhere. */
	r = sync_folder_of(o->path, err);
	if (r >= 0)
		r = open_frozen(o->file, frozen, &base, err);
	if (r >= 0)
		r = replace_top(o, temp, overlay_file_name(frozen), base, err);
	if (r < 0) {
		unlink(frozen);
		return r;
	}
	/* Before a flush may rely on it. */
	return sync_folder_of(o->path, err);
}

/* An empty file over @frozen, under the name *ret_temp, which is the caller's. */
static int create_top(uint64_t bytes, const char *frozen, char **ret_temp,
		      struct error *err)
{
	struct overlay_new n = { .bytes = bytes, .base_format = "qcow2" };
	CLEANUP(freep) char *name = NULL;
	char *temp;
	int r = backing_name_write(overlay_file_name(frozen), &name, err);

	if (r < 0)
		return r;
	n.base_name = name;
	if (asprintf(&temp, "%s.new", frozen) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	unlink(temp); /* of an attempt that a crash ended */
	r = overlay_create(temp, &n, err);
	if (r < 0)
		free(temp);
	else
		*ret_temp = temp;
	return r;
}

int overlay_snapshot(struct overlay *o, const char *name, struct error *err)
{
	CLEANUP(freep) char *frozen = NULL;
	CLEANUP(freep) char *temp = NULL;
	int r = overlay_snapshot_path(o, name, &frozen, err);

	if (r >= 0 && !access(frozen, F_OK))
		r = error_set(err, -EEXIST, 0, "there is a snapshot \"%s\"",
			      name);
	if (r >= 0 && overlay_is_pulled(o))
		r = error_set(err, -EBUSY, 0,
			      "the overlay is not whole yet: it is being "
			      "pulled");
	if (r >= 0)
		r = overlay_take_chain(o, err);
	if (r < 0)
		return r;
	r = create_top(overlay_bytes(o), frozen, &temp, err);
	if (r < 0) {
		overlay_leave_chain(o);
		return r;
	}
	pthread_rwlock_wrlock(&o->swap);
	/* Most of the work, while requests go on. */
	r = qcow2_file_flush(o->file, err);
	if (r >= 0) {
		pthread_rwlock_wrlock(&o->gate);
		r = freeze(o, temp, frozen, err);
		pthread_rwlock_unlock(&o->gate);
	}
	pthread_rwlock_unlock(&o->swap);
	overlay_leave_chain(o);
	if (r < 0)
		unlink(temp); /* gone already, if it has got its name */
	return r;
}

/*
 * The name of layer @at below as a snapshot, to be freed; NULL: it is none, or
 * there is no memory. Swap is held, or chain.
 */
static char *snapshot_name(const struct overlay *o, unsigned int at)
{
	const char *file =
		overlay_file_name(o->file->base->chain.layers[at]->path);
	CLEANUP(freep)
	char *frozen =
		o->path ? overlay_frozen_path(overlay_file_name(o->path), "")
			: NULL;
	size_t stem = frozen ? strlen(frozen) - strlen(OVERLAY_SUFFIX) : 0,
	       len = strlen(file);

	if (!frozen || len <= strlen(frozen) ||
	    strncmp(file, frozen, stem) != 0)
		return NULL;
	return strndup(file + stem, len - stem - strlen(OVERLAY_SUFFIX));
}

/* Snapshots that a revert does away with. */
struct later {
	unsigned int n;
	char *paths[CHAIN_DEPTH_MAX];
	struct source *locks[CHAIN_DEPTH_MAX];
};

static void later_done(struct later *l)
{
	while (l->n) {
		l->n--;
		free(l->paths[l->n]);
		source_unref(l->locks[l->n]);
	}
}

/* The chain is ours. */
static int find_later(const struct overlay *o, unsigned int n,
		      struct later *ret, struct error *err)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < n && r >= 0; i++) {
		CLEANUP(freep) char *name = snapshot_name(o, i);
		char *path = overlay_layer_path(o, i);

		if (!path)
			return error_set(err, -ENOMEM, 0, "out of memory");
		ret->paths[i] = path;
		ret->locks[i] = NULL;
		ret->n++;
		r = name ? overlay_lock_frozen(path, name, &ret->locks[i], err)
			 : error_set(err, -EINVAL, 0,
				     "%s, which lies above, is no snapshot",
				     path);
	}
	return r;
}

/* Which layer below @name is, when what was made after it may go. */
static int find_revert(const struct overlay *o, const char *name, bool discard,
		       struct later *ret_later, struct error *err)
{
	int at = overlay_find_frozen(o, name);
	int r;

	if (at < 0)
		return error_set(err, -ENOENT, 0, "there is no snapshot \"%s\"",
				 name);
	if (at && !discard)
		return error_set(
			err, -EINVAL, 0,
			"snapshot \"%s\" is not the latest: those made "
			"after it would be lost",
			name);
	r = find_later(o, (unsigned int)at, ret_later, err);
	return r < 0 ? r : at;
}

/* The disk is that of layer @at below, @frozen. Swap and gate are held. */
static int go_back(struct overlay *o, unsigned int at, const char *frozen,
		   struct error *err)
{
	CLEANUP(image_unrefp) struct image *base = NULL;
	CLEANUP(freep) char *temp = NULL;
	struct chain below;
	int r;

	chain_below(&o->file->base->chain, at, &below);
	r = image_from_chain(&below, &base, err);
	if (r < 0)
		return r;
	r = create_top(base->bytes, frozen, &temp, err);
	if (r < 0)
		return r;
	r = replace_top(o, temp, overlay_file_name(frozen), base, err);
	if (r < 0) {
		unlink(temp);
		return r;
	}
	atomic_store(&o->bytes, base->bytes);
	return sync_folder_of(o->path, err);
}

int overlay_revert(struct overlay *o, const char *name, bool discard,
		   struct error *err)
{
	CLEANUP(freep) char *frozen = NULL;
	struct later later = { 0 };
	unsigned int i;
	int r = overlay_snapshot_path(o, name, &frozen, err);

	if (r >= 0)
		r = overlay_take_chain(o, err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	r = find_revert(o, name, discard, &later, err);
	for (i = 0; i < later.n && r >= 0; i++) {
		int doomed = overlay_doom(o, later.paths[i], err);

		r = doomed < 0 ? doomed : r;
	}
	if (r >= 0)
		r = go_back(o, (unsigned int)r, frozen, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	/* Nothing leads to them any more. */
	for (i = 0; i < later.n && r >= 0; i++)
		r = overlay_remove_frozen(later.paths[i], err);
	for (i = 0; i < later.n; i++)
		overlay_spare(later.paths[i]);
	later_done(&later);
	overlay_leave_chain(o);
	return r;
}

int overlay_empty(struct overlay *o, struct error *err)
{
	const struct parent_ref *parent = &o->file->top->parent;
	struct overlay_new n = { .bytes = overlay_bytes(o),
				 .base_name = parent->name,
				 .base_format = parent->format };
	CLEANUP(freep) char *temp = NULL;
	int r;

	if (!o->path)
		return error_set(err, -ENOTSUP, 0, "is a temporary overlay");
	if (asprintf(&temp, "%s.new", o->path) < 0) {
		temp = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	unlink(temp);
	r = overlay_take_chain(o, err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	r = overlay_create(temp, &n, err);
	if (r >= 0)
		r = replace_top(o, temp, parent->name, o->file->base, err);
	if (r >= 0)
		r = sync_folder_of(o->path, err);
	else
		unlink(temp);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	overlay_leave_chain(o);
	return r;
}

int overlay_open_snapshot(struct overlay *o, const char *name,
			  struct image **ret, struct error *err)
{
	struct image *base;
	struct chain below;
	int at, r;

	pthread_rwlock_rdlock(&o->swap);
	base = o->file ? o->file->base : NULL;
	at = base ? overlay_find_frozen(o, name) : -1;
	if (at < 0) {
		r = error_set(err, -ENOENT, 0, "there is no snapshot \"%s\"",
			      name);
	} else {
		chain_below(&base->chain, (unsigned int)at, &below);
		r = image_from_chain(&below, ret, err);
	}
	pthread_rwlock_unlock(&o->swap);
	return r;
}

int overlay_each_snapshot(struct overlay *o,
			  int (*each)(void *opaque, const char *name,
				      uint64_t bytes),
			  void *opaque)
{
	const struct image *base;
	unsigned int i;
	int r = 0;

	pthread_rwlock_rdlock(&o->swap);
	base = o->file ? o->file->base : NULL;
	for (i = 0; base && i < base->chain.depth && !r; i++) {
		CLEANUP(freep) char *name = snapshot_name(o, i);

		if (name)
			r = each(opaque, name, base->chain.layers[i]->bytes);
	}
	pthread_rwlock_unlock(&o->swap);
	return r;
}
