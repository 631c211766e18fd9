/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/listen-inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "iouring/util.h"

#define FIRST_FD 3 /* sd_listen_fds(3) */

/* Those of the environment that are for us; 0: none are. */
static unsigned long count_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	unsigned long n = 0;

	if (pid && fds && strtol(pid, NULL, 10) == getpid())
		n = strtoul(fds, NULL, 10);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return n;
}

static bool option_is(int fd, int option, int value)
{
	socklen_t len = sizeof(int);
	int have;

	return !getsockopt(fd, SOL_SOCKET, option, &have, &len) &&
	       have == value;
}

static int take_unix(struct listener *l, const struct sockaddr_un *sa,
		     socklen_t len)
{
	if (len <= offsetof(struct sockaddr_un, sun_path) || !*sa->sun_path)
		return -EINVAL; /* no client of ours finds it */
	l->file.path = strndup(sa->sun_path, sizeof(sa->sun_path));
	return l->file.path ? 0 : -ENOMEM;
}

static int take_tcp(struct listener *l, const struct sockaddr *sa,
		    socklen_t len)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	char host[NI_MAXHOST];

	if (getnameinfo(sa, len, host, sizeof(host), NULL, 0, NI_NUMERICHOST))
		return -EINVAL;
	l->address = strdup(host);
	l->port = ntohs(sa->sa_family == AF_INET6 ? in6->sin6_port
						  : in->sin_port);
	l->any = sa->sa_family == AF_INET6
			 ? IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr)
			 : in->sin_addr.s_addr == htonl(INADDR_ANY);
	return l->address ? 0 : -ENOMEM;
}

/* The first says where clients are told to go. */
static int take_address(struct listener *l, int fd)
{
	struct sockaddr_storage ss = { 0 };
	const struct sockaddr *sa = (const void *)&ss;
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return -errno;
	switch (sa->sa_family) {
	case AF_UNIX:
		return take_unix(l, (const void *)&ss, len);
	case AF_INET:
	case AF_INET6:
		return take_tcp(l, sa, len);
	default:
		return -EINVAL;
	}
}

int listen_inherited(struct listener *ret, struct error *err)
{
	unsigned long i, n = count_fds();
	struct listener l = { 0 };
	int fd = -1, r = 0;

	if (!n)
		return 0;
	if (n > LISTEN_FDS_MAX)
		return error_set(err, -E2BIG, 0,
				 "LISTEN_FDS: %lu sockets, at most %d are "
				 "possible",
				 n, LISTEN_FDS_MAX);
	for (i = 0; i < n && r >= 0; i++) {
		fd = FIRST_FD + (int)i;
		r = option_is(fd, SO_ACCEPTCONN, 1) &&
				    option_is(fd, SO_TYPE, SOCK_STREAM)
			    ? 0
			    : -EINVAL;
		if (r >= 0 && !i)
			r = take_address(&l, fd);
		if (r >= 0)
			r = fd_move_high(fd);
		if (r >= 0)
			l.fds[l.n_fds++] = r;
	}
	if (r < 0) {
		listener_done(&l);
		return error_set(err, r, 0,
				 "LISTEN_FDS: descriptor %d is no stream "
				 "socket that listens where clients can come",
				 fd);
	}
	*ret = l;
	return 1;
}
