/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keystone, v3: whose token is it? Answers are remembered until the token
 * expires, for a minute at most, so that a revoked one is known by then.
 */
#ifndef GLANCE_KEYSTONE_H
#define GLANCE_KEYSTONE_H

#include "glance/auth.h"

struct keystone;

/* As whom we ask. Strings are the caller's, and outlive it. */
struct keystone_account {
	const char *user, *project; /* names, of the default domain */
	const char *password; /* a file */
};

/* @url: with "/v3" or without. Does not ask yet. */
int keystone_new(const char *url, const struct keystone_account *account,
		 struct keystone **ret, struct error *err);
void keystone_free(struct keystone *k); /* NULL is fine */

/*
 * -EACCES: Keystone does not know the token. -EAGAIN: Keystone cannot be
 * asked. Any thread.
 */
int keystone_find(struct keystone *k, const char *token, struct identity *ret,
		  struct error *err);

/*
 * GET URL/v3/PATH, as somebody who has a role in all the system: the JSON
 * object, for json_in_free().
 */
int keystone_get(struct keystone *k, const char *path, json_t **ret,
		 struct error *err);

#endif
