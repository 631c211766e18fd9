/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keystone, v3: whose token is it? Answers are remembered until the token
 * expires, for a minute at most, so that a revoked one is known by then; that
 * there is no such token, for some seconds. What is remembered is told at once,
 * however long Keystone takes over something else: no lock is held while it is
 * asked, a token is asked for once at a time, and those who wait for an answer
 * are no more than a number. That it does not answer is no answer.
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

/*
 * @url: with "/v3" or without. Does not ask yet. @waiters_max: requests that
 * may wait for an answer at the same time.
 */
int keystone_new(const char *url, const struct keystone_account *account,
		 unsigned int waiters_max, struct keystone **ret,
		 struct error *err);
/* Who waits is told -EAGAIN from now on. Any thread. NULL is fine. */
void keystone_stop(struct keystone *k);
void keystone_free(struct keystone *k); /* nobody waits; NULL is fine */

/* Who asks what. */
struct keystone_wish {
	const char *token;
	bool forgive; /* it may have expired, as far as Keystone allows that */
	/*
	 * From where: who asks for many tokens gets no more of Keystone's time
	 * than who asks for one, and no more than half of the places.
	 */
	const char *peer;
};

/*
 * -EACCES: Keystone does not know the token. -EAGAIN: it cannot be asked, or
 * too many wait for that. @err is for clients: the log has more. Any thread.
 */
int keystone_find(struct keystone *k, const struct keystone_wish *w,
		  struct identity *ret, struct error *err);

/*
 * All that Keystone says of @token, its catalog too: the object "token" of its
 * answer, for json_in_free(). Asks each time. -EACCES: it does not know the
 * token; -EAGAIN: it cannot be asked, and @err is not for clients. Any thread.
 */
int keystone_token(struct keystone *k, const char *token, json_t **ret,
		   struct error *err);

/*
 * GET URL/v3/PATH, as somebody who has a role in all the system: the JSON
 * object, for json_in_free(). Any thread.
 */
int keystone_get(struct keystone *k, const char *path, json_t **ret,
		 struct error *err);

#endif
