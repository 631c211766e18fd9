/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens in a file, for sites without a Keystone:
 *
 *	{ "TOKEN": { "project": "ID", "user": "ID", "roles": ["member"] } }
 *
 * Read again when it changes; one that cannot be read leaves the last good one
 * in force, and is told once.
 */
#ifndef GLANCE_TOKEN_TABLE_H
#define GLANCE_TOKEN_TABLE_H

#include "glance/auth.h"

struct token_table;

int token_table_open(const char *path, struct token_table **ret,
		     struct error *err);
void token_table_free(struct token_table *t); /* NULL is fine */

/* -EACCES: nobody has that token. Any thread. */
int token_table_find(struct token_table *t, const char *token,
		     struct identity *ret, struct error *err);

#endif
