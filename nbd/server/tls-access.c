/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/tls-access.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "iouring/util.h"

#define FILE_BYTES_MAX (4U << 20)

struct rule {
	char *export; /* with the peer behind it */
	char *peer; /* in export's memory */
};

struct tls_access {
	struct rule *rules;
	size_t n;
};

void tls_access_free(struct tls_access *a)
{
	if (!a)
		return;
	while (a->n)
		free(a->rules[--a->n].export);
	free(a->rules);
	free(a);
}

static void tls_access_freep(struct tls_access **a)
{
	tls_access_free(*a);
}

/* The first word of @line is ended, and what is behind it is returned. */
static char *split(char *line)
{
	char *peer = line + strcspn(line, " \t");

	if (*peer)
		*peer++ = '\0';
	return peer + strspn(peer, " \t");
}

static int take_line(struct tls_access *a, const char *line, struct error *err)
{
	CLEANUP(freep) char *copy = strdup(line + strspn(line, " \t"));
	struct rule *grown, r;
	size_t n;

	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (n = strlen(copy); n && strchr(" \t\r\n", copy[n - 1]); n--)
		copy[n - 1] = '\0';
	if (!*copy || *copy == '#')
		return 0;
	r.peer = split(copy);
	if (!*r.peer)
		return error_set(
			err, -EBADMSG, 0,
			"is no EXPORT PEER: one word, and who may open "
			"what it names");
	if (!strcmp(copy, "\"\""))
		*copy = '\0';
	grown = reallocarray(a->rules, a->n + 1, sizeof(*grown));
	if (!grown)
		return error_set(err, -ENOMEM, 0, "out of memory");
	a->rules = grown;
	r.export = TAKE_PTR(copy);
	a->rules[a->n++] = r;
	return 0;
}

static int take_lines(struct tls_access *a, FILE *fp, struct error *err)
{
	CLEANUP(freep) char *line = NULL;
	size_t room = 0, number = 0, bytes = 0;
	ssize_t n;
	int r = 0;

	while (!r && (n = getline(&line, &room, fp)) > 0) {
		number++;
		bytes += (size_t)n;
		if (bytes > FILE_BYTES_MAX)
			return error_set(err, -EFBIG, 0,
					 "has more than %u bytes",
					 FILE_BYTES_MAX);
		if (strlen(line) != (size_t)n)
			return error_set(err, -EBADMSG, 0,
					 "line %zu: has a byte of zero",
					 number);
		r = take_line(a, line, err);
		if (r < 0)
			error_prefix(err, "line %zu", number);
	}
	if (!r && ferror(fp))
		r = error_set(err, -EIO, 0, "%s", errno_text(EIO));
	return r;
}

/* A file, whatever it is called: a FIFO would be waited for. */
static FILE *open_rules(const char *path, struct error *err)
{
	CLEANUP(closep)
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	FILE *fp = NULL;

	if (fd < 0 || fstat(fd, &st) < 0) {
		error_set(err, -errno, 0, "%s", errno_text(errno));
	} else if (!S_ISREG(st.st_mode)) {
		error_set(err, -EINVAL, 0, "is no regular file");
	} else if (st.st_mode & S_IWOTH) {
		error_set(err, -EPERM, 0,
			  "every user of this machine may write it");
	} else {
		fp = fdopen(fd, "r");
		if (fp)
			TAKE_FD(fd);
		else
			error_set(err, -ENOMEM, 0, "out of memory");
	}
	return fp;
}

int tls_access_read(const char *path, struct tls_access **ret,
		    struct error *err)
{
	CLEANUP(tls_access_freep)
	struct tls_access *a = calloc(1, sizeof(*a));
	FILE *fp = a ? open_rules(path, err) : NULL;
	int r;

	if (!a)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = fp ? take_lines(a, fp, err) : err->code;
	if (fp)
		fclose(fp);
	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	*ret = TAKE_PTR(a);
	return 0;
}

bool tls_access_permits(const struct tls_access *a, const char *export,
			const char *peer)
{
	size_t i;

	for (i = 0; i < a->n && *peer; i++)
		if (!fnmatch(a->rules[i].export, export, 0) &&
		    !fnmatch(a->rules[i].peer, peer, 0))
			return true;
	return false;
}
