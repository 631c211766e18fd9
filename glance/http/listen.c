/* SPDX-License-Identifier: BSD-3-Clause */
/* The socket on which HTTP is spoken, and its certificate. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/http/http-inside.h"

#define PEM_BYTES_MAX (1U << 20)

int http_listen_unix(struct http_server *s, const char *path, struct error *err)
{
	int r = socket_listen(path, NULL, &s->file, &s->listen_fd, err);

	if (r < 0)
		error_prefix(err, "glance");
	else
		s->local = true;
	return r;
}

bool http_is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	return IN6_IS_ADDR_LOOPBACK(
		&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static int bind_tcp(struct http_server *s, const struct addrinfo *ai)
{
	int one = 1;

	s->listen_fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listen_fd < 0)
		return -errno;
	setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s->listen_fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
	    listen(s->listen_fd, 1024) < 0)
		return -errno;
	s->local = http_is_loopback(ai->ai_addr);
	s->tcp = true;
	return 0;
}

int http_listen_tcp(struct http_server *s, const char *where, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_PASSIVE |
					      AI_NUMERICSERV };
	CLEANUP(freep) char *host = strdup(where);
	struct addrinfo *ai = NULL;
	char *port = host ? strrchr(host, ':') : NULL, *h = host;
	size_t len;
	int r;

	if (!host)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!port || port == host || !port[1])
		return error_set(err, -EINVAL, 0,
				 "glance: \"%s\" is neither ADDRESS:PORT nor "
				 "unix:PATH",
				 where);
	*port++ = '\0';
	len = strlen(h);
	if (*h == '[' && h[len - 1] == ']') {
		h[len - 1] = '\0';
		h++;
	}
	r = getaddrinfo(!strcmp(h, "localhost") ? "127.0.0.1" : h, port, &hints,
			&ai);
	if (r)
		return error_set(err, -EINVAL, 0,
				 "glance: \"%s\": not an address and a port "
				 "(%s)",
				 where, gai_strerror(r));
	r = bind_tcp(s, ai);
	freeaddrinfo(ai);
	if (r < 0)
		return error_set(err, r, 0, "glance: %s: %s", where,
				 errno_text(-r));
	return 0;
}

static int read_pem(const char *path, const char *what, char **ret,
		    struct error *err)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, 0, "%s: %s: %s", what, path,
				 errno_text(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > PEM_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "%s: %s: not a regular file of at most %u "
				 "bytes",
				 what, path, PEM_BYTES_MAX);
	*ret = calloc(1, (size_t)st.st_size + 1);
	if (!*ret)
		return error_set(err, -ENOMEM, 0, "out of memory");
	n = read(fd, *ret, (size_t)st.st_size);
	return n < 0 ? error_set(err, -errno, 0, "%s: %s: %s", what, path,
				 errno_text(errno))
		     : 0;
}

int http_load_tls(struct http_server *s, const struct http_config *c,
		  struct error *err)
{
	int r;

	if (!c->cert_file && !c->key_file)
		return 0;
	if (!c->cert_file || !c->key_file)
		return error_set(err, -EINVAL, 0,
				 "glance-cert and glance-key go together");
	if (mhd->is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
		return error_set(err, -ENOTSUP, 0,
				 "glance-cert: libmicrohttpd has no TLS");
	r = read_pem(c->cert_file, "glance-cert", &s->cert, err);
	if (r >= 0)
		r = read_pem(c->key_file, "glance-key", &s->key, err);
	return r;
}
