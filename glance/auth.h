/* SPDX-License-Identifier: BSD-3-Clause */
/* Who asks. */
#ifndef GLANCE_AUTH_H
#define GLANCE_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "iouring/error.h"

struct auth;
struct request;

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
 * @spec: "none". @local: clients can come from this machine only (loopback,
 * a unix socket). NULL @spec: none.
 */
int auth_new(const char *spec, bool local, struct auth **ret,
	     struct error *err);
void auth_free(struct auth *a); /* NULL is fine */

/*
 * Who sent @q? @ret is written on success only. -EACCES: nobody we know (401).
 * -EAGAIN: cannot be told at present (503).
 */
int auth_identify(struct auth *a, const struct request *q, struct identity *ret,
		  struct error *err);

#endif
