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

#define LISTEN_FDS_MAX	    64U
#define LISTEN_PORT_DEFAULT 10809U

enum endpoint_kind { ENDPOINT_UNIX, ENDPOINT_TCP, ENDPOINT_VSOCK };

/* An address that clients are told of. One name may stand for several sockets. */
struct endpoint {
	enum endpoint_kind kind;
	struct socket_file file; /* unix */
	char *address; /* TCP: as it was given, without brackets */
	uint32_t port; /* TCP, vsock: the one that is bound */
	bool any; /* TCP: every address of this machine */
	unsigned int n_fds; /* at least 1 */
};

/* Zeroed: nothing. */
struct listener {
	int fds[LISTEN_FDS_MAX]; /* of all endpoints, in order; at least FD_HIGH */
	unsigned int n_fds;
	struct endpoint endpoints[LISTEN_FDS_MAX];
	unsigned int n_endpoints;
};

/*
 * Descriptors of ours lie above those that a child is given by number.
 * Returns @fd, just made by a system call, moved there and close-on-exec; or
 * a negative errno, also where that call has failed.
 */
#define FD_HIGH 128
int fd_move_high(int fd);

/*
 * These add an endpoint to *@l, or leave it as it is and return a negative errno
 * with a message.
 *
 * A socket file that nobody listens on is replaced; one that is in use, or
 * that is no socket, is refused. @rights: see socket_listen().
 */
int listen_unix(const char *path, const struct socket_rights *rights,
		struct listener *l, struct error *err);

/* @port 0: a free one, see the endpoint's. */
int listen_tcp(const char *address, uint16_t port, struct listener *l,
	       struct error *err);

/* What virtual machines of this host reach, vsock(7), on any of its ids. */
int listen_vsock(uint32_t port, struct listener *l, struct error *err);

/* @text: "unix:PATH", "vsock:PORT", "ADDRESS", "ADDRESS:PORT", "[IPV6]:PORT". */
int listen_at(const char *text, const struct socket_rights *rights,
	      struct listener *l, struct error *err);

/* Takes over @e and its sockets @fds, which are moved; on failure they close. */
int listener_add(struct listener *l, struct endpoint *e, const int *fds,
		 struct error *err);

/* Closes, and removes sockets' files that are still ours. */
void listener_done(struct listener *l);

/*
 * Where clients reach @export (not encoded, "" for the default one). @user: by
 * whose key, or NULL. @query: further parameters as "KEY=VALUE", encoded, or NULL.
 * To be freed; NULL when there is no memory.
 */
char *endpoint_uri(const struct endpoint *e, bool tls, const char *user,
		   const char *export, const char *query);

#endif
