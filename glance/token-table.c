/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "glance/digest.h"
#include "glance/http/json-body.h"
#include "glance/http/json-file.h"
#include "glance/http/json-in.h"
#include "glance/identity.h"
#include "glance/log.h"
#include "glance/token-table.h"

/* By the digest of the token: what is compared tells nothing of it. */
struct row {
	char key[129];
	json_t *who;
};

struct token_table {
	pthread_mutex_t lock; /* the rest */
	struct json_file file;
	struct row *rows;
	size_t n;
};

static void free_rows(struct row *rows, size_t n)
{
	while (n)
		json_decref(rows[--n].who);
	free(rows);
}

static int check_row(const char *token, const json_t *who, struct error *err)
{
	const json_t *roles = json_object_get(who, "roles");
	size_t i, n = json_array_size(roles);

	for (i = 0; i < n; i++)
		if (!json_is_string(json_array_get(roles, i)))
			break;
	if (!*token || !json_is_object(who) || (roles && i < n) ||
	    (roles && !json_is_array(roles)))
		return error_set(err, -EINVAL, 0,
				 "a token's value is an object with project, "
				 "user (texts) and roles (a list of texts)");
	return 0;
}

static int parse_rows(const json_t *all, struct row **ret, size_t *ret_n,
		      struct error *err)
{
	struct row *rows = calloc(json_object_size(all) + 1, sizeof(*rows));
	const char *token;
	json_t *who;
	size_t n = 0;
	int r = rows ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0 && !json_is_object(all))
		r = error_set(err, -EINVAL, 0, "is no JSON object");
	json_object_foreach((json_t *)all, token, who) {
		if (r >= 0)
			r = check_row(token, who, err);
		if (r >= 0)
			r = digest_text(token, rows[n].key, err);
		if (r >= 0)
			rows[n++].who = json_incref(who);
	}
	if (r < 0) {
		free_rows(rows, n);
		return r;
	}
	*ret = rows;
	*ret_n = n;
	return 0;
}

static int load(struct token_table *t, struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	struct row *rows;
	size_t n;
	int r = json_file_read(&t->file, &all, err);

	if (r >= 0)
		r = parse_rows(all, &rows, &n, err);
	if (r < 0) {
		error_prefix(err, "auth: %s", t->file.path);
		return r;
	}
	free_rows(t->rows, t->n);
	t->rows = rows;
	t->n = n;
	t->file.complained = false;
	return 0;
}

int token_table_open(const char *path, struct token_table **ret,
		     struct error *err)
{
	struct token_table *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	r = json_file_open(&t->file, path, err);
	if (r < 0)
		error_prefix(err, "auth");
	else
		r = load(t, err);
	if (r < 0) {
		token_table_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void token_table_free(struct token_table *t)
{
	if (!t)
		return;
	free_rows(t->rows, t->n);
	pthread_mutex_destroy(&t->lock);
	json_file_done(&t->file);
	free(t);
}

int token_table_find(struct token_table *t, const char *token,
		     struct identity *ret, struct error *err)
{
	struct error why = { 0 };
	char key[129];
	size_t i;
	int r = digest_text(token, key, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->lock);
	if (json_file_changed(&t->file) && load(t, &why) < 0 &&
	    !t->file.complained) {
		log_line("%s; the tokens before are in force", why.msg);
		t->file.complained = true;
	}
	for (i = 0; i < t->n && memcmp(t->rows[i].key, key, sizeof(key)); i++)
		;
	r = i < t->n ? identity_from_json(t->rows[i].who, "project", "user",
					  ret, err)
		     : error_set(err, -EACCES, 0, "nobody has that token");
	pthread_mutex_unlock(&t->lock);
	return r;
}
