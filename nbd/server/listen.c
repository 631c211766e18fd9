/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "iouring/util.h"
#include "nbd/text.h"

int fd_move_high(int fd)
{
	int high;

	if (fd < 0)
		return -errno;
	high = fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);
	if (high < 0)
		high = -errno;
	close(fd);
	return high;
}

int listen_unix(const char *path, struct listener *ret, struct error *err)
{
	struct listener l = { 0 };
	int fd, r = socket_listen(path, false, &l.file, &fd, err);

	if (r < 0)
		return r;
	fd = fd_move_high(fd);
	if (fd < 0) {
		r = error_set(err, fd, 0, "cannot listen on %s: %s",
			      l.file.path, errno_text(-fd));
		listener_done(&l);
		return r;
	}
	l.fds[l.n_fds++] = fd;
	*ret = l;
	return 0;
}

static uint16_t bound_port(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} sa = { 0 };
	socklen_t len = sizeof(sa);

	if (getsockname(fd, &sa.any, &len) < 0)
		return 0;
	return ntohs(sa.any.sa_family == AF_INET6 ? sa.in6.sin6_port
						  : sa.in.sin_port);
}

static bool is_any(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(
			&((const struct sockaddr_in6 *)sa)->sin6_addr);
	return ((const struct sockaddr_in *)sa)->sin_addr.s_addr ==
	       htonl(INADDR_ANY);
}

static int bind_tcp(struct listener *l, const struct addrinfo *ai,
		    uint16_t port)
{
	struct sockaddr_storage ss;
	int fd, r, on = 1;

	memcpy(&ss, ai->ai_addr, ai->ai_addrlen);
	if (ai->ai_family == AF_INET6)
		((struct sockaddr_in6 *)&ss)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&ss)->sin_port = htons(port);
	fd = fd_move_high(socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&ss, ai->ai_addrlen) < 0 ||
	    listen(fd, SOMAXCONN) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	l->fds[l->n_fds++] = fd;
	l->port = bound_port(fd);
	l->any = l->any || is_any(ai->ai_addr);
	return 0;
}

int listen_tcp(const char *address, uint16_t port, struct listener *ret,
	       struct error *err)
{
	static const struct addrinfo hints = { .ai_flags = AI_PASSIVE,
					       .ai_socktype = SOCK_STREAM };
	struct listener l = { .port = port };
	struct addrinfo *list, *ai;
	int r, failed = 0;

	r = getaddrinfo(address, NULL, &hints, &list);
	if (r)
		return error_set(err, -EINVAL, 0, "address \"%s\": %s", address,
				 gai_strerror(r));
	for (ai = list; ai && l.n_fds < LISTEN_FDS_MAX; ai = ai->ai_next) {
		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		r = bind_tcp(&l, ai, l.port);
		if (!failed)
			failed = r;
		/* "localhost" may name an IPv6 address that is not there. */
		if (r < 0 && r != -EADDRNOTAVAIL && r != -EAFNOSUPPORT)
			break;
		r = 0;
	}
	freeaddrinfo(list);
	l.address = strdup(address);
	if (r < 0 || !l.n_fds || !l.address) {
		r = failed ? failed : -ENOMEM;
		listener_done(&l);
		return error_set(err, r, 0, "cannot listen on %s port %u: %s",
				 address, port, errno_text(-r));
	}
	*ret = l;
	return 0;
}

void listener_done(struct listener *l)
{
	socket_file_done(&l->file);
	while (l->n_fds)
		close(l->fds[--l->n_fds]);
	free(l->address);
	*l = (struct listener){ 0 };
}

char *listener_uri(const struct listener *l, bool tls, const char *export,
		   const char *query)
{
	CLEANUP(freep) char *name = text_percent(export, "@");
	CLEANUP(freep) char *where = NULL;
	const char *address = l->address;
	char *ret;
	int r;

	if (l->any)
		address = strchr(l->address, ':') ? "::1" : "127.0.0.1";
	if (l->file.path)
		where = text_percent(l->file.path, "/");
	else
		/* The colons of IPv6; a "%" before an interface is encoded. */
		where = text_percent(address, ":");
	if (!name || !where)
		return NULL;
	if (l->file.path) {
		r = asprintf(&ret, "nbd%s+unix:///%s?socket=%s%s%s",
			     tls ? "s" : "", name, where, query ? "&" : "",
			     query ? query : "");
		return r < 0 ? NULL : ret;
	}
	r = asprintf(&ret, "nbd%s://%s%s%s:%u%s%s%s%s", tls ? "s" : "",
		     strchr(where, ':') ? "[" : "", where,
		     strchr(where, ':') ? "]" : "", l->port,
		     *name || query ? "/" : "", name, query ? "?" : "",
		     query ? query : "");
	return r < 0 ? NULL : ret;
}
