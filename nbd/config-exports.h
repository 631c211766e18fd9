/* SPDX-License-Identifier: BSD-3-Clause */
/* config.c's: the images of a server, and the paths that parameters name. */
#ifndef NBD_CONFIG_EXPORTS_H
#define NBD_CONFIG_EXPORTS_H

#include "nbd/config.h"

/*
 * Absolute, as nbdkit changes its folder; links are not followed, as names
 * in the image count from the folder in which the user found it. *ret is the
 * caller's.
 */
int config_absolute_path(const char *value, char **ret, struct error *err);

/* The path of an image. A URL is the same from everywhere. */
int config_image_path(const char *value, char **ret, struct error *err);

/* Parameter export=, "NAME=FILE". */
int config_add_export(struct config *c, const char *value, struct error *err);
void config_exports_done(struct config *c);

#endif
