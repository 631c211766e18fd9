/* SPDX-License-Identifier: BSD-3-Clause */
/* Who asks. */
#ifndef GLANCE_AUTH_H
#define GLANCE_AUTH_H

#include <stdbool.h>

#include "glance/identity.h"
#include "iouring/error.h"

struct auth;
struct request;

struct keystone;
struct keystone_account;

/* What auth=keystone: needs besides. Strings are the caller's, and outlive it. */
struct auth_options {
	const struct keystone_account *account;
	const char *service_roles; /* by commas; NULL: "service" */
	unsigned int waiters_max; /* requests that may wait for Keystone */
};

/*
 * @spec: "none", "none-i-know", "tokens:FILE", "keystone:URL"; NULL: none.
 * @local: clients can come from this machine only (loopback, a unix socket),
 * which "none" is for.
 */
int auth_new(const char *spec, bool local, const struct auth_options *o,
	     struct auth **ret, struct error *err);
/* Is anybody asked who he is? */
bool auth_asks(const struct auth *a);
/* The value of WWW-Authenticate for who is turned away. */
const char *auth_challenge(const struct auth *a);
/* NULL: it is not Keystone who says it. */
struct keystone *auth_keystone(const struct auth *a);
/* Who waits to be identified is told -EAGAIN from now on. NULL is fine. */
void auth_stop(struct auth *a);
void auth_free(struct auth *a); /* NULL is fine */

/*
 * Who sent @q? A token of Keystone's that has expired is good with another in
 * X-Service-Token, of who has a role for that: long operations outlive the
 * tokens that began them. @ret is written on success only. -EACCES: nobody we know (401).
 * -EAGAIN: cannot be told at present (503).
 */
int auth_identify(struct auth *a, const struct request *q, struct identity *ret,
		  struct error *err);

#endif
