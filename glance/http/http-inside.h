/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the HTTP server share. */
#ifndef GLANCE_HTTP_HTTP_INSIDE_H
#define GLANCE_HTTP_HTTP_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "glance/http/forwarded.h"
#include "glance/http/http.h"
#include "glance/http/mhd-lib.h"
#include "iouring/net.h"
#include "glance/log.h"
#include "iouring/unix-socket.h"

struct http_server {
	struct http_app app;
	struct MHD_Daemon *daemon;
	int listen_fd;
	bool local;
	bool tcp;
	struct socket_file file; /* of a unix socket */
	char *cert, *key; /* PEM */
	unsigned int idle_sec;
	unsigned int max; /* connections */
	unsigned int per_address; /* 0: no limit */
	const char *hosts; /* the configuration's */
	const char *cors_origins; /* the same */
	struct proxies proxies;
	bool in_place; /* this libmicrohttpd leaves headers as framing.h says */

	/* Guards the list of connections and what the watch looks at. */
	pthread_mutex_t lock;
	pthread_cond_t stop_cond;
	struct connection *connections;
	unsigned int n_connections, n_ended;
	unsigned int slow_ended, turned_away; /* not told of yet */
	struct net turned_from; /* the last */
	struct log_pace slow_pace, turned_pace;
	bool stop;
	bool watching;
	pthread_t watch;
};

/* What the watch must know of a connection: is it too slow? */
struct connection {
	struct connection *next, **link;
	int fd;
	int64_t since_usec; /* waits for headers since, or for its body */
	bool in_body;
	bool busy; /* the headers are whole, and no body is waited for */
	bool left; /* HTTP, for another protocol */
	bool ended; /* its socket was shut, and will be closed */
	bool has_peer, has_client;
	struct net peer; /* its address */
	struct net client; /* for whom the proxy there asks now */
	_Atomic uint64_t body_bytes; /* counted without the lock */
};

static inline int64_t http_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- listen.c: s->listen_fd, and whether it is ->local; certificates ---- */

int http_listen_unix(struct http_server *s, const char *path,
		     struct error *err);

bool http_is_loopback(const struct sockaddr *a);

/* "ADDRESS:PORT", "[V6]:PORT" */
int http_listen_tcp(struct http_server *s, const char *where,
		    struct error *err);

int http_load_tls(struct http_server *s, const struct http_config *c,
		  struct error *err);

/* ---- request.c ---- */

/* NULL: not known. Valid as long as the connection. */
const struct sockaddr *request_address(const struct request *q);

/* ---- clients.c: who comes, and who is slow; no lock is held ---- */

/* The thread; @opaque is the server. */
void *clients_watch(void *opaque);
/* libmicrohttpd's MHD_AcceptPolicyCallback and MHD_NotifyConnectionCallback. */
enum MHD_Result clients_on_accept(void *cls, const struct sockaddr *sa,
				  socklen_t len);
void clients_on_connection(void *cls, struct MHD_Connection *conn,
			   void **socket,
			   enum MHD_ConnectionNotificationCode code);
/* In these NULL, a connection that could not be noted, is fine. */
void client_waits(struct http_server *s, struct connection *c, bool in_body);

void client_is_busy(struct http_server *s, struct connection *c);

/* For whom is it asked? false: it is one too much. */
bool client_take(struct request *q, struct connection *c);

void client_leaves(struct http_server *s, struct connection *c);

#endif
