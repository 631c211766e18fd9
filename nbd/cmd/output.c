/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iouring/write.h"
#include "nbd/cmd/output.h"
#include "nbd/config.h"

static int fail(struct error *err, int code, const char *path, const char *what)
{
	return error_set(err, -code, 0, "%s: cannot be %s: %s", path, what,
			 errno_text(code));
}

/* The folder in which @path lies. To be freed. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int check_absent(const struct output *o, struct error *err)
{
	struct stat st;

	if (lstat(o->path, &st) < 0)
		return errno == ENOENT ? 0 : fail(err, errno, o->path, "made");
	if (!o->overwrite)
		return error_set(err, -EEXIST, 0,
				 "%s: is there already; --overwrite replaces "
				 "it",
				 o->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, 0,
				 "%s: is not a regular file, and is not "
				 "replaced",
				 o->path);
	return 0;
}

/* What any new file would have. */
static mode_t usual_mode(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return 0666 & ~mask;
}

/* A name beside the final one, that nobody has. */
static char *temp_pattern(const struct output *o)
{
	CLEANUP(freep) char *folder = folder_of(o->path);
	char *ret;

	return folder && asprintf(&ret, "%s/.platter-XXXXXX", folder) >= 0
		       ? ret
		       : NULL;
}

/* Where the file system cannot do without a name. */
static int open_named(struct output *o)
{
	CLEANUP(freep) char *temp = temp_pattern(o);
	int fd = temp ? mkostemp(temp, O_CLOEXEC) : -1;

	if (fd >= 0)
		o->temp = TAKE_PTR(temp);
	return fd;
}

/* What is killed leaves nothing where files may be without a name. */
static int open_temp(struct output *o, mode_t mode, struct error *err)
{
	CLEANUP(freep) char *folder = folder_of(o->path);
	int fd;

	if (!folder)
		return error_set(err, -ENOMEM, 0, "out of memory");
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR ||
		       errno == ENOSYS || errno == EINVAL))
		fd = open_named(o);
	if (fd < 0)
		return fail(err, errno, o->path, "made");
	if (fchmod(fd, mode) < 0) {
		int code = errno;

		close(fd);
		return fail(err, code, o->path, "made");
	}
	return file_source_adopt_rw(fd, 0, &o->dst, err);
}

static int link_as(const struct output *o, const char *path)
{
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d",
		 source_file(o->dst)->fd);
	return linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

int output_name(struct output *o, struct error *err)
{
	CLEANUP(freep) char *temp = NULL;
	int fd, tries = 100;

	while (!o->temp && tries--) {
		free(temp);
		temp = temp_pattern(o);
		/* A name that was free a moment ago. */
		fd = temp ? mkostemp(temp, O_CLOEXEC) : -1;
		if (fd < 0)
			return fail(err, errno, o->path, "made");
		close(fd);
		unlink(temp);
		if (!link_as(o, temp))
			o->temp = TAKE_PTR(temp);
		else if (errno != EEXIST)
			return fail(err, errno, o->path, "made");
	}
	return o->temp ? 0 : fail(err, EEXIST, o->path, "made");
}

int output_begin(struct output *o, const char *path, bool overwrite,
		 struct error *err)
{
	int r;

	*o = (struct output){ .path = strdup(path), .overwrite = overwrite };
	if (!o->path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = config_check_path(path, err);
	if (r >= 0)
		r = check_absent(o, err);
	return r < 0 ? r : open_temp(o, usual_mode(), err);
}

int output_scratch(struct output *o, const char *folder, struct error *err)
{
	*o = (struct output){ 0 };
	if (asprintf(&o->path, "%s/platter", folder) < 0) {
		o->path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return open_temp(o, 0600, err);
}

int output_commit(struct output *o, struct error *err)
{
	unsigned int flags = o->overwrite ? 0 : RENAME_NOREPLACE;
	int r = source_sync(o->dst, err), code;

	if (r < 0) {
		error_prefix(err, "%s", o->path);
		return r;
	}
	if (!o->temp && !o->overwrite) {
		if (!link_as(o, o->path))
			return sync_folder_of(o->path, err);
		if (errno == EEXIST && (r = check_absent(o, err)) < 0)
			return r;
		return fail(err, errno, o->path, "given its name");
	}
	r = output_name(o, err);
	if (r < 0)
		return r;
	r = renameat2(AT_FDCWD, o->temp, AT_FDCWD, o->path, flags);
	code = errno;
	/* Not every file system can refuse to replace. */
	if (r < 0 && flags && (code == EINVAL || code == ENOSYS)) {
		r = check_absent(o, err);
		if (r < 0)
			return r;
		r = rename(o->temp, o->path);
		code = errno;
	}
	if (r < 0)
		return fail(err, code, o->path, "given its name");
	free(TAKE_PTR(o->temp));
	return sync_folder_of(o->path, err);
}

void output_done(struct output *o)
{
	if (o->temp)
		unlink(o->temp);
	source_unref(o->dst);
	free(o->temp);
	free(o->path);
	*o = (struct output){ 0 };
}

char *output_beside(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	char *ret;

	if (*name == '/' || !slash)
		return strdup(name);
	return asprintf(&ret, "%.*s/%s", (int)(slash - path), path, name) < 0
		       ? NULL
		       : ret;
}
