/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/reference.h"
#include "iouring/beneath.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/url.h"

/* Longer names are refused before any system call sees them. */
#define NAME_BYTES_MAX 4095U

/* One for all who have it open under one path. */
struct folder {
	struct place place;
	struct folder *next;
	int fd; /* O_PATH */
	dev_t dev;
	ino_t ino;
	char *path; /* absolute, links resolved, no slash at the end but "/" */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct folder *open_folders;
static const struct place_ops folder_ops;

char *path_of_fd(int fd)
{
	char link[64], path[PATH_MAX + 1];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || path[0] != '/')
		return NULL;
	path[n] = '\0';
	return strdup(path);
}

static void folder_close(struct folder *f)
{
	close(f->fd);
	free(f->path);
	free(f);
}

/* Takes a reference, unless the last one has just been given back. */
static bool try_ref(struct folder *f)
{
	unsigned int refs = atomic_load(&f->place.refs);

	while (refs &&
	       !atomic_compare_exchange_weak(&f->place.refs, &refs, refs + 1))
		;
	return refs;
}

/* The one that is open already, or @f. */
static struct folder *join(struct folder *f)
{
	struct folder *other;

	pthread_mutex_lock(&lock);
	for (other = open_folders; other; other = other->next)
		if (other->dev == f->dev && other->ino == f->ino &&
		    !strcmp(other->path, f->path) && try_ref(other))
			break;
	if (!other) {
		f->next = open_folders;
		open_folders = f;
	}
	pthread_mutex_unlock(&lock);
	if (!other)
		return f;
	folder_close(f);
	return other;
}

static void place_free(struct place *p)
{
	struct folder *f = container_of(p, struct folder, place);
	struct folder **at = &open_folders;

	pthread_mutex_lock(&lock);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	pthread_mutex_unlock(&lock);
	folder_close(f);
}

static int folder_adopt(int fd, struct folder **ret, struct error *err)
{
	struct folder *f = calloc(1, sizeof(*f));
	struct stat st;

	if (f)
		f->path = path_of_fd(fd);
	if (!f || !f->path || fstat(fd, &st) < 0) {
		if (f)
			free(f->path);
		free(f);
		close(fd);
		return error_set(err, -ENOMEM, 0,
				 "the folder's path cannot be found");
	}
	f->fd = fd;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	place_init(&f->place, &folder_ops);
	*ret = join(f);
	return 0;
}

int folder_open(const char *path, struct folder **ret, struct error *err)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, -errno, 0, "folder %s: %s", path,
				 errno_text(errno));
	return folder_adopt(fd, ret, err);
}

int folder_of_file(const char *path, struct folder **ret, struct error *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP(freep) char *dir = NULL;

	if (!slash)
		return folder_open(".", ret, err);
	dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!dir)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return folder_open(dir, ret, err);
}

int folder_of_fd(int fd, struct folder **ret, struct error *err)
{
	CLEANUP(freep) char *path = path_of_fd(fd);

	return path ? folder_of_file(path, ret, err)
		    : error_set(err, -ENOMEM, 0,
				"the file's path cannot be found");
}

void folder_unref(struct folder *f)
{
	place_unref(folder_place(f));
}

struct place *folder_place(struct folder *f)
{
	return f ? &f->place : NULL;
}

void folder_unrefp(struct folder **f)
{
	folder_unref(*f);
}

const char *folder_path(const struct folder *f)
{
	return f->path;
}

int folder_for_each(struct folder *f,
		    int (*each)(void *opaque, const char *name), void *opaque)
{
	int fd = openat(f->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;
	int left = FOLDER_ENTRIES_MAX, r = 0;

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (!r && left-- && (d = readdir(dir)))
		r = each(opaque, d->d_name);
	closedir(dir);
	return r;
}

static int append(const char ***list, size_t *n, const char *value,
		  struct error *err)
{
	const char **p = reallocarray(*list, *n + 1, sizeof(*p));

	if (!p)
		return error_set(err, -ENOMEM, 0, "out of memory");
	p[(*n)++] = value;
	*list = p;
	return 0;
}

static int add_url(struct allow *a, const char *value, struct error *err)
{
	CLEANUP(url_done) struct url u = { 0 };
	int r = url_is_web(value) ? url_parse(value, &u, err) : 0;

	if (r < 0) {
		error_prefix(err, "%s", AS_GIVEN("allow", "--allow"));
		return r;
	}
	return append(&a->urls, &a->n_urls, value, err);
}

bool allow_has_url(const struct allow *a, const char *url)
{
	CLEANUP(url_done) struct url u = { 0 };
	bool has = false;
	size_t i;

	/* An export, by all of its name. */
	for (i = 0; i < a->n_urls && nbd_source_is_uri(url) && !has; i++)
		has = !strcmp(a->urls[i], url);
	/* Who we are to a server is no image's to say. */
	if (has || url_parse(url, &u, NULL) < 0 || u.login)
		return has;
	for (i = 0; i < a->n_urls && !has; i++) {
		CLEANUP(url_done) struct url p = { 0 };

		has = !url_parse(a->urls[i], &p, NULL) &&
		      url_is_beneath(&u, &p);
	}
	return has;
}

int allow_add(struct allow *a, const char *value, struct error *err)
{
	struct stat st;
	size_t len = strlen(value);

	if (!strcmp(value, "guessed")) {
		a->guessed = true;
		return 0;
	}
	if (len && value[len - 1] == ':' && !strchr(value, '/'))
		return append(&a->prefixes, &a->n_prefixes, value, err);
	if (url_is_web(value) || nbd_source_is_uri(value))
		return add_url(a, value, err);
	if (stat(value, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, -EINVAL, 0,
				 "%s%s is neither a folder, nor \"guessed\", "
				 "nor a prefix such as \"json:\", nor a URL",
				 AS_GIVEN("allow=", "--allow "), value);
	return append(&a->folders, &a->n_folders, value, err);
}

void allow_done(struct allow *a)
{
	free(a->folders);
	free(a->prefixes);
	free(a->urls);
	*a = (struct allow){ 0 };
}

/* What of the absolute @path lies beneath @folder; NULL: it does not. */
static const char *beneath(const char *folder, const char *path)
{
	size_t n = strcmp(folder, "/") ? strlen(folder) : 0;

	if (strncmp(folder, path, n) || path[n] != '/')
		return NULL;
	while (path[n] == '/')
		n++;
	return path[n] ? path + n : NULL;
}

/* Is the real path @real beneath @f? Opens it if so; else -EXDEV. */
static int open_real_in(const struct folder *f, const char *real)
{
	const char *rest = beneath(f->path, real);

	return rest ? open_file_beneath(f->fd, rest, BENEATH_NO_LINKS) : -EXDEV;
}

/* By its text, beneath @f; -EXDEV: it is not. */
static int open_text_in(const struct folder *f, const char *name)
{
	const char *rest = *name == '/' ? beneath(f->path, name) : name;

	return rest ? open_file_beneath(f->fd, rest, BENEATH_LINKS) : -EXDEV;
}

/*
 * Where does @name lead, links and all? Nothing is opened for reading; what
 * is found is used to compare with permitted folders and for nothing else.
 */
static char *real_path(int from, const char *name)
{
	CLEANUP(closep) int fd = openat(from, name, O_PATH | O_CLOEXEC);

	return fd < 0 ? NULL : path_of_fd(fd);
}

/* Returns a descriptor, or -EXDEV when @name leads to no permitted place. */
static int open_permitted(struct folder *from, const char *name,
			  const struct allow *allow)
{
	CLEANUP(freep) char *real = NULL;
	int fd = open_text_in(from, name);
	size_t i;

	if (fd != -EXDEV)
		return fd;
	real = real_path(from->fd, name);
	if (real)
		fd = open_real_in(from, real);
	for (i = 0; fd == -EXDEV && i < allow->n_folders; i++) {
		struct folder *f = NULL;

		if (folder_open(allow->folders[i], &f, NULL) < 0)
			continue;
		if (real)
			fd = open_real_in(f, real);
		else if (*name == '/')
			fd = open_text_in(f, name);
		folder_unref(f);
	}
	return fd;
}

int folders_open_file(struct folder *const *folders, size_t n, const char *path)
{
	CLEANUP(freep) char *real = NULL;
	int fd = -EXDEV;
	size_t i;

	for (i = 0; i < n && fd == -EXDEV; i++)
		fd = open_text_in(folders[i], path);
	/* By way of links that leave one, or that lie above it. */
	if (fd == -EXDEV || fd == -ELOOP)
		real = real_path(AT_FDCWD, path);
	for (i = 0; i < n && real && (fd == -EXDEV || fd == -ELOOP); i++)
		fd = open_real_in(folders[i], real);
	return fd;
}

int folder_open_in(const struct folder *f, const char *name,
		   struct folder **ret, struct error *err)
{
	int fd = open_beneath(f->fd, name, O_PATH | O_DIRECTORY, 0,
			      BENEATH_NO_LINKS);

	if (fd < 0)
		return error_set(err, fd, 0, "folder %s/%s: %s", f->path, name,
				 errno_text(-fd));
	return folder_adopt(fd, ret, err);
}

int folder_open_file(const struct folder *f, const char *name)
{
	return open_file_beneath(f->fd, name, BENEATH_LINKS);
}

static enum reference_verdict verdict_of(int code)
{
	switch (code) {
	case -EXDEV:
	case -ELOOP:
		return REFERENCE_OUTSIDE;
	case -ENOENT:
	case -ENOTDIR:
		return REFERENCE_MISSING;
	case -EBADF:
		return REFERENCE_SPECIAL;
	default:
		return code < 0 ? REFERENCE_FAILED : REFERENCE_OK;
	}
}

static int refuse(enum reference_verdict v, int code, const char *what,
		  const char *name, struct error *err)
{
	switch (v) {
	case REFERENCE_OUTSIDE:
		return error_set(err, -EPERM, 0,
				 "%s lies outside the image's folder: "
				 "%s permits another one",
				 what, AS_GIVEN("allow=DIR", "--allow DIR"));
	case REFERENCE_MISSING:
		return error_set(err, -ENOENT, 0, "%s \"%s\" is missing", what,
				 name);
	case REFERENCE_SPECIAL:
		return error_set(err, -EPERM, 0,
				 "%s \"%s\" is not a regular file", what, name);
	default:
		return error_set(err, code, 0, "%s \"%s\" cannot be opened: %s",
				 what, name, errno_text(-code));
	}
}

/* Tells where the open @fd lies. */
static int locate(int fd, struct place_file *ret, struct error *err)
{
	CLEANUP(freep) char *path = path_of_fd(fd);
	struct folder *f;
	int r;

	if (!path)
		return error_set(err, -ENOMEM, 0,
				 "the file's path cannot be found");
	r = folder_of_file(path, &f, err);
	if (r < 0)
		return r;
	ret->place = folder_place(f);
	ret->path = TAKE_PTR(path);
	return 0;
}

static int open_in_place(struct place *p, const struct place_ask *ask,
			 struct place_file *ret,
			 enum reference_verdict *ret_verdict, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	CLEANUP(source_unrefp) struct source *src = NULL;
	int r;

	if (!*ask->name || strlen(ask->name) > NAME_BYTES_MAX)
		fd = -EINVAL;
	else
		fd = open_permitted(container_of(p, struct folder, place),
				    ask->name, ask->allow);
	*ret_verdict = verdict_of(fd);
	if (*ret_verdict != REFERENCE_OK)
		return refuse(*ret_verdict, fd, ask->what, ask->name, err);
	r = file_source_adopt(TAKE_FD(fd), ask->direct ? FILE_DIRECT : 0, &src,
			      err);
	if (r < 0)
		error_prefix(err, "%s \"%s\"", ask->what, ask->name);
	else
		r = locate(source_file(src)->fd, ret, err);
	if (r >= 0)
		ret->src = TAKE_PTR(src);
	else
		*ret_verdict = REFERENCE_FAILED;
	return r;
}

static int names_in_place(struct place *p,
			  int (*each)(void *opaque, const char *name),
			  void *opaque)
{
	return folder_for_each(container_of(p, struct folder, place), each,
			       opaque);
}

static const char *text_of_place(const struct place *p)
{
	return container_of(p, struct folder, place)->path;
}

static const struct place_ops folder_ops = {
	.open = open_in_place,
	.for_each = names_in_place,
	.text = text_of_place,
	.free = place_free,
};
