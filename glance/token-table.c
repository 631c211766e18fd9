/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/digest.h"
#include "glance/json-body.h"
#include "glance/json-in.h"
#include "glance/token-table.h"

#define FILE_BYTES_MAX (4U << 20)

/* By the digest of the token: what is compared tells nothing of it. */
struct row {
	char key[129];
	json_t *who;
};

struct token_table {
	char *path;
	pthread_mutex_t lock; /* the rest */
	struct row *rows;
	size_t n;
	struct stat seen;
	bool complained;
};

static void free_rows(struct row *rows, size_t n)
{
	while (n)
		json_decref(rows[--n].who);
	free(rows);
}

static int read_file(const char *path, char **ret, size_t *ret_len,
		     struct stat *ret_stat, struct error *err)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	CLEANUP(freep) char *text = NULL;
	ssize_t n;

	if (fd < 0 || fstat(fd, ret_stat) < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	if (!S_ISREG(ret_stat->st_mode) || ret_stat->st_size > FILE_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "is no regular file of at most %u bytes",
				 FILE_BYTES_MAX);
	text = malloc((size_t)ret_stat->st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	n = read(fd, text, (size_t)ret_stat->st_size);
	if (n < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	*ret = TAKE_PTR(text);
	*ret_len = (size_t)n;
	return 0;
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
	CLEANUP(freep) char *text = NULL;
	struct stat st = { 0 };
	struct row *rows;
	size_t len, n;
	int r = read_file(t->path, &text, &len, &st, err);

	t->seen = st;
	if (r >= 0)
		r = json_in_parse(text, len, &all, err);
	if (r >= 0)
		r = parse_rows(all, &rows, &n, err);
	if (r < 0) {
		error_prefix(err, "auth: %s", t->path);
		return r;
	}
	free_rows(t->rows, t->n);
	t->rows = rows;
	t->n = n;
	t->complained = false;
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
	t->path = realpath(path, NULL);
	r = t->path ? load(t, err)
		    : error_set(err, -EINVAL, 0, "auth: %s: %s", path,
				errno_text(errno));
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
	free(t->path);
	free(t);
}

static bool has_changed(const struct token_table *t)
{
	struct stat st;

	if (stat(t->path, &st) < 0)
		return !t->complained;
	return st.st_ino != t->seen.st_ino || st.st_size != t->seen.st_size ||
	       st.st_mtim.tv_sec != t->seen.st_mtim.tv_sec ||
	       st.st_mtim.tv_nsec != t->seen.st_mtim.tv_nsec;
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
	if (has_changed(t) && load(t, &why) < 0 && !t->complained) {
		fprintf(stderr, "platter: %s; the tokens before are in force\n",
			why.msg);
		t->complained = true;
	}
	for (i = 0; i < t->n && memcmp(t->rows[i].key, key, sizeof(key)); i++)
		;
	r = i < t->n ? identity_from_json(t->rows[i].who, "project", "user",
					  ret, err)
		     : error_set(err, -EACCES, 0, "nobody has that token");
	pthread_mutex_unlock(&t->lock);
	return r;
}
