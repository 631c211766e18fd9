/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/bridge.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "iouring/util.h"

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

struct bridge {
	int fd;
	struct address near; /* nbdkit's peer */
	struct bridged who;
	struct bridge *next;
};

static struct address server; /* len 0: there is none that we can reach */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bridge *bridges;

static bool is_stream_listener(int fd)
{
	socklen_t len = sizeof(int);
	int on = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

/* What listens everywhere is reached by the loopback. */
static void aim(struct sockaddr_storage *sa)
{
	struct sockaddr_in *in = (struct sockaddr_in *)sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sa;

	if (sa->ss_family == AF_INET && in->sin_addr.s_addr == INADDR_ANY)
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (sa->ss_family == AF_INET6 &&
	    IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
		in6->sin6_addr = in6addr_loopback;
}

static bool take_listener(int fd)
{
	struct address a = { .len = sizeof(a.sa) };

	if (!is_stream_listener(fd) ||
	    getsockname(fd, (struct sockaddr *)&a.sa, &a.len) < 0)
		return false;
	if (a.sa.ss_family != AF_UNIX && a.sa.ss_family != AF_INET &&
	    a.sa.ss_family != AF_INET6)
		return false;
	aim(&a.sa);
	server = a;
	return true;
}

void bridge_find_server(const int *ours, size_t n_ours)
{
	DIR *d = opendir("/proc/self/fd");
	bool found = false;
	struct dirent *e;

	while (d && !found && (e = readdir(d))) {
		int fd = atoi(e->d_name);
		bool own = *e->d_name == '.';
		size_t i;

		for (i = 0; i < n_ours; i++)
			own = own || ours[i] == fd;
		found = !own && take_listener(fd);
	}
	if (d)
		closedir(d);
}

/* An address of its own, by which nbdkit tells it from others. */
static int bind_unix(int fd)
{
	const struct sockaddr any = { .sa_family = AF_UNIX };

	return bind(fd, &any, sizeof(sa_family_t));
}

static int dial(struct address *ret_near, struct error *err)
{
	int family = server.sa.ss_family, one = 1;
	CLEANUP(closep) int fd = -1;

	if (!server.len)
		return error_set(err, -EAGAIN, 0,
				 "this server does not listen for NBD");
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret_near->len = sizeof(ret_near->sa);
	if (fd < 0 || (family == AF_UNIX && bind_unix(fd) < 0) ||
	    connect(fd, (struct sockaddr *)&server.sa, server.len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&ret_near->sa, &ret_near->len) <
		    0)
		return error_set(err, -EAGAIN, 0,
				 "the server's NBD is not reached: %s",
				 errno_text(errno));
	if (family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return TAKE_FD(fd);
}

int bridge_connect(const char *id, const char *grant, const char *peer,
		   int *ret_fd, struct error *err)
{
	struct bridge *b = calloc(1, sizeof(*b));

	if (!b)
		return error_set(err, -ENOMEM, 0, "out of memory");
	snprintf(b->who.export, sizeof(b->who.export), "%s~%s", id, grant);
	snprintf(b->who.peer, sizeof(b->who.peer), "%s by HTTP", peer);
	b->fd = dial(&b->near, err);
	if (b->fd < 0) {
		free(b);
		return err->code;
	}
	/* Nothing was sent yet: nbdkit cannot have asked for it. */
	pthread_mutex_lock(&lock);
	b->next = bridges;
	bridges = b;
	pthread_mutex_unlock(&lock);
	*ret_fd = b->fd;
	return 0;
}

void bridge_close(int fd)
{
	struct bridge **p = &bridges, *b;

	pthread_mutex_lock(&lock);
	while ((*p)->fd != fd)
		p = &(*p)->next;
	b = *p;
	*p = b->next;
	pthread_mutex_unlock(&lock);
	/* Only now may another have the address. */
	close(fd);
	free(b);
}

static bool same(const struct address *a, const struct sockaddr_storage *sa,
		 socklen_t len)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&a->sa;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->sa;
	const struct sockaddr_in *o = (const struct sockaddr_in *)sa;
	const struct sockaddr_in6 *o6 = (const struct sockaddr_in6 *)sa;

	if (a->sa.ss_family != sa->ss_family)
		return false;
	if (sa->ss_family == AF_INET)
		return in->sin_port == o->sin_port &&
		       in->sin_addr.s_addr == o->sin_addr.s_addr;
	if (sa->ss_family == AF_INET6)
		return in6->sin6_port == o6->sin6_port &&
		       IN6_ARE_ADDR_EQUAL(&in6->sin6_addr, &o6->sin6_addr);
	return sa->ss_family == AF_UNIX && a->len == len &&
	       !memcmp(&a->sa, sa, len);
}

bool bridge_lookup(const struct sockaddr_storage *sa, socklen_t len,
		   struct bridged *ret)
{
	struct bridge *b;

	pthread_mutex_lock(&lock);
	for (b = bridges; b && !same(&b->near, sa, len); b = b->next)
		;
	if (b)
		*ret = b->who;
	pthread_mutex_unlock(&lock);
	return b;
}
