/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "iouring/sources/credentials.h"

static void wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

static void wipep(char **text)
{
	wipe(*text);
}

void credentials_done(struct credentials *c)
{
	wipe(c->bearer);
	wipe(c->login);
	wipe(c->keys);
	wipe(c->token);
	wipe(c->keystone);
	free(c->auth);
	free(c->project);
	free(c->domain);
	free(c->endpoint);
	free(c->region);
	*c = (struct credentials){ 0 };
}

static bool is_same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* A token of Keystone's says nothing that its user does not. */
bool credentials_are_same(const struct credentials *a,
			  const struct credentials *b)
{
	return is_same(a->bearer, b->bearer) && is_same(a->login, b->login) &&
	       is_same(a->keys, b->keys) && is_same(a->keystone, b->keystone) &&
	       (a->keystone || is_same(a->token, b->token));
}

static bool copy_text(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return !text || *ret;
}

int credentials_copy(const struct credentials *c, struct credentials *ret)
{
	struct credentials n = { .by_host = c->by_host };

	if (!copy_text(c->bearer, &n.bearer) ||
	    !copy_text(c->login, &n.login) || !copy_text(c->keys, &n.keys) ||
	    !copy_text(c->token, &n.token) ||
	    !copy_text(c->keystone, &n.keystone) ||
	    !copy_text(c->auth, &n.auth) ||
	    !copy_text(c->project, &n.project) ||
	    !copy_text(c->domain, &n.domain) ||
	    !copy_text(c->endpoint, &n.endpoint) ||
	    !copy_text(c->region, &n.region)) {
		credentials_done(&n);
		return -ENOMEM;
	}
	*ret = n;
	return 0;
}

/* @text: of CREDENTIALS_BYTES_MAX and a NUL. */
static int read_text(int fd, char *text, struct error *err)
{
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, 0, "is not a regular file");
	if (st.st_size > CREDENTIALS_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "has %lld bytes, the limit is %u",
				 (long long)st.st_size, CREDENTIALS_BYTES_MAX);
	n = read(fd, text, CREDENTIALS_BYTES_MAX);
	if (n < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	text[n] = '\0';
	return 0;
}

/* All of the file, with a NUL behind; the caller's to wipe(). */
static int read_file(const char *path, char **ret, struct error *err)
{
	CLEANUP(closep)
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *text = calloc(1, CREDENTIALS_BYTES_MAX + 1);
	int r;

	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = read_text(fd, text, err);
	if (r < 0)
		wipep(&text);
	else
		*ret = text;
	return r;
}

/* A line's words, in it. */
struct words {
	const char *url; /* NULL: there is none */
	const char *kind, *value;
	const char *endpoint, *region, *auth, *project, *domain;
	bool by_host;
};

static bool is_kind(const char *word)
{
	return !strcmp(word, "bearer") || !strcmp(word, "basic") ||
	       !strcmp(word, "s3") || !strcmp(word, "token") ||
	       !strcmp(word, "keystone");
}

static bool take_option(struct words *w, const char *word)
{
	const struct {
		const char *name;
		const char **to;
	} options[] = { { "endpoint=", &w->endpoint },
			{ "region=", &w->region },
			{ "auth=", &w->auth },
			{ "project=", &w->project },
			{ "domain=", &w->domain } };
	size_t i, len;

	if (!strcmp(w->kind, "bearer") || !strcmp(w->kind, "basic"))
		return false;
	for (i = 0; i < ARRAY_SIZE(options); i++) {
		len = strlen(options[i].name);
		if (!strncmp(word, options[i].name, len) && word[len]) {
			*options[i].to = word + len;
			return true;
		}
	}
	w->by_host = !strcmp(word, "style=host");
	return w->by_host || !strcmp(word, "style=path");
}

/* "[URL] KIND VALUE OPTION...": cuts @line at its words. False: it is not so. */
static bool split(char *line, struct words *ret)
{
	static const char spaces[] = " \t\r";
	struct words w = { 0 };
	char *rest = NULL, *word = strtok_r(line, spaces, &rest);

	if (word && !is_kind(word)) {
		w.url = word;
		word = strtok_r(NULL, spaces, &rest);
	}
	w.kind = word;
	w.value = word ? strtok_r(NULL, spaces, &rest) : NULL;
	if (!w.value || !is_kind(w.kind))
		return false;
	if (strcmp(w.kind, "bearer") && strcmp(w.kind, "token") &&
	    !strchr(w.value, ':'))
		return false;
	while ((word = strtok_r(NULL, spaces, &rest)))
		if (!take_option(&w, word))
			return false;
	*ret = w;
	return true;
}

static char *if_kind(const struct words *w, const char *kind)
{
	return strcmp(w->kind, kind) ? NULL : (char *)(uintptr_t)w->value;
}

static int take(struct credentials *c, const struct words *w, struct error *err)
{
	const struct credentials all = {
		.bearer = if_kind(w, "bearer"),
		.login = if_kind(w, "basic"),
		.keys = if_kind(w, "s3"),
		.token = if_kind(w, "token"),
		.keystone = if_kind(w, "keystone"),
		.auth = (char *)(uintptr_t)w->auth,
		.project = (char *)(uintptr_t)w->project,
		.domain = (char *)(uintptr_t)w->domain,
		.endpoint = (char *)(uintptr_t)w->endpoint,
		.region = (char *)(uintptr_t)w->region,
		.by_host = w->by_host,
	};
	struct credentials copy;

	if (credentials_copy(&all, &copy) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	credentials_done(c);
	*c = copy;
	return 0;
}

/* "swift://": of all stores of a kind. */
static bool is_scheme(const char *prefix)
{
	const char *end = strstr(prefix, "://");

	return url_is_store(prefix) && end && !end[3];
}

/* How well the line fits; 0: not at all. -EINVAL: it cannot be understood. */
static int fit(const char *prefix, const struct url *u, bool named,
	       struct error *err)
{
	CLEANUP(url_done) struct url p = { 0 };
	int r;

	if (!prefix)
		return named;
	if (is_scheme(prefix))
		return !strncmp(prefix, u->scheme, strlen(u->scheme)) &&
		       prefix[strlen(u->scheme)] == ':';
	r = url_parse(prefix, &p, err);
	if (r < 0)
		return r;
	return url_is_beneath(u, &p) ? 1 + (int)strlen(p.path) : 0;
}

int credentials_read(const char *path, const struct url *u, bool named,
		     struct credentials *ret, struct error *err)
{
	CLEANUP(wipep) char *text = NULL;
	struct credentials c = { 0 };
	char *line, *rest = NULL;
	struct words w;
	int r = read_file(path, &text, err), best = 0, how;

	for (line = r < 0 ? NULL : strtok_r(text, "\n", &rest); line && r >= 0;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (*line == '#' || !line[strspn(line, " \t\r")])
			continue;
		how = split(line, &w)
			      ? fit(w.url, u, named, err)
			      : error_set(err, -EINVAL, 0,
					  "a line is not \"[URL] bearer "
					  "TOKEN\", \"[URL] basic "
					  "USER:PASSWORD\", \"[URL] s3 "
					  "ACCESS:SECRET\", \"[URL] token "
					  "TOKEN\" or \"[URL] keystone "
					  "USER:PASSWORD\"");
		r = how > best ? take(&c, &w, err) : how;
		if (how > best)
			best = how;
	}
	if (r < 0) {
		credentials_done(&c);
		error_prefix(err, "credentials: %s", path);
		return r;
	}
	*ret = c;
	return 0;
}
