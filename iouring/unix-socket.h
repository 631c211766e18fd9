/* SPDX-License-Identifier: BSD-3-Clause */
/* Unix sockets that somebody listens on, and their files. */
#ifndef IOURING_UNIX_SOCKET_H
#define IOURING_UNIX_SOCKET_H

#include <sys/types.h>

#include "iouring/error.h"

/* A socket's file. Zeroed: none. */
struct socket_file {
	char *path; /* absolute, owned */
	dev_t dev; /* of the file, so that only our own is ... */
	ino_t ino; /* ... removed at the end; 0: not made */
};

/* Who may connect. */
struct socket_rights {
	mode_t mode; /* of the file, 07777 at most */
	uid_t uid; /* (uid_t)-1: who listens */
	gid_t gid; /* (gid_t)-1: likewise */
};
#define SOCKET_PRIVATE ((struct socket_rights){ 0600, (uid_t)-1, (gid_t)-1 })

/*
 * Listens on @path: *ret_fd is close-on-exec. A socket file that nobody listens
 * on is replaced; one that is in use (-EADDRINUSE), or that is no socket
 * (-EEXIST), is refused. @rights: NULL: as the umask says; else nobody connects
 * before they hold, and it is called by one thread at a time. @ret and @ret_fd
 * are written on success only.
 */
int socket_listen(const char *path, const struct socket_rights *rights,
		  struct socket_file *ret, int *ret_fd, struct error *err);

/* Removes the file when it is still ours. */
void socket_file_done(struct socket_file *f);

#endif
