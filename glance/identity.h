/* SPDX-License-Identifier: BSD-3-Clause */
/* Who somebody is. */
#ifndef GLANCE_IDENTITY_H
#define GLANCE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "iouring/error.h"

/* Strings are owned; identity_done() frees them. Zeroed: nobody. */
struct identity {
	char *project; /* id; NULL: none */
	char *user; /* id; NULL: none */
	char **roles; /* lower case */
	size_t n_roles;
	bool admin;
	bool member; /* may write in its project */
	bool reader; /* may read in its project */
};

void identity_done(struct identity *id);

/*
 * From an object with the project's and the user's id under these keys, and
 * the names of "roles". An administrator has the role admin, who may write
 * admin or member; any role may read.
 */
int identity_from_json(const json_t *who, const char *project, const char *user,
		       struct identity *ret, struct error *err);

#endif
