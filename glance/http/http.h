/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP server: connections, limits, requests, answers. libmicrohttpd with
 * a thread for each connection, so that whoever handles a request may wait
 * for a disk; knows nothing of images.
 */
#ifndef GLANCE_HTTP_HTTP_H
#define GLANCE_HTTP_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "glance/http/request.h"
#include "iouring/error.h"

struct http_server;

/* Fewer where RLIMIT_NOFILE has no room for them. */
#define HTTP_CONNECTIONS_MAX	    1000
#define HTTP_HEADERS_BYTES_MAX	    (32U << 10)
/* Of a request that is not image data. */
#define HTTP_BODY_BYTES_MAX	    (1U << 20)
/* Seconds without a byte; a quarter more for the headers to be whole. */
#define HTTP_IDLE_SEC		    60U
#define HTTP_IDLE_SEC_MAX	    3600U
/* Of a body, on the average after the first seconds of a silence. */
#define HTTP_BODY_BYTES_PER_SEC_MIN 256U

struct http_app {
	void (*begin)(struct request *q);
	void (*finish)(struct request *q);
	/* Optional: after the answer was sent or the client left. */
	void (*done)(struct request *q);
	void *opaque;
	bool unasked; /* nobody is asked who he is: see origin.h */
};

struct http_config {
	const char *listen; /* "ADDRESS:PORT", "[V6]:PORT", "unix:PATH" */
	const char *cert_file; /* PEM; both or neither */
	const char *key_file;
	const char *idle; /* seconds; NULL: HTTP_IDLE_SEC */
	/* Connections of one address, and requests for it; NULL: no limit. */
	const char *per_address;
	const char *proxies; /* see forwarded.h; NULL: none is believed */
	const char *hosts; /* see origin.h; NULL; outlives the server */
	const char *cors_origins; /* see cors.h; the same */
};

/* Binds, and listens from then on; nobody is answered before http_start(). */
int http_listen(const struct http_config *c, struct http_server **ret,
		struct error *err);
int http_start(struct http_server *s, const struct http_app *app,
	       struct error *err);
void http_free(struct http_server *s); /* stops; NULL is fine */

/* Can only this machine reach it? */
bool http_is_local(const struct http_server *s);
bool http_is_tls(const struct http_server *s);
unsigned int http_connections_max(const struct http_server *s);
/* The descriptor that listens. */
int http_listen_fd(const struct http_server *s);

#endif
