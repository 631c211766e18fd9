/* SPDX-License-Identifier: BSD-3-Clause */
/* Which file holds an export's writes, and how it comes to be. */
#ifndef NBD_OVERLAYS_H
#define NBD_OVERLAYS_H

#include "formats/overlay/overlay.h"
#include "nbd/config.h"

/* What an overlay is over. */
struct overlay_base {
	struct image *image;
	const char *path; /* of its file */
	const char *id; /* of the store's; "": the one of the command line */
};

/*
 * The overlay of parameter overlay= over @base, an image of the command line: a
 * file, made if it is not there, or a temporary one. Held by the caller.
 */
int overlays_open_only(const struct config *c, const struct overlay_base *base,
		       struct overlay **ret, struct error *err);

/*
 * The overlay @name over @base in the folder of parameter overlays=: NAME.qcow2,
 * or ID+NAME.qcow2 of an image of the store; PROJECT:NAME of one: the same in a
 * folder of that project's. Where there is none it is made with the first
 * change. A name that may not be a file's is -ENOENT, as is every name without
 * that parameter. @how: or'ed.
 */
enum {
	OVERLAYS_WANTED = 1 << 0, /* at once, and -EEXIST where there is one */
	/* One that another process has is taken when that lets it go. */
	OVERLAYS_STANDBY = 1 << 1,
};
int overlays_open_named(const struct config *c, const struct overlay_base *base,
			const char *name, unsigned int how,
			struct overlay **ret, struct error *err);

/*
 * overlay_pull() of @o, which was opened over @base: what the file names then is
 * what a new one would. @same: as in struct overlay_pull_to.
 */
int overlays_pull(struct overlay *o, const struct overlay_base *base, bool same,
		  int (*progress)(void *opaque, uint64_t done_bytes),
		  void *opaque, struct error *err);

/* May @name be a part of an overlay's or a snapshot's file name? */
bool overlays_name_ok(const char *name);

/* Calls @each with "+NAME" or "ID+NAME" of every overlay there is; see folder_for_each(). */
int overlays_each(const struct config *c,
		  int (*each)(void *opaque, const char *name), void *opaque);

/*
 * The format of an overlay's base, as layer_declare(); -EINVAL: no name in a file
 * leads to it, as it is the member of a container.
 */
int overlays_base_format(const struct image *base, char ret[LAYER_FORMAT_BYTES],
			 struct error *err);

/*
 * How a file names @base, which was opened as @name: in *ret, to be freed. Of a folder
 * that is an image it names the file by which that is known.
 */
int overlays_base_name(const struct image *base, const char *name, char **ret,
		       struct error *err);

#endif
