/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/log.h"
#include "glance/record.h"
#include "glance/store.h"
#include "iouring/beneath.h"

struct store {
	char *path;
	char *index_path;
	int fd; /* the folder */
	struct store_lock *lock; /* NULL: we do not have it */
};

#define LOST_FOUND "lost+found"
/* Of one id in lost+found/. */
#define ASIDE_MAX  1000U

static const char *const area_names[] = {
	[STORE_INCOMING] = "incoming",
	[STORE_STAGING] = "staging",
};

static const char *const endings[] = {
	[STORE_DATA] = "",
	[STORE_SIDECAR] = ".json",
	[STORE_SIDECAR_NEW] = ".json.new",
};

static int make_folder(int at, const char *name, struct error *err)
{
	if (mkdirat(at, name, 0750) < 0 && errno != EEXIST)
		return error_set(err, -errno, 0, "store: %s: %s", name,
				 errno_text(errno));
	return 0;
}

/* ---- names inside, on whose way no link is followed ---- */

static int fail(int code, const char *name, struct error *err)
{
	return error_set(err, code, 0, "store: %s: %s", name,
			 code == -ELOOP ? "is, or lies behind, a symbolic link"
					: errno_text(-code));
}

static int open_folder(const struct store *s, const char *name)
{
	return open_beneath(s->fd, name, O_RDONLY | O_DIRECTORY, 0,
			    BENEATH_NO_LINKS);
}

/* An entry of the folder @fd; a negative errno: there is no such folder. */
struct place {
	int fd;
	const char *base;
};

static void place_done(struct place *p)
{
	closep(&p->fd);
}

static struct place place_of(const struct store *s, const char *name)
{
	const char *slash = strrchr(name, '/');
	CLEANUP(freep) char *folder = strndup(name, (size_t)(slash - name));

	return (struct place){ folder ? open_folder(s, folder) : -ENOMEM,
			       slash + 1 };
}

static int open_in(const struct store *s, const char *name, int flags,
		   mode_t mode)
{
	return open_beneath(s->fd, name, flags, mode, BENEATH_NO_LINKS);
}

static int stat_in(const struct store *s, const char *name, struct stat *ret)
{
	CLEANUP(place_done) struct place p = place_of(s, name);

	if (p.fd < 0)
		return p.fd;
	return fstatat(p.fd, p.base, ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static void unlink_in(const struct store *s, const char *name)
{
	CLEANUP(place_done) struct place p = place_of(s, name);

	if (p.fd >= 0)
		unlinkat(p.fd, p.base, 0);
}

/* @flags: renameat2(2)'s. 0 or a negative errno. */
static int rename_in(const struct store *s, const char *from, const char *to,
		     unsigned int flags)
{
	CLEANUP(place_done) struct place a = place_of(s, from);
	CLEANUP(place_done) struct place b = place_of(s, to);

	if (a.fd < 0 || b.fd < 0)
		return a.fd < 0 ? a.fd : b.fd;
	return renameat2(a.fd, a.base, b.fd, b.base, flags) < 0 ? -errno : 0;
}

static int make_folders(struct store *s, struct error *err)
{
	size_t i;
	int r = make_folder(s->fd, "images", err);

	for (i = 0; i < ARRAY_SIZE(area_names) && r >= 0; i++)
		r = make_folder(s->fd, area_names[i], err);
	return r;
}

/* A store whose images lie somewhere else is mounted, not linked. */
static int check_folders(const struct store *s, struct error *err)
{
	static const char *const names[] = { "images", "incoming", "staging" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP(closep) int fd = open_folder(s, names[i]);

		if (fd < 0 && fd != -ENOENT)
			return fail(fd, names[i], err);
	}
	return 0;
}

static int open_store(const char *path, bool make, struct store **ret,
		      struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->fd = -1;
	s->path = strdup(path);
	if (!s->path || asprintf(&s->index_path, "%s/index.sqlite", path) < 0) {
		s->index_path = NULL;
		r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r >= 0 && make)
		r = make_folder(AT_FDCWD, path, err);
	if (r >= 0)
		s->fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (r >= 0 && s->fd < 0)
		r = error_set(err, -errno, 0, "store: %s: %s", path,
			      errno_text(errno));
	if (r >= 0 && make)
		r = make_folders(s, err);
	if (r >= 0)
		r = check_folders(s, err);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int store_open(const char *path, struct store **ret, struct error *err)
{
	return open_store(path, true, ret, err);
}

int store_open_look(const char *path, struct store **ret, struct error *err)
{
	return open_store(path, false, ret, err);
}

void store_close(struct store *s)
{
	if (!s)
		return;
	store_lock_drop(s->lock);
	closep(&s->fd);
	free(s->index_path);
	free(s->path);
	free(s);
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

static struct inside file_name(const char *id, enum store_file file)
{
	struct inside n;

	snprintf(n.text, sizeof(n.text), "images/%.2s/%.36s%s", id, id,
		 endings[file]);
	return n;
}

static struct inside image_name(const char *id)
{
	return file_name(id, STORE_DATA);
}

static struct inside folder_name(const char *id)
{
	struct inside n;

	snprintf(n.text, sizeof(n.text), "images/%.2s", id);
	return n;
}

static int open_inside(struct store *s, struct inside name, int flags, int *ret,
		       struct error *err)
{
	int fd = open_in(s, name.text, flags, 0600);

	if (fd < 0)
		return fail(fd, name.text, err);
	*ret = fd;
	return 0;
}

char *store_image_path(const struct store *s, const char *id)
{
	char *path;

	if (asprintf(&path, "%s/%s", s->path, image_name(id).text) < 0)
		return NULL;
	return path;
}

int store_data_open(struct store *s, const char *id, int *ret,
		    struct error *err)
{
	struct inside name = image_name(id);
	int fd = open_file_beneath(s->fd, name.text, BENEATH_NO_LINKS);

	if (fd < 0)
		return fail(fd, name.text, err);
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
	struct stat st;

	return stat_in(s, area_name(STORE_STAGING, id).text, &st) == 0;
}

static int sync_folder(struct store *s, const char *name, struct error *err)
{
	CLEANUP(closep)
	int fd = open_folder(s, name);

	if (fd < 0)
		return fail(fd, name, err);
	return fsync(fd) < 0 ? fail(-errno, name, err) : 0;
}

/* 0, or a negative errno; -EEXIST: there is @to already. */
static int rename_new(struct store *s, const char *from, const char *to)
{
	int r = rename_in(s, from, to, RENAME_NOREPLACE);
	struct stat st;

	/* Not every file system can refuse to replace. */
	if (r != -EINVAL && r != -ENOSYS)
		return r;
	return stat_in(s, to, &st) == 0 ? -EEXIST : rename_in(s, from, to, 0);
}

/* @name, of image @id, to lost+found/; it may be gone. */
static int put_aside(struct store *s, const char *name, const char *id,
		     const char *ending, const char *why, struct error *err)
{
	struct inside to;
	unsigned int i;
	int r = -EEXIST;

	if (mkdirat(s->fd, LOST_FOUND, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, 0, "store: " LOST_FOUND ": %s",
				 errno_text(errno));
	for (i = 0; i < ASIDE_MAX && r == -EEXIST; i++) {
		if (i)
			snprintf(to.text, sizeof(to.text),
				 LOST_FOUND "/%.36s.%u%s", id, i, ending);
		else
			snprintf(to.text, sizeof(to.text),
				 LOST_FOUND "/%.36s%s", id, ending);
		r = rename_new(s, name, to.text);
	}
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(err, r, 0, "store: %s: %s", name,
				 errno_text(-r));
	log_line("store: %s: %s: %s now", name, why, to.text);
	return sync_folder(s, LOST_FOUND, err);
}

int store_put_aside(struct store *s, const char *id, enum store_file file,
		    const char *why, struct error *err)
{
	return put_aside(s, file_name(id, file).text, id, endings[file], why,
			 err);
}

static const char in_the_way[] = "nobody knows of it, and it was in the way";

static int put_image_aside(struct store *s, const char *id, struct error *err)
{
	int r = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(endings) && r >= 0; i++)
		r = store_put_aside(s, id, (enum store_file)i, in_the_way, err);
	return r;
}

/* Durable, also under its new name. */
static int move(struct store *s, struct inside from, struct inside to,
		const char *id, int fd, struct error *err)
{
	int r = fsync(fd) < 0 ? -errno : rename_new(s, from.text, to.text);

	if (r == -EEXIST) {
		r = strncmp(to.text, "images/", 7)
			    ? put_aside(s, to.text, id, ".staged", in_the_way,
					err)
			    : put_image_aside(s, id, err);
		if (r < 0)
			return r;
		r = rename_new(s, from.text, to.text);
	}
	if (r < 0)
		return error_set(err, r, 0, "store: %s: %s", from.text,
				 errno_text(-r));
	return 0;
}

int store_stage(struct store *s, const char *id, int fd, struct error *err)
{
	int r = move(s, area_name(STORE_INCOMING, id),
		     area_name(STORE_STAGING, id), id, fd, err);

	return r < 0 ? r : sync_folder(s, area_names[STORE_STAGING], err);
}

int store_make_folder(struct store *s, const char *id, struct error *err)
{
	struct inside name = folder_name(id);
	CLEANUP(place_done) struct place p = place_of(s, name.text);
	int r;

	if (p.fd < 0)
		return fail(p.fd, name.text, err);
	if (faccessat(p.fd, p.base, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	r = make_folder(p.fd, p.base, err);
	return r < 0 ? r : sync_folder(s, "images", err);
}

int store_sync(struct store *s, const char *id, struct error *err)
{
	int r = sync_folder(s, folder_name(id).text, err);

	return r < 0 ? r : sync_folder(s, "images", err);
}

int store_sync_folder(struct store *s, const char *id, struct error *err)
{
	return sync_folder(s, folder_name(id).text, err);
}

int store_commit(struct store *s, enum store_area area, const char *id, int fd,
		 struct error *err)
{
	int r = store_check_lock(s, err);

	if (r >= 0)
		r = store_make_folder(s, id, err);
	if (r >= 0)
		r = move(s, area_name(area, id), image_name(id), id, fd, err);
	return r < 0 ? r : store_sync(s, id, err);
}

void store_discard(struct store *s, enum store_area area, const char *id)
{
	unlink_in(s, area_name(area, id).text);
}

int store_rename(struct store *s, const char *from, const char *to,
		 struct error *err)
{
	int r = rename_in(s, image_name(from).text, image_name(to).text, 0);

	if (r == -ENOENT) /* done already */
		return 0;
	if (r < 0)
		return fail(r, image_name(from).text, err);
	return sync_folder(s, folder_name(to).text, err);
}

void store_remove(struct store *s, const char *id)
{
	/* The data last: what is left of a kill is still the tombstone's. */
	store_file_unlink(s, id, STORE_SIDECAR);
	store_file_unlink(s, id, STORE_SIDECAR_NEW);
	store_file_unlink(s, id, STORE_DATA);
}

/* Back from store_commit(), which the index has not heard of. */
int store_stage_again(struct store *s, const char *id, struct error *err)
{
	struct inside from = image_name(id);
	int r = rename_new(s, from.text, area_name(STORE_STAGING, id).text);

	if (r < 0)
		return error_set(err, r, 0, "store: %s: %s", from.text,
				 errno_text(-r));
	return sync_folder(s, area_names[STORE_STAGING], err);
}

/* ---- what lies there ---- */

int store_file_open(struct store *s, const char *id, enum store_file file,
		    int flags, int *ret, struct error *err)
{
	struct inside name = file_name(id, file);

	return open_inside(s, name, flags, ret, err);
}

int store_file_stat(struct store *s, const char *id, enum store_file file,
		    struct stat *ret)
{
	return stat_in(s, file_name(id, file).text, ret);
}

bool store_file_is(struct store *s, const char *id, enum store_file file)
{
	struct stat st;

	return store_file_stat(s, id, file, &st) == 0;
}

void store_file_unlink(struct store *s, const char *id, enum store_file file)
{
	unlink_in(s, file_name(id, file).text);
}

int store_file_rename(struct store *s, const char *id, enum store_file from,
		      enum store_file to, bool replace)
{
	struct inside a = file_name(id, from), b = file_name(id, to);

	if (!replace)
		return rename_new(s, a.text, b.text);
	return rename_in(s, a.text, b.text, 0);
}

int store_sync_all(struct store *s, struct error *err)
{
	return syncfs(s->fd) < 0 ? error_set(err, -errno, 0, "store: %s",
					     errno_text(errno))
				 : 0;
}

/* Calls @each with the names in folder @name, but for hidden ones. */
static int each_in(struct store *s, const char *name,
		   int (*each)(void *opaque, const char *folder,
			       const char *file),
		   void *opaque, struct error *err)
{
	int fd = open_folder(s, name);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	int r = 0;

	if (fd == -ENOENT)
		return 0; /* nothing has been put there yet */
	if (!dir) {
		r = fail(fd < 0 ? fd : -errno, name, err);
		closep(&fd);
		return r;
	}
	while (!r && (d = readdir(dir)))
		if (*d->d_name != '.')
			r = each(opaque, name, d->d_name);
	closedir(dir);
	return r;
}

struct walk {
	struct store *s;
	int (*each)(void *opaque, const struct store_entry *e);
	void *opaque;
	struct error *err;
};

static bool split(const char *file, char id[37], enum store_file *ret)
{
	size_t i;

	snprintf(id, 37, "%.36s", file);
	if (!record_id_ok(id))
		return false;
	for (i = 0; i < ARRAY_SIZE(endings); i++) {
		if (!strcmp(file + 36, endings[i])) {
			*ret = (enum store_file)i;
			return true;
		}
	}
	return false;
}

static int show(struct walk *w, const char *folder, const char *file,
		bool staged)
{
	char path[NAME_MAX + 32], id[37];
	struct store_entry e = { .path = path, .staged = staged };

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	if (split(file, id, &e.file) &&
	    (staged ? e.file == STORE_DATA : !strncmp(id, folder + 7, 2)))
		e.id = id;
	return w->each(w->opaque, &e);
}

static int show_image(void *opaque, const char *folder, const char *file)
{
	return show(opaque, folder, file, false);
}

static int show_staged(void *opaque, const char *folder, const char *file)
{
	return show(opaque, folder, file, true);
}

static int look_into(void *opaque, const char *folder, const char *file)
{
	struct walk *w = opaque;
	struct stat st;
	char name[NAME_MAX + 16];

	snprintf(name, sizeof(name), "%s/%s", folder, file);
	if (fstatat(w->s->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(st.st_mode) && strlen(file) == 2)
		return each_in(w->s, name, show_image, w, w->err);
	return w->each(w->opaque, &(struct store_entry){ .path = name });
}

int store_each(struct store *s,
	       int (*each)(void *opaque, const struct store_entry *e),
	       void *opaque, struct error *err)
{
	struct walk w = { s, each, opaque, err };
	int r = each_in(s, area_names[STORE_STAGING], show_staged, &w, err);

	return r ? r : each_in(s, "images", look_into, &w, err);
}

static int count_one(void *opaque, const char *folder, const char *file)
{
	unsigned int *n = opaque;

	(*n)++;
	return 0;
}

unsigned int store_lost_found(struct store *s)
{
	unsigned int n = 0;

	each_in(s, LOST_FOUND, count_one, &n, NULL);
	return n;
}

/* ---- who has it ---- */

int store_lock(struct store *s, struct error *err)
{
	return store_lock_take(s->fd, s->path, &s->lock, err);
}

int store_lock_in_server(struct store *s, struct error *err)
{
	return store_lock_keep(s->lock, err);
}

int store_check_lock(const struct store *s, struct error *err)
{
	if (!s->lock || !store_lock_lost(s->lock))
		return 0;
	return error_set(err, -EIO, 0,
			 "the store has been taken over by another process");
}

int store_holder(struct store *s, struct store_holder *ret, struct error *err)
{
	return store_lock_holder(s->fd, ret, err);
}

static int drop_incoming(void *opaque, const char *folder, const char *file)
{
	if (record_id_ok(file))
		store_discard(opaque, STORE_INCOMING, file);
	return 0;
}

/* Of platter index restore and rebuild, and of a key that was being made. */
static bool is_half_made(const char *name)
{
	return !strncmp(name, STORE_INDEX_NEW, strlen(STORE_INDEX_NEW)) ||
	       (!strncmp(name, "grant.key.", 10) && strlen(name) == 16) ||
	       !strcmp(name, "lock.clock");
}

/* A second name of the index, which was about to be replaced. */
static bool is_second_name(const struct store *s, const char *name)
{
	struct stat a, b;

	return !strncmp(name, STORE_INDEX_OLD, strlen(STORE_INDEX_OLD)) &&
	       fstatat(s->fd, name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(s->fd, "index.sqlite", &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int drop_half_made(void *opaque, const char *folder, const char *file)
{
	const struct store *s = opaque;

	if (is_half_made(file) || is_second_name(s, file))
		unlinkat(s->fd, file, 0);
	return 0;
}

int store_clean(struct store *s, struct error *err)
{
	int r = each_in(s, area_names[STORE_INCOMING], drop_incoming, s, err);

	return r < 0 ? r : each_in(s, ".", drop_half_made, s, err);
}

const char *store_index_path(const struct store *s)
{
	return s->index_path;
}

const char *store_path(const struct store *s)
{
	return s->path;
}

int store_fd(const struct store *s)
{
	return s->fd;
}

int store_write(int fd, const void *data, size_t len, uint64_t off)
{
	const uint8_t *p = data;
	ssize_t n;

	while (len) {
		n = pwrite(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}
