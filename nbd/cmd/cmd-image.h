/* SPDX-License-Identifier: BSD-3-Clause */
/* platter image: its options, and the part with data in cmd-image-data.c. */
#ifndef NBD_CMD_CMD_IMAGE_H
#define NBD_CMD_CMD_IMAGE_H

#include "nbd/cmd/api.h"
#include "nbd/cmd/cmd.h"

struct image_cmd {
	struct cmd cmd;
	struct api_options where;
	struct api api;
	json_t *fields; /* to be set, by their names in API v2 */
	json_t *unset; /* names */
	json_t *tags;
	struct text_buf query; /* of list: "name=x&" */
	const char *status; /* share: of the member */
	bool remove; /* share: no more */
	bool raw; /* save: the disk */
	bool overwrite;
	bool quiet;
};

/* Carry it out, with @n operands; return the exit status. */
int image_create(struct image_cmd *c, int n, char **operands);
int image_save(struct image_cmd *c, int n, char **operands);

/* ---- cmd-image-find.c ---- */

/*
 * "/v2/images/ID" of the one image with that id or name; to be freed. NULL:
 * there is none, or there are several.
 */
char *image_path(struct image_cmd *c, const char *image, struct error *err);
int image_add_tags(struct image_cmd *c, const char *path, struct error *err);
/* The string @key of @image, "" where there is none. */
const char *image_text(const json_t *j, const char *key);
/* Prints @image, as asked for, and drops it. */
void image_print(const struct image_cmd *c, json_t *image);

#endif
