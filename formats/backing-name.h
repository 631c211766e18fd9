/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What images write as the name of their backing file: a path, a URL, or QEMU's
 * pseudo-names "file:PATH" and "json:{...}" (a format and a file or a URL, perhaps
 * with a raw window between). The pseudo-names need `allow=file:`, `allow=json:`,
 * URLs `allow=URL`.
 */
#ifndef FORMATS_BACKING_NAME_H
#define FORMATS_BACKING_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/reference.h"

struct backing_name {
	char *path;
	char *format; /* declared; NULL: not */
	bool url; /* path is a URL that is permitted */
	bool window; /* only these bytes of the file: */
	uint64_t off;
	uint64_t bytes; /* UINT64_MAX: to its end */
};

/*
 * @format: what the image declares beside the name, or NULL. @ret is the
 * caller's to backing_name_done() on success. A pseudo-name that is not
 * permitted is -EPERM, one that we do not understand -ENOTSUP.
 */
int backing_name_parse(struct backing_name *ret, const char *name,
		       const char *format, const struct allow *allow,
		       struct error *err);
void backing_name_done(struct backing_name *n);

/*
 * How an image names the file @path, which is meant as it stands: so that
 * neither we nor QEMU, who takes all before a colon for a protocol, read another
 * one out of it. A URL is written without a login and signatures. The one place where names for images are made. *ret is to be
 * freed. An empty name, or one over what qcow2 can hold, is -EINVAL.
 */
int backing_name_write(const char *path, char **ret, struct error *err);

/* Puts the window, if there is one, over *src. */
int backing_name_window(const struct backing_name *n, struct source **src,
			struct error *err);

#endif
