/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was said of tokens, by their digests: whose they are, or that they are
 * none. The two do not take room from each other, so that tokens that somebody
 * makes up do not drive out those of others. One thread at a time.
 */
#ifndef GLANCE_TOKEN_MEMORY_H
#define GLANCE_TOKEN_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

/* Of digest_text(), with the ending NUL. */
#define TOKEN_KEY_BYTES 129

enum token_verdict {
	TOKEN_UNKNOWN, /* nothing is remembered */
	TOKEN_DENIED,
	TOKEN_KNOWN,
};

struct token_memory;

struct token_memory *token_memory_new(void); /* NULL: no memory */
void token_memory_free(struct token_memory *m); /* NULL is fine */

/*
 * What is remembered at @now_usec, of the clock by which it was said until when.
 * @forgive: may the token have expired? For TOKEN_KNOWN *ret_who is a reference of the caller's.
 */
enum token_verdict token_memory_recall(struct token_memory *m, const char *key,
				       bool forgive, int64_t now_usec,
				       json_t **ret_who);

/* @forgiven: it has expired, so that it is one for who may forgive that. */
void token_memory_know(struct token_memory *m, const char *key, json_t *who,
		       bool forgiven, int64_t until_usec);
/* @forgiving: it would be none even if it had only expired. */
void token_memory_deny(struct token_memory *m, const char *key, bool forgiving,
		       int64_t until_usec);

#endif
