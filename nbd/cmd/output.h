/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file that is made whole or not at all: written without a name, or under one
 * of its own beside the final one, synced, and then given that.
 */
#ifndef NBD_CMD_OUTPUT_H
#define NBD_CMD_OUTPUT_H

#include <stdbool.h>

#include "iouring/source.h"

struct output {
	char *path; /* the final name */
	char *temp; /* the name that it has meanwhile; NULL: none */
	bool overwrite;
	struct source *dst; /* to be written */
};

/* An existing @path is -EEXIST, unless @overwrite. */
int output_begin(struct output *o, const char *path, bool overwrite,
		 struct error *err);

/* A file in @folder, its owner's alone, that is never committed. */
int output_scratch(struct output *o, const char *folder, struct error *err);

/* Gives it a name of its own now (o->temp), for who must write by name. */
int output_name(struct output *o, struct error *err);

/* What has been written is safe, and has its name, when it returns 0. */
int output_commit(struct output *o, struct error *err);

/* Removes what has not been committed. */
void output_done(struct output *o);

/* The path of @name, seen from the folder of the file @path. To be freed. */
char *output_beside(const char *path, const char *name);

#endif
