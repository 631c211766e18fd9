/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>

#include "glance/token-memory.h"
#include "iouring/util.h"

/* A token lies in one place of the set that its digest says. */
#define SETS 512U
#define WAYS 8U

struct entry {
	char key[TOKEN_KEY_BYTES];
	bool used;
	bool forgiven; /* of known ones; of denied ones: forgiving */
	int64_t until_usec;
	json_t *who; /* NULL: denied */
};

struct table {
	struct entry entries[SETS][WAYS];
};

struct token_memory {
	struct table known, denied;
};

struct token_memory *token_memory_new(void)
{
	return calloc(1, sizeof(struct token_memory));
}

static void forget(struct entry *e)
{
	json_decref(e->who);
	*e = (struct entry){ 0 };
}

void token_memory_free(struct token_memory *m)
{
	size_t i, k;

	if (!m)
		return;
	for (i = 0; i < SETS; i++)
		for (k = 0; k < WAYS; k++)
			forget(&m->known.entries[i][k]);
	free(m);
}

/* The digest is hexadecimal. */
static struct entry *set_of(struct table *t, const char *key)
{
	const char start[5] = { key[0], key[1], key[2], key[3] };

	return t->entries[strtoul(start, NULL, 16) % SETS];
}

static struct entry *find(struct table *t, const char *key)
{
	struct entry *set = set_of(t, key);
	size_t i;

	for (i = 0; i < WAYS; i++)
		if (set[i].used && !memcmp(set[i].key, key, TOKEN_KEY_BYTES))
			return &set[i];
	return NULL;
}

/* The one of @key, emptied; else a free one; else what would end first. */
static struct entry *make_place(struct table *t, const char *key)
{
	struct entry *set = set_of(t, key), *e = find(t, key);
	size_t i;

	for (i = 0; i < WAYS && !e; i++)
		if (!set[i].used)
			e = &set[i];
	for (i = 0; i < WAYS && (!e || e->used); i++)
		if (!e || (memcmp(e->key, key, TOKEN_KEY_BYTES) != 0 &&
			   set[i].until_usec < e->until_usec))
			e = &set[i];
	forget(e);
	memcpy(e->key, key, TOKEN_KEY_BYTES);
	e->used = true;
	return e;
}

enum token_verdict token_memory_recall(struct token_memory *m, const char *key,
				       bool forgive, int64_t now_usec,
				       json_t **ret_who)
{
	const struct entry *e = find(&m->known, key);

	if (e && now_usec < e->until_usec) {
		if (e->forgiven && !forgive)
			return TOKEN_DENIED;
		*ret_who = json_incref(e->who);
		return TOKEN_KNOWN;
	}
	e = find(&m->denied, key);
	if (e && now_usec < e->until_usec && (e->forgiven || !forgive))
		return TOKEN_DENIED;
	return TOKEN_UNKNOWN;
}

void token_memory_know(struct token_memory *m, const char *key, json_t *who,
		       bool forgiven, int64_t until_usec)
{
	struct entry *e = find(&m->denied, key);

	if (e)
		forget(e);
	e = make_place(&m->known, key);
	e->who = json_incref(who);
	e->forgiven = forgiven;
	e->until_usec = until_usec;
}

void token_memory_deny(struct token_memory *m, const char *key, bool forgiving,
		       int64_t until_usec)
{
	struct entry *e = find(&m->known, key);

	if (e && (forgiving || !e->forgiven))
		forget(e);
	e = make_place(&m->denied, key);
	e->forgiven = forgiving;
	e->until_usec = until_usec;
}
