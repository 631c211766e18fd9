/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/listen-inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#include "iouring/util.h"
#include "nbd/text.h"

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

static int take_unix(struct endpoint *e, const struct sockaddr_un *sa,
		     socklen_t len)
{
	e->kind = ENDPOINT_UNIX;
	if (len <= offsetof(struct sockaddr_un, sun_path) || !*sa->sun_path)
		return -EINVAL; /* no client of ours finds it */
	e->file.path = strndup(sa->sun_path, sizeof(sa->sun_path));
	return e->file.path ? 0 : -ENOMEM;
}

static int take_tcp(struct endpoint *e, const struct sockaddr *sa,
		    socklen_t len)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	char host[NI_MAXHOST];

	e->kind = ENDPOINT_TCP;
	if (getnameinfo(sa, len, host, sizeof(host), NULL, 0, NI_NUMERICHOST))
		return -EINVAL;
	e->address = strdup(host);
	e->port = ntohs(sa->sa_family == AF_INET6 ? in6->sin6_port
						  : in->sin_port);
	e->any = sa->sa_family == AF_INET6
			 ? IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr)
			 : in->sin_addr.s_addr == htonl(INADDR_ANY);
	return e->address ? 0 : -ENOMEM;
}

static int take_address(struct endpoint *e, int fd)
{
	struct sockaddr_storage ss = { 0 };
	const struct sockaddr *sa = (const void *)&ss;
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return -errno;
	switch (sa->sa_family) {
	case AF_UNIX:
		return take_unix(e, (const void *)&ss, len);
	case AF_INET:
	case AF_INET6:
		return take_tcp(e, sa, len);
	case AF_VSOCK:
		e->kind = ENDPOINT_VSOCK;
		e->port = ((const struct sockaddr_vm *)(const void *)&ss)
				  ->svm_port;
		return 0;
	default:
		return -EINVAL;
	}
}

static int take_socket(struct listener *l, int fd, struct error *err)
{
	struct endpoint e = { .n_fds = 1 };
	int r = option_is(fd, SO_ACCEPTCONN, 1) &&
				option_is(fd, SO_TYPE, SOCK_STREAM)
			? 0
			: -EINVAL;

	if (r >= 0)
		r = take_address(&e, fd);
	if (r >= 0)
		r = fd_move_high(fd);
	if (r >= 0)
		return listener_add(l, &e, &r, err);
	free(e.file.path);
	free(e.address);
	return error_set(err, r, 0,
			 "LISTEN_FDS: descriptor %d is no stream socket that "
			 "listens where clients can come",
			 fd);
}

int listen_inherited(struct listener *l, struct error *err)
{
	unsigned long i, n = count_fds();
	int r = 0;

	if (!n)
		return 0;
	if (n > LISTEN_FDS_MAX)
		return error_set(err, -E2BIG, 0,
				 "LISTEN_FDS: %lu sockets, at most %u are "
				 "possible",
				 n, LISTEN_FDS_MAX);
	for (i = 0; i < n && r >= 0; i++)
		r = take_socket(l, FIRST_FD + (int)i, err);
	if (r >= 0)
		return 1;
	listener_done(l);
	return r;
}

/* ---- from one that ran in our place ---- */

/*
 *	ENDPOINT...:FD...
 *	ENDPOINT: KIND,SOCKETS,PORT,ANY,DEVICE,INODE,TEXT;
 *	FD: NUMBER,
 *
 * with TEXT, the path or the address, encoded.
 */
void listener_write(const struct listener *l, FILE *fp)
{
	unsigned int i;

	for (i = 0; i < l->n_endpoints; i++) {
		const struct endpoint *e = &l->endpoints[i];
		const char *text =
			e->kind == ENDPOINT_UNIX ? e->file.path : e->address;
		CLEANUP(freep) char *safe = text_percent(text ? text : "", "/");

		fprintf(fp, "%u,%u,%" PRIu32 ",%d,%ju,%ju,%s;", e->kind,
			e->n_fds, e->port, e->any, (uintmax_t)e->file.dev,
			(uintmax_t)e->file.ino, safe ? safe : "");
	}
	fputc(':', fp);
	for (i = 0; i < l->n_fds; i++)
		fprintf(fp, "%d,", l->fds[i]);
}

static bool take_endpoint(char **p, struct endpoint *e)
{
	uintmax_t kind, n_fds, port, any, dev, ino;
	char *end, *text;

	if (!text_take_number(p, ',', ENDPOINT_VSOCK, &kind) ||
	    !text_take_number(p, ',', LISTEN_FDS_MAX, &n_fds) || !n_fds ||
	    !text_take_number(p, ',', UINT32_MAX, &port) ||
	    !text_take_number(p, ',', 1, &any) ||
	    !text_take_number(p, ',', UINTMAX_MAX, &dev) ||
	    !text_take_number(p, ',', UINTMAX_MAX, &ino))
		return false;
	end = strchr(*p, ';');
	if (!end)
		return false;
	*end = '\0';
	text = text_unpercent(*p);
	*p = end + 1;
	*e = (struct endpoint){ .kind = (enum endpoint_kind)kind,
				.port = (uint32_t)port,
				.any = any,
				.n_fds = (unsigned int)n_fds };
	if (kind == ENDPOINT_UNIX)
		e->file = (struct socket_file){ text, (dev_t)dev, (ino_t)ino };
	else
		e->address = text;
	return text;
}

bool listener_read(struct listener *l, char *text)
{
	unsigned int wanted = 0;
	uintmax_t fd;

	while (*text && *text != ':') {
		struct endpoint *e = &l->endpoints[l->n_endpoints];

		if (l->n_endpoints == LISTEN_FDS_MAX ||
		    !take_endpoint(&text, e))
			return false;
		l->n_endpoints++;
		wanted += e->n_fds;
	}
	for (text += *text == ':'; *text; l->fds[l->n_fds++] = (int)fd)
		if (l->n_fds == LISTEN_FDS_MAX ||
		    !text_take_number(&text, ',', INT_MAX, &fd))
			return false;
	return wanted && wanted == l->n_fds;
}
