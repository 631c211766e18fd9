/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/store.h"

struct store {
	char *path;
	char *index_path;
	int fd; /* the folder */
};

static int make_folder(int at, const char *name, struct error *err)
{
	if (mkdirat(at, name, 0750) < 0 && errno != EEXIST)
		return error_set(err, -errno, 0, "store: %s: %s", name,
				 errno_text(errno));
	return 0;
}

int store_open(const char *path, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->fd = -1;
	s->path = strdup(path);
	if (!s->path || asprintf(&s->index_path, "%s/index.sqlite", path) < 0) {
		s->index_path = NULL;
		r = error_set(err, -ENOMEM, 0, "out of memory");
		goto fail;
	}
	r = make_folder(AT_FDCWD, path, err);
	if (r < 0)
		goto fail;
	s->fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (s->fd < 0) {
		r = error_set(err, -errno, 0, "store: %s: %s", path,
			      errno_text(errno));
		goto fail;
	}
	r = make_folder(s->fd, "images", err);
	if (r >= 0)
		r = make_folder(s->fd, "incoming", err);
	if (r < 0)
		goto fail;
	*ret = s;
	return 0;
fail:
	store_close(s);
	return r;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	closep(&s->fd);
	free(s->index_path);
	free(s->path);
	free(s);
}

const char *store_index_path(const struct store *s)
{
	return s->index_path;
}
