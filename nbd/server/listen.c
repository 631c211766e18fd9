/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

#include "iouring/util.h"
#include "nbd/text.h"

int fd_move_high(int fd)
{
	int high;

	if (fd < 0)
		return -errno;
	high = fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);
	/* EINVAL: no descriptor may be so high. */
	if (high < 0)
		high = errno == EINVAL ? -EMFILE : -errno;
	close(fd);
	return high;
}

static void endpoint_done(struct endpoint *e)
{
	socket_file_done(&e->file);
	free(e->address);
	*e = (struct endpoint){ 0 };
}

int listener_add(struct listener *l, struct endpoint *e, const int *fds,
		 struct error *err)
{
	unsigned int i;
	int r = 0;

	if (l->n_fds + e->n_fds > LISTEN_FDS_MAX)
		r = error_set(err, -E2BIG, 0, "over %u sockets are listened on",
			      LISTEN_FDS_MAX);
	for (i = 0; i < e->n_fds; i++) {
		if (r >= 0)
			l->fds[l->n_fds++] = fds[i];
		else
			close(fds[i]);
	}
	if (r < 0) {
		endpoint_done(e);
		return r;
	}
	l->endpoints[l->n_endpoints++] = *e;
	*e = (struct endpoint){ 0 };
	return 0;
}

int listen_unix(const char *path, const struct socket_rights *rights,
		struct listener *l, struct error *err)
{
	struct endpoint e = { .kind = ENDPOINT_UNIX, .n_fds = 1 };
	int fd, r = socket_listen(path, rights, &e.file, &fd, err);

	if (r < 0)
		return r;
	fd = fd_move_high(fd);
	if (fd >= 0)
		return listener_add(l, &e, &fd, err);
	r = error_set(err, fd, 0, "cannot listen on %s: %s", e.file.path,
		      errno_text(-fd));
	endpoint_done(&e);
	return r;
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

/* Adds one to @fds, and its port and whether it is any to @e. */
static int bind_tcp(struct endpoint *e, const struct addrinfo *ai, int *fds)
{
	struct sockaddr_storage ss;
	int fd, r, on = 1;

	memcpy(&ss, ai->ai_addr, ai->ai_addrlen);
	if (ai->ai_family == AF_INET6)
		((struct sockaddr_in6 *)&ss)->sin6_port =
			htons((uint16_t)e->port);
	else
		((struct sockaddr_in *)&ss)->sin_port =
			htons((uint16_t)e->port);
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
	fds[e->n_fds++] = fd;
	e->port = bound_port(fd);
	e->any = e->any || is_any(ai->ai_addr);
	return 0;
}

/* Everything that @list names. */
static int bind_all(struct endpoint *e, const struct addrinfo *list, int *fds)
{
	const struct addrinfo *ai;
	int r, failed = 0;

	for (ai = list; ai && e->n_fds < LISTEN_FDS_MAX; ai = ai->ai_next) {
		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		r = bind_tcp(e, ai, fds);
		if (!failed)
			failed = r;
		/* "localhost" may name an IPv6 address that is not there. */
		if (r < 0 && r != -EADDRNOTAVAIL && r != -EAFNOSUPPORT)
			return r;
	}
	if (!e->n_fds)
		return failed ? failed : -EADDRNOTAVAIL;
	return 0;
}

int listen_tcp(const char *address, uint16_t port, struct listener *l,
	       struct error *err)
{
	static const struct addrinfo hints = { .ai_flags = AI_PASSIVE,
					       .ai_socktype = SOCK_STREAM };
	struct endpoint e = { .kind = ENDPOINT_TCP, .port = port };
	struct addrinfo *list;
	int fds[LISTEN_FDS_MAX], r;

	r = getaddrinfo(address, NULL, &hints, &list);
	if (r)
		return error_set(err, -EINVAL, 0, "address \"%s\": %s", address,
				 gai_strerror(r));
	r = bind_all(&e, list, fds);
	freeaddrinfo(list);
	e.address = strdup(address);
	if (r >= 0 && !e.address)
		r = -ENOMEM;
	if (r >= 0)
		return listener_add(l, &e, fds, err);
	while (e.n_fds)
		close(fds[--e.n_fds]);
	endpoint_done(&e);
	return error_set(err, r, 0, "cannot listen on %s port %u: %s", address,
			 port, errno_text(-r));
}

int listen_vsock(uint32_t port, struct listener *l, struct error *err)
{
	const struct sockaddr_vm sa = { .svm_family = AF_VSOCK,
					.svm_port = port,
					.svm_cid = VMADDR_CID_ANY };
	struct endpoint e = { .kind = ENDPOINT_VSOCK,
			      .port = port,
			      .n_fds = 1 };
	int fd = fd_move_high(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
	int r = fd < 0 ? fd : 0;

	if (r >= 0 && (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		       listen(fd, SOMAXCONN) < 0)) {
		r = -errno;
		close(fd);
	}
	return r < 0 ? error_set(err, r, 0,
				 "cannot listen on vsock port %" PRIu32 ": %s",
				 port, errno_text(-r))
		     : listener_add(l, &e, &fd, err);
}

static bool parse_port(const char *text, unsigned long max, uint32_t *ret)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	*ret = (uint32_t)n;
	return *text >= '0' && *text <= '9' && !*end && !errno && n <= max;
}

/* "ADDRESS", "ADDRESS:PORT" and in brackets. */
static int listen_at_tcp(const char *text, struct listener *l,
			 struct error *err)
{
	CLEANUP(freep) char *address = strdup(text);
	char *rest, *host = address;
	uint32_t port = LISTEN_PORT_DEFAULT;

	if (!address)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (*address == '[') {
		host = address + 1;
		rest = strchr(host, ']');
		if (rest)
			*rest++ = '\0';
	} else if (strchr(address, ':') == strrchr(address, ':')) {
		rest = address + strcspn(address, ":");
	} else {
		rest = address + strlen(address); /* IPv6, without a port */
	}
	if (!rest || !*host || rest == host ||
	    (*rest &&
	     (*rest != ':' || !parse_port(rest + 1, UINT16_MAX, &port))))
		return error_set(err, -EINVAL, 0,
				 "\"%s\" is none of unix:PATH, vsock:PORT, "
				 "ADDRESS:PORT, [IPV6]:PORT",
				 text);
	if (*rest)
		*rest = '\0';
	return listen_tcp(host, (uint16_t)port, l, err);
}

int listen_at(const char *text, const struct socket_rights *rights,
	      struct listener *l, struct error *err)
{
	uint32_t port;

	if (!strcmp(text, "unix:"))
		return error_set(err, -EINVAL, 0, "unix: the path is empty");
	if (!strncmp(text, "unix:", 5))
		return listen_unix(text + 5, rights, l, err);
	if (strncmp(text, "vsock:", 6) != 0)
		return listen_at_tcp(text, l, err);
	/* 0 is a port as any, but to libnbd it is the one of NBD's. */
	if (!parse_port(text + 6, UINT32_MAX - 1, &port) || !port)
		return error_set(err, -EINVAL, 0,
				 "\"%s\": a vsock port is a number from 1",
				 text);
	return listen_vsock(port, l, err);
}

void listener_done(struct listener *l)
{
	while (l->n_endpoints)
		endpoint_done(&l->endpoints[--l->n_endpoints]);
	while (l->n_fds)
		close(l->fds[--l->n_fds]);
}

/* What comes before the export's name, to be freed. @at: "USER@", or "". */
static char *uri_authority(const struct endpoint *e, const char *s,
			   const char *at)
{
	const char *address = e->address;
	CLEANUP(freep) char *where = NULL;
	char *ret;
	int r;

	if (e->kind == ENDPOINT_UNIX)
		r = asprintf(&ret, "nbd%s+unix://%s", s, at);
	else if (e->kind == ENDPOINT_VSOCK)
		r = asprintf(&ret, "nbd%s+vsock://%s%u:%" PRIu32, s, at,
			     VMADDR_CID_HOST, e->port);
	else {
		if (e->any)
			address = strchr(address, ':') ? "::1" : "127.0.0.1";
		/* The colons of IPv6; a "%" before an interface is encoded. */
		where = text_percent(address, ":");
		if (!where)
			return NULL;
		r = asprintf(&ret,
			     strchr(where, ':') ? "nbd%s://%s[%s]:%" PRIu32
						: "nbd%s://%s%s:%" PRIu32,
			     s, at, where, e->port);
	}
	return r < 0 ? NULL : ret;
}

char *endpoint_uri(const struct endpoint *e, bool tls, const char *user,
		   const char *export, const char *query)
{
	CLEANUP(freep) char *safe = user ? text_percent(user, "") : NULL;
	CLEANUP(freep) char *at = NULL;
	CLEANUP(freep) char *head = NULL;
	CLEANUP(freep) char *name = text_percent(export, "@");
	CLEANUP(freep) char *path = NULL;
	char *ret;
	int r;

	if (asprintf(&at, "%s%s", safe ? safe : "", safe ? "@" : "") < 0) {
		at = NULL;
		return NULL;
	}
	head = uri_authority(e, tls ? "s" : "", at);
	if (!name || !head)
		return NULL;
	if (e->kind == ENDPOINT_UNIX) {
		path = text_percent(e->file.path, "/");
		if (!path)
			return NULL;
		r = asprintf(&ret, "%s/%s?socket=%s%s%s", head, name, path,
			     query ? "&" : "", query ? query : "");
	} else {
		r = asprintf(&ret, "%s%s%s%s%s", head,
			     *name || query ? "/" : "", name, query ? "?" : "",
			     query ? query : "");
	}
	return r < 0 ? NULL : ret;
}
