/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names inside images, and the folder that confines them.
 *
 * Images come from strangers. A name out of an image is opened only when it
 * resolves, links followed, beneath the folder of the image that holds it or
 * beneath a folder that the user allows, and only when it is a regular file.
 * openat2(2) decides, not string comparison. What a refusal says does not
 * depend on whether a file outside exists.
 */
#ifndef FORMATS_REFERENCE_H
#define FORMATS_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/place.h"
#include "iouring/error.h"
#include "iouring/source.h"

/* What the user permits beyond the image's folder; strings are the user's. */
struct allow {
	const char **folders; /* real folders, opened on use */
	size_t n_folders;
	const char **prefixes; /* "json:", "file:" */
	size_t n_prefixes;
	const char **urls; /* of http and https: they, and what is beneath; of
			      exports: they */
	size_t n_urls;
	bool guessed; /* a guessed lower layer may refer to further ones */
};

/*
 * Adds one `allow=` value: "guessed", a prefix that ends in ':', a URL, or a
 * folder. @value must outlive @a. A folder that is not there is -EINVAL.
 */
int allow_add(struct allow *a, const char *value, struct error *err);

/* Is @url one of its URLs, or, of a web server, beneath one? */
bool allow_has_url(const struct allow *a, const char *url);
void allow_done(struct allow *a);

/* Where @fd lies now, links resolved; to be freed. NULL: nobody knows. */
char *path_of_fd(int fd);

/* A folder that was opened once, so that it cannot be moved under us. */
struct folder;

int folder_open(const char *path, struct folder **ret, struct error *err);
/* The folder in which the file @path lies. */
int folder_of_file(const char *path, struct folder **ret, struct error *err);
/* The folder in which the open file @fd lies now. */
int folder_of_fd(int fd, struct folder **ret, struct error *err);
void folder_unref(struct folder *f); /* NULL is fine */
void folder_unrefp(struct folder **f);
const char *folder_path(const struct folder *f); /* absolute, links resolved */

/* The folder @name beneath @f, no link on the way. -ENOENT, -ELOOP, -ENOTDIR */
int folder_open_in(const struct folder *f, const char *name,
		   struct folder **ret, struct error *err);

/*
 * Opens, once, the regular file @name beneath @f, or the one at the absolute
 * @path that lies, links followed, beneath one of @folders: what is checked is
 * what is opened. A descriptor for reading; -EXDEV, -ELOOP: it lies elsewhere;
 * -EBADF: it is no regular file; or another negative errno.
 */
int folder_open_file(const struct folder *f, const char *name);
int folders_open_file(struct folder *const *folders, size_t n,
		      const char *path);

/*
 * Calls @each with the name of every entry of the folder, at most
 * FOLDER_ENTRIES_MAX of them, until it returns non-zero, and returns that.
 */
#define FOLDER_ENTRIES_MAX 4096
int folder_for_each(struct folder *f,
		    int (*each)(void *opaque, const char *name), void *opaque);

/*
 * The folder as a place, not counted: names lead where the head of this page
 * permits, and to regular files alone. NULL for NULL.
 */
struct place *folder_place(struct folder *f);

#endif
