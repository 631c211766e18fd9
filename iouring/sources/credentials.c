/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
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
	*c = (struct credentials){ 0 };
}

static bool is_same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool credentials_are_same(const struct credentials *a,
			  const struct credentials *b)
{
	return is_same(a->bearer, b->bearer) && is_same(a->login, b->login);
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

/* "[URL] KIND VALUE": cuts @line at its words. False: it is not so. */
static bool split(char *line, char **url, char **kind, char **value)
{
	static const char spaces[] = " \t\r";
	char *words[4] = { 0 }, *rest = NULL, *w;
	size_t n = 0;

	for (w = strtok_r(line, spaces, &rest); w && n < 4;
	     w = strtok_r(NULL, spaces, &rest))
		words[n++] = w;
	if (n != 2 && n != 3)
		return false;
	*url = n == 3 ? words[0] : NULL;
	*kind = words[n - 2];
	*value = words[n - 1];
	return !strcmp(*kind, "bearer") ||
	       (!strcmp(*kind, "basic") && strchr(*value, ':'));
}

static int take(struct credentials *c, const char *kind, const char *value,
		struct error *err)
{
	char *copy = strdup(value);

	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	credentials_done(c);
	if (!strcmp(kind, "bearer"))
		c->bearer = copy;
	else
		c->login = copy;
	return 0;
}

/* How well the line fits; 0: not at all. -EINVAL: it cannot be understood. */
static int fit(const char *prefix, const struct url *u, bool named,
	       struct error *err)
{
	CLEANUP(url_done) struct url p = { 0 };
	int r;

	if (!prefix)
		return named;
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
	char *line, *rest = NULL, *url, *kind, *value;
	int r = read_file(path, &text, err), best = 0, how;

	for (line = r < 0 ? NULL : strtok_r(text, "\n", &rest); line && r >= 0;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (*line == '#' || !line[strspn(line, " \t\r")])
			continue;
		how = split(line, &url, &kind, &value)
			      ? fit(url, u, named, err)
			      : error_set(err, -EINVAL, 0,
					  "a line is not \"[URL] bearer "
					  "TOKEN\" or \"[URL] basic "
					  "USER:PASSWORD\"");
		r = how > best ? take(&c, kind, value, err) : how;
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
