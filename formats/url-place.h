/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images at URLs: what the user names so, what an image names so where he permits
 * it (allow=), and what an image that lies at a web server names beside itself.
 */
#ifndef FORMATS_URL_PLACE_H
#define FORMATS_URL_PLACE_H

#include <stdbool.h>

#include "formats/reference.h"

/* Is @name one of those that url_place_open() knows? */
bool url_place_knows(const char *name);

/*
 * The format of what is at @url where nobody declares one; NULL: to be guessed. An
 * export is what its server says it is: raw.
 */
const char *url_place_format(const char *url);

/*
 * Opens @url. @named: by the user, so that it may lie anywhere; else @allow must
 * have it, or it is -EPERM. @ret is written on success only and the caller's to
 * place_file_done(); its path is for messages and has no secrets. The message
 * names the URL.
 */
int url_place_open(const char *url, bool named, const struct allow *allow,
		   struct place_file *ret, struct error *err);

#endif
