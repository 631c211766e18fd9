/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sockets on which `platter serve` is reached. They belong to the
 * supervisor, so that they stay while the server behind them is restarted.
 */
#ifndef NBD_SERVER_LISTEN_H
#define NBD_SERVER_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "iouring/error.h"
#include "iouring/unix-socket.h"

#define LISTEN_FDS_MAX 8 /* addresses that one name may stand for */

struct listener {
	int fds[LISTEN_FDS_MAX]; /* at least FD_HIGH */
	unsigned int n_fds;
	uint16_t port; /* TCP: the one that is bound */
	char *address; /* TCP: as it was given */
	bool any; /* TCP: every address of this machine */
	struct socket_file file; /* no path: TCP */
};

/*
 * Descriptors of ours lie above those that a child is given by number.
 * Returns @fd, just made by a system call, moved there and close-on-exec; or
 * a negative errno, also where that call has failed.
 */
#define FD_HIGH 64
int fd_move_high(int fd);

/*
 * A socket file that nobody listens on is replaced; one that is in use, or
 * that is no socket, is refused. @ret is written on success only.
 */
int listen_unix(const char *path, struct listener *ret, struct error *err);

/* @port 0: a free one, see ret->port. */
int listen_tcp(const char *address, uint16_t port, struct listener *ret,
	       struct error *err);

/* Closes, and removes the socket's file when it is still ours. */
void listener_done(struct listener *l);

/*
 * Where clients reach @export (not encoded, "" for the default one). @query:
 * further parameters as "KEY=VALUE", encoded, or NULL. To be freed; NULL when
 * there is no memory.
 */
char *listener_uri(const struct listener *l, bool tls, const char *export,
		   const char *query);

#endif
