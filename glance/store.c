/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/record.h"
#include "glance/store.h"

struct store {
	char *path;
	char *index_path;
	int fd; /* the folder */
};

static const char *const area_names[] = {
	[STORE_INCOMING] = "incoming",
	[STORE_STAGING] = "staging",
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
	size_t i;
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
	for (i = 0; i < ARRAY_SIZE(area_names) && r >= 0; i++)
		r = make_folder(s->fd, area_names[i], err);
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

char *store_image_path(const struct store *s, const char *id)
{
	char *path;

	if (asprintf(&path, "%s/images/%.2s/%s", s->path, id, id) < 0)
		return NULL;
	return path;
}

char *store_area_path(const struct store *s, enum store_area area,
		      const char *id)
{
	char *path;

	if (asprintf(&path, "%s/%s/%s", s->path, area_names[area], id) < 0)
		return NULL;
	return path;
}

/* Names inside the store: ids are of a known form, so these fit. */
struct inside {
	char text[64];
};

static struct inside area_name(enum store_area area, const char *id)
{
	struct inside n;

	snprintf(n.text, sizeof(n.text), "%s/%.36s", area_names[area], id);
	return n;
}

static struct inside image_name(const char *id)
{
	struct inside n;

	snprintf(n.text, sizeof(n.text), "images/%.2s/%.36s", id, id);
	return n;
}

static int open_inside(struct store *s, struct inside name, int flags, int *ret,
		       struct error *err)
{
	int fd = openat(s->fd, name.text, flags | O_CLOEXEC, 0640);

	if (fd < 0)
		return error_set(err, -errno, 0, "store: %s: %s", name.text,
				 errno_text(errno));
	*ret = fd;
	return 0;
}

int store_incoming_open(struct store *s, const char *id, int *ret,
			struct error *err)
{
	return open_inside(s, area_name(STORE_INCOMING, id),
			   O_RDWR | O_CREAT | O_TRUNC, ret, err);
}

int store_staging_open(struct store *s, const char *id, int *ret,
		       struct error *err)
{
	return open_inside(s, area_name(STORE_STAGING, id), O_RDONLY, ret, err);
}

bool store_has_staged(struct store *s, const char *id)
{
	return faccessat(s->fd, area_name(STORE_STAGING, id).text, F_OK, 0) ==
	       0;
}

static int sync_folder(struct store *s, const char *name, struct error *err)
{
	CLEANUP(closep)
	int fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return error_set(err, -errno, 0, "store: %s: %s", name,
				 errno_text(errno));
	return 0;
}

/* Durable, also under its new name. */
static int move(struct store *s, struct inside from, struct inside to, int fd,
		struct error *err)
{
	if (fsync(fd) < 0 || renameat(s->fd, from.text, s->fd, to.text) < 0)
		return error_set(err, -errno, 0, "store: %s: %s", from.text,
				 errno_text(errno));
	return 0;
}

int store_stage(struct store *s, const char *id, int fd, struct error *err)
{
	int r = move(s, area_name(STORE_INCOMING, id),
		     area_name(STORE_STAGING, id), fd, err);

	return r < 0 ? r : sync_folder(s, area_names[STORE_STAGING], err);
}

int store_commit(struct store *s, enum store_area area, const char *id, int fd,
		 struct error *err)
{
	char folder[16];
	int r;

	snprintf(folder, sizeof(folder), "images/%.2s", id);
	r = make_folder(s->fd, folder, err);
	if (r >= 0)
		r = move(s, area_name(area, id), image_name(id), fd, err);
	if (r >= 0)
		r = sync_folder(s, folder, err);
	return r < 0 ? r : sync_folder(s, "images", err);
}

void store_discard(struct store *s, enum store_area area, const char *id)
{
	unlinkat(s->fd, area_name(area, id).text, 0);
}

int store_rename(struct store *s, const char *from, const char *to,
		 struct error *err)
{
	char folder[16];

	if (renameat(s->fd, image_name(from).text, s->fd, image_name(to).text) <
	    0) {
		if (errno == ENOENT) /* done already */
			return 0;
		return error_set(err, -errno, 0, "store: %s: %s",
				 image_name(from).text, errno_text(errno));
	}
	snprintf(folder, sizeof(folder), "images/%.2s", to);
	return sync_folder(s, folder, err);
}

void store_remove(struct store *s, const char *id)
{
	unlinkat(s->fd, image_name(id).text, 0);
}

/* Calls @each with the names in folder @name, but for hidden ones. */
static int each_in(struct store *s, const char *name,
		   int (*each)(void *opaque, const char *folder,
			       const char *file),
		   void *opaque, struct error *err)
{
	int fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	int r = 0;

	if (!dir) {
		r = error_set(err, -errno, 0, "store: %s: %s", name,
			      errno_text(errno));
		closep(&fd);
		return r;
	}
	while (r >= 0 && (d = readdir(dir)))
		if (*d->d_name != '.')
			r = each(opaque, name, d->d_name);
	closedir(dir);
	return r;
}

struct tidying {
	struct store *s;
	int (*keep)(void *opaque, const char *id, bool staged);
	void *opaque;
	struct error *err;
};

static int drop_incoming(void *opaque, const char *folder, const char *file)
{
	struct tidying *t = opaque;

	if (record_id_ok(file))
		store_discard(t->s, STORE_INCOMING, file);
	return 0;
}

static int look_at_staged(void *opaque, const char *folder, const char *file)
{
	struct tidying *t = opaque;
	int r;

	if (!record_id_ok(file))
		return 0;
	r = t->keep(t->opaque, file, true);
	if (r == STORE_DROP)
		store_discard(t->s, STORE_STAGING, file);
	return r < 0 ? r : 0;
}

/* Back from store_commit(), which the index has not heard of. */
static int stage_again(struct store *s, const char *id, struct error *err)
{
	struct inside from = image_name(id);

	if (renameat(s->fd, from.text, s->fd,
		     area_name(STORE_STAGING, id).text) < 0)
		return error_set(err, -errno, 0, "store: %s: %s", from.text,
				 errno_text(errno));
	return sync_folder(s, area_names[STORE_STAGING], err);
}

static int look_at_file(void *opaque, const char *folder, const char *file)
{
	struct tidying *t = opaque;
	int r;

	if (!record_id_ok(file))
		return 0;
	r = t->keep(t->opaque, file, false);
	if (r == STORE_STAGE)
		return stage_again(t->s, file, t->err);
	if (r == STORE_DROP)
		store_remove(t->s, file);
	return r < 0 ? r : 0;
}

static int look_at_folder(void *opaque, const char *folder, const char *file)
{
	struct tidying *t = opaque;
	char name[16];

	if (strlen(file) != 2)
		return 0;
	snprintf(name, sizeof(name), "images/%.2s", file);
	return each_in(t->s, name, look_at_file, t, t->err);
}

int store_tidy(struct store *s,
	       int (*keep)(void *opaque, const char *id, bool staged),
	       void *opaque, struct error *err)
{
	struct tidying t = { s, keep, opaque, err };
	int r = each_in(s, area_names[STORE_INCOMING], drop_incoming, &t, err);

	if (r >= 0)
		r = each_in(s, area_names[STORE_STAGING], look_at_staged, &t,
			    err);
	return r < 0 ? r : each_in(s, "images", look_at_folder, &t, err);
}

const char *store_index_path(const struct store *s)
{
	return s->index_path;
}
