/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "iouring/unix-socket.h"
#include "iouring/util.h"

static char *absolute_path(const char *path)
{
	CLEANUP(freep) char *cwd = NULL;
	char *ret;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&ret, "%s/%s", cwd, path) < 0)
		return NULL;
	return ret;
}

/* Something is at @sa's path: makes room when it is a dead socket. */
static int replace_stale(const struct sockaddr_un *sa, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	struct stat st;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, 0,
				 "%s exists and is not a socket", sa->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 &&
	    errno == ECONNREFUSED)
		return unlink(sa->sun_path) < 0 ? -errno : 0;
	return error_set(err, -EADDRINUSE, 0,
			 "another server is listening on %s", sa->sun_path);
}

/* The file of its owner alone, where @private_. */
static int bind_private(int fd, const struct sockaddr_un *sa, bool private_)
{
	mode_t mask = 0;
	int r;

	if (private_)
		mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? -errno : 0;
	if (private_)
		umask(mask);
	return r;
}

/* Of the file itself, whatever its name leads to by now. */
static int give_rights(const char *path, const struct socket_rights *rights,
		       struct error *err)
{
	CLEANUP(closep) int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char name[32];

	if (fd < 0)
		return -errno;
	/* Where nobody is named, who may not call this at all is fine. */
	if ((rights->uid != (uid_t)-1 || rights->gid != (gid_t)-1) &&
	    fchownat(fd, "", rights->uid, rights->gid, AT_EMPTY_PATH) < 0)
		return error_set(err, -errno, 0,
				 "%s cannot be given to that owner or group: "
				 "%s",
				 path, errno_text(errno));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return chmod(name, rights->mode) < 0 ? -errno : 0;
}

static int bind_file(int fd, const struct sockaddr_un *sa,
		     const struct socket_rights *rights, struct socket_file *f,
		     struct error *err)
{
	bool private_ = rights != NULL;
	struct stat st;
	int r = bind_private(fd, sa, private_);

	if (r == -EADDRINUSE) {
		r = replace_stale(sa, err);
		if (r < 0)
			return r;
		r = bind_private(fd, sa, private_);
	}
	if (r < 0)
		return r;
	if (lstat(sa->sun_path, &st) < 0)
		return -errno;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	r = rights ? give_rights(sa->sun_path, rights, err) : 0;
	if (r < 0)
		return r;
	return listen(fd, SOMAXCONN) < 0 ? -errno : 0;
}

int socket_listen(const char *path, const struct socket_rights *rights,
		  struct socket_file *ret, int *ret_fd, struct error *err)
{
	CLEANUP(socket_file_done) struct socket_file f = { 0 };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	CLEANUP(closep) int fd = -1;
	int r;

	f.path = absolute_path(path);
	if (!f.path)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	if (strlen(f.path) >= sizeof(sa.sun_path))
		/* cppcheck-suppress memleak; it does not see CLEANUP() */
		return error_set(err, -ENAMETOOLONG, 0,
				 "the socket's path has %zu bytes, at most %zu "
				 "are possible: %s",
				 strlen(f.path), sizeof(sa.sun_path) - 1,
				 f.path);
	strcpy(sa.sun_path, f.path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	r = fd < 0 ? -errno : bind_file(fd, &sa, rights, &f, err);
	if (r < 0)
		return error_set(err, r, 0, "cannot listen on %s: %s", f.path,
				 errno_text(-r));
	*ret = f;
	*ret_fd = TAKE_FD(fd);
	f = (struct socket_file){ 0 };
	return 0;
}

void socket_file_done(struct socket_file *f)
{
	struct stat st;

	if (f->path && f->ino && !lstat(f->path, &st) && st.st_dev == f->dev &&
	    st.st_ino == f->ino)
		unlink(f->path);
	free(f->path);
	*f = (struct socket_file){ 0 };
}
