/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "formats/codec/openssl.h"
#include "glance/http/forwarded.h"
#include "glance/http/framing.h"
#include "glance/http/http.h"
#include "glance/log.h"
#include "glance/http/mhd-lib.h"
#include "glance/http/net.h"
#include "glance/http/origin.h"

/* Of a connection's memory in libmicrohttpd: headers, and chunks of a body. */
#define CONNECTION_BYTES (HTTP_HEADERS_BYTES_MAX + (96U << 10))
#define PEM_BYTES_MAX	 (1U << 20)
/* A body this large is not read only to be dropped. */
#define DROP_BYTES_MAX	 (64U << 20)
#define STACK_BYTES	 (512U << 10)
/* Of an answer, made or read at once. */
#define BLOCK_BYTES	 (1U << 20)
/* Descriptors that are not for connections: files, the index, Keystone. */
#define OTHER_FDS	 64U
#define CONNECTIONS_MIN	 16U
/* Of all connections, 1 / ROOM are kept free where somebody is slow ... */
#define ROOM		 4U
/* ... for those that are ended are there until their threads have seen it. */
#define ROOM_PAUSE_USEC	 1000U

/* Loaded before there is a server. */
static const struct mhd_lib *mhd;

struct http_server {
	struct http_app app;
	struct MHD_Daemon *daemon;
	int listen_fd;
	bool local;
	bool tcp;
	char *unix_path; /* to be removed at the end */
	char *cert, *key; /* PEM */
	unsigned int idle_sec;
	unsigned int max; /* connections */
	unsigned int per_address; /* 0: no limit */
	const char *hosts; /* the configuration's */
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

enum phase {
	PHASE_HEADERS,
	PHASE_BODY,
	PHASE_DROP, /* answered; what is left of the body is not wanted */
};

/* A request with what only this file needs. */
struct exchange {
	struct request q;
	struct connection *connection;
	enum phase phase;
	bool bad_target;
	bool endless; /* nobody knows where its body ends */
	struct error target_error;
};

static int64_t now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- the listening socket ---- */

static int listen_unix(struct http_server *s, const char *path,
		       struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -EINVAL, 0,
				 "glance: the socket's path has over %zu bytes",
				 sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listen_fd < 0)
		return error_set(err, -errno, 0, "glance: %s",
				 errno_text(errno));
	/* A socket that nobody listens on any more is in the way. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(path);
	if (bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(s->listen_fd, 1024) < 0)
		return error_set(err, -errno, 0, "glance: unix:%s: %s", path,
				 errno_text(errno));
	s->unix_path = strdup(path);
	s->local = true;
	return s->unix_path ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

static bool is_loopback(const struct sockaddr *a)
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
	s->local = is_loopback(ai->ai_addr);
	s->tcp = true;
	return 0;
}

/* "ADDRESS:PORT", "[V6]:PORT" */
static int listen_tcp(struct http_server *s, const char *where,
		      struct error *err)
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

static int load_tls(struct http_server *s, const struct http_config *c,
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

static int take_idle(struct http_server *s, const char *text, struct error *err)
{
	unsigned long n = HTTP_IDLE_SEC;
	char *end;

	if (text) {
		n = strtoul(text, &end, 10);
		if (!isdigit((unsigned char)*text) || *end || !n ||
		    n > HTTP_IDLE_SEC_MAX)
			return error_set(err, -EINVAL, 0,
					 "glance-timeout is 1 to %u seconds, "
					 "not \"%.32s\"",
					 HTTP_IDLE_SEC_MAX, text);
	}
	s->idle_sec = (unsigned int)n;
	return 0;
}

/* As many as there are descriptors for: a request may need two. */
static unsigned int connections_max(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return CONNECTIONS_MIN;
	if (l.rlim_cur < OTHER_FDS + 2 * CONNECTIONS_MIN)
		return CONNECTIONS_MIN;
	return (unsigned int)min_u64(HTTP_CONNECTIONS_MAX,
				     (l.rlim_cur - OTHER_FDS) / 2);
}

static int take_limits(struct http_server *s, const struct http_config *c,
		       struct error *err)
{
	unsigned long n;
	char *end;

	s->max = connections_max();
	s->hosts = c->hosts;
	if (c->per_address) {
		n = strtoul(c->per_address, &end, 10);
		if (!isdigit((unsigned char)*c->per_address) || *end || !n ||
		    n > HTTP_CONNECTIONS_MAX)
			return error_set(err, -EINVAL, 0,
					 "glance-per-address is 1 to %d "
					 "connections, not \"%.32s\"",
					 HTTP_CONNECTIONS_MAX, c->per_address);
		s->per_address = (unsigned int)n;
	}
	return proxies_parse(c->proxies, &s->proxies, err);
}

int http_listen(const struct http_config *c, struct http_server **ret,
		struct error *err)
{
	struct http_server *s;
	int r;

	mhd = mhd_lib_load();
	if (!mhd)
		return error_set(err, -ENOTSUP, 0,
				 "glance: libmicrohttpd is needed, and not "
				 "installed");
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->listen_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->stop_cond, NULL);
	s->in_place = !strcmp(mhd->get_version(), "0.9.75");
	r = take_idle(s, c->idle, err);
	if (r >= 0)
		r = take_limits(s, c, err);
	if (r >= 0)
		r = load_tls(s, c, err);
	if (r >= 0)
		r = !strncmp(c->listen, "unix:", 5)
			    ? listen_unix(s, c->listen + 5, err)
			    : listen_tcp(s, c->listen, err);
	if (r < 0) {
		http_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

bool http_is_local(const struct http_server *s)
{
	return s->local;
}

bool http_is_tls(const struct http_server *s)
{
	return s->cert;
}

unsigned int http_connections_max(const struct http_server *s)
{
	return s->max;
}

int http_listen_fd(const struct http_server *s)
{
	return s->listen_fd;
}

/* ---- slow clients ---- */

/*
 * libmicrohttpd ends a connection that is silent; one that sends a byte now
 * and then is ended here, by shutting its socket: its own thread cleans up.
 */
static bool too_slow(const struct connection *c, unsigned int idle_sec,
		     int64_t now)
{
	int64_t sec = (now - c->since_usec) / 1000000;

	if (c->busy || c->left)
		return false;
	if (!c->in_body)
		return sec > idle_sec + idle_sec / 4;
	return sec > idle_sec &&
	       atomic_load_explicit(&c->body_bytes, memory_order_relaxed) /
			       (uint64_t)sec <
		       HTTP_BODY_BYTES_PER_SEC_MIN;
}

/* For the log, which may be slow: written where no lock is held. */
struct news {
	unsigned int slow_ended, turned_away;
	struct net turned_from;
};

/* What has happened since it was told last. Lock is held. */
static struct news take_news(struct http_server *s)
{
	struct news n = { 0 };

	if (s->slow_ended && log_pace(&s->slow_pace)) {
		n.slow_ended = s->slow_ended;
		s->slow_ended = 0;
	}
	if (s->turned_away && log_pace(&s->turned_pace)) {
		n.turned_away = s->turned_away;
		n.turned_from = s->turned_from;
		s->turned_away = 0;
	}
	return n;
}

static void tell(const struct http_server *s, const struct news *n)
{
	char text[NET_TEXT_BYTES];

	if (n->slow_ended)
		log_line("glance: nearly all %u connections were in use: %u "
			 "were ended that had waited for the rest of a "
			 "request, the slowest first",
			 s->max, n->slow_ended);
	if (n->turned_away)
		log_line("glance: %u connections or requests over "
			 "glance-per-address=%u were turned away, the last of "
			 "%s",
			 n->turned_away, s->per_address,
			 net_text(n->turned_from.addr, text));
}

/* Shuts its socket: its own thread cleans up. Lock is held. */
static void end_connection(struct http_server *s, struct connection *c)
{
	if (!c->ended)
		s->n_ended++;
	c->ended = true;
	shutdown(c->fd, SHUT_RDWR);
}

/*
 * How long a client lets us wait, in us: a body is given the time that its
 * bytes may take. Lock is held.
 */
static int64_t slowness(const struct connection *c, int64_t now)
{
	uint64_t bytes = c->in_body ? atomic_load_explicit(&c->body_bytes,
							   memory_order_relaxed)
				    : 0;

	return now - c->since_usec -
	       (int64_t)(bytes / HTTP_BODY_BYTES_PER_SEC_MIN * 1000000);
}

/*
 * Somebody comes, and there is hardly room: the slowest leaves, before those
 * that came after him. Lock is held. true: those who are to leave are many, and
 * whoever lets people in should give them time.
 */
static bool make_room(struct http_server *s)
{
	struct connection *c, *worst = NULL;
	int64_t now = now_usec(), most = 0;

	if (s->n_connections - s->n_ended < s->max - s->max / ROOM)
		return false;
	for (c = s->connections; c; c = c->next) {
		if (c->busy || c->left || c->ended || slowness(c, now) <= most)
			continue;
		worst = c;
		most = slowness(c, now);
	}
	if (!worst)
		return false;
	end_connection(s, worst);
	s->slow_ended++;
	return s->n_ended > s->max / ROOM / 2;
}

static void *watch(void *opaque)
{
	struct http_server *s = opaque;
	struct connection *c;
	struct timespec ts;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int64_t now = now_usec();
		struct news n;

		for (c = s->connections; c; c = c->next)
			if (too_slow(c, s->idle_sec, now))
				end_connection(s, c);
		n = take_news(s);
		pthread_mutex_unlock(&s->lock);
		tell(s, &n);
		pthread_mutex_lock(&s->lock);
		if (s->stop)
			break;
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_sec++;
		pthread_cond_timedwait(&s->stop_cond, &s->lock, &ts);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void connection_waits(struct http_server *s, struct connection *c,
			     bool in_body)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->since_usec = now_usec();
	c->in_body = in_body;
	c->busy = false;
	c->has_client = c->has_client && in_body;
	atomic_store_explicit(&c->body_bytes, 0, memory_order_relaxed);
	pthread_mutex_unlock(&s->lock);
}

static void connection_is_busy(struct http_server *s, struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->busy = true;
	pthread_mutex_unlock(&s->lock);
}

/* ---- who comes ---- */

static bool is_same(const struct net *a, const struct net *b)
{
	return !memcmp(a->addr, b->addr, sizeof(a->addr));
}

/* Has @who all that one may have? Lock is held. */
static bool has_its_share(struct http_server *s, const struct net *who)
{
	const struct connection *c;
	unsigned int n = 0;

	if (!s->per_address)
		return false;
	for (c = s->connections; c; c = c->next)
		n += !c->ended &&
		     (c->has_client ? is_same(&c->client, who)
				    : c->has_peer && is_same(&c->peer, who));
	if (n < s->per_address)
		return false;
	s->turned_away++;
	s->turned_from = *who;
	return true;
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *sa,
				 socklen_t len)
{
	struct http_server *s = cls;
	struct net peer;
	bool over;

	if (!s->per_address || !sa || !net_of_sockaddr(sa, &peer) ||
	    proxies_have(&s->proxies, &peer))
		return MHD_YES;
	pthread_mutex_lock(&s->lock);
	over = has_its_share(s, &peer);
	pthread_mutex_unlock(&s->lock);
	return over ? MHD_NO : MHD_YES;
}

static int take_forwarded(void *opaque, const char *name, const char *value)
{
	struct request *q = opaque;

	if (!strcasecmp(name, "X-Forwarded-For"))
		forwarded_take(&q->server->proxies, value, &q->client,
			       &q->has_client);
	return 0;
}

/* For whom is it asked? false: it is one too much. */
static bool take_client(struct request *q, struct connection *c)
{
	struct http_server *s = q->server;
	bool over;

	if (!c || !proxies_have(&s->proxies, c->has_peer ? &c->peer : NULL))
		return true;
	request_for_headers(q, take_forwarded, q);
	if (!q->has_client)
		return true;
	pthread_mutex_lock(&s->lock);
	over = has_its_share(s, &q->client);
	c->has_client = !over;
	c->client = q->client;
	pthread_mutex_unlock(&s->lock);
	return !over;
}

static void connection_leaves(struct http_server *s, struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->left = true;
	pthread_mutex_unlock(&s->lock);
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **socket,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = cls;
	const union MHD_ConnectionInfo *info;
	struct connection *c = *socket;
	bool pause;
	int one = 1;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (!c)
			return;
		pthread_mutex_lock(&s->lock);
		*c->link = c->next;
		if (c->next)
			c->next->link = c->link;
		s->n_connections--;
		s->n_ended -= c->ended;
		pthread_mutex_unlock(&s->lock);
		free(c);
		return;
	}
	info = mhd->get_connection_info(conn,
					MHD_CONNECTION_INFO_CONNECTION_FD);
	c = calloc(1, sizeof(*c));
	if (!c || !info) {
		free(c);
		return;
	}
	c->fd = info->connect_fd;
	c->since_usec = now_usec();
	info = mhd->get_connection_info(conn,
					MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	c->has_peer = info && info->client_addr &&
		      net_of_sockaddr(info->client_addr, &c->peer);
	if (s->tcp)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	pthread_mutex_lock(&s->lock);
	pause = make_room(s);
	s->n_connections++;
	c->next = s->connections;
	c->link = &s->connections;
	if (c->next)
		c->next->link = &c->next;
	s->connections = c;
	pthread_mutex_unlock(&s->lock);
	*socket = c;
	if (pause)
		usleep(ROOM_PAUSE_USEC);
}

/* ---- requests ---- */

/* A random UUID, RFC 4122 version 4. */
static void make_request_id(char ret[41])
{
	uint8_t b[16];

	if (openssl.RAND_bytes(b, sizeof(b)) != 1)
		memset(b, 0, sizeof(b));
	snprintf(ret, 41,
		 "req-%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 0xfU, b[7],
		 (b[8] & 0x3fU) | 0x80U, b[9], b[10], b[11], b[12], b[13],
		 b[14], b[15]);
}

/* The first libmicrohttpd tells of a request: its target, undecoded. */
static void *on_target(void *cls, const char *target,
		       struct MHD_Connection *conn)
{
	struct http_server *s = cls;
	const union MHD_ConnectionInfo *info;
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->q.server = s;
	x->q.app = s->app.opaque;
	x->q.conn = conn;
	x->q.response.fd = -1;
	x->q.start_usec = now_usec();
	x->q.body.max = HTTP_BODY_BYTES_MAX;
	make_request_id(x->q.id);
	info = mhd->get_connection_info(conn,
					MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	x->connection = info ? info->socket_context : NULL;
	if (uri_parse(target, &x->q.uri, &x->target_error) < 0)
		x->bad_target = true;
	return x;
}

static void response_done(struct response *r)
{
	size_t i;

	for (i = 0; i < r->n_headers; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	free(r->text);
	closep(&r->fd);
	if (r->produced && r->producer.free)
		r->producer.free(r->producer.opaque);
}

static void exchange_free(struct exchange *x)
{
	struct request *q = &x->q;

	if (q->state_free)
		q->state_free(q->state);
	identity_done(&q->who);
	uri_done(&q->uri);
	text_buf_done(&q->body);
	response_done(&q->response);
	free(x);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **req_cls,
			 enum MHD_RequestTerminationCode why)
{
	struct http_server *s = cls;
	struct exchange *x = *req_cls;

	*req_cls = NULL;
	if (!x)
		return;
	if (s->app.done && x->q.response.status)
		s->app.done(&x->q);
	connection_waits(s, x->connection, false);
	exchange_free(x);
}

static const struct sockaddr *client_address(const struct request *q)
{
	const union MHD_ConnectionInfo *info = mhd->get_connection_info(
		q->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return info ? info->client_addr : NULL;
}

void request_peer(const struct request *q, char *ret, size_t room)
{
	const struct sockaddr *sa = client_address(q);
	char text[NET_TEXT_BYTES];
	struct net peer;

	if (q->has_client)
		snprintf(ret, room, "%s", net_text(q->client.addr, text));
	else if (sa && net_of_sockaddr(sa, &peer))
		snprintf(ret, room, "%s", net_text(peer.addr, text));
	else
		snprintf(ret, room, "%s",
			 sa && sa->sa_family == AF_UNIX ? "unix" : "-");
}

const char *request_header(const struct request *q, const char *name)
{
	return mhd->lookup_connection_value(q->conn, MHD_HEADER_KIND, name);
}

struct header_walk {
	int (*each)(void *opaque, const char *name, const char *value);
	void *opaque;
	int r;
};

static enum MHD_Result walk_header(void *cls, enum MHD_ValueKind kind,
				   const char *name, const char *value)
{
	struct header_walk *w = cls;

	w->r = w->each(w->opaque, name, value ? value : "");
	return w->r ? MHD_NO : MHD_YES;
}

int request_for_headers(const struct request *q,
			int (*each)(void *opaque, const char *name,
				    const char *value),
			void *opaque)
{
	struct header_walk w = { .each = each, .opaque = opaque };

	mhd->get_connection_values(q->conn, MHD_HEADER_KIND, walk_header, &w);
	return w.r;
}

bool request_type_is(const struct request *q, const char *type)
{
	const char *have = request_header(q, "Content-Type");
	size_t len;

	if (!have)
		return false;
	len = strcspn(have, "; \t");
	return len == strlen(type) && !strncasecmp(have, type, len);
}

/* What may stand in a Host header: no more than a name, an address, a port. */
static bool host_ok(const char *host)
{
	size_t len = strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "abcdefghijklmnopqrstuvwxyz0123456789-._:[]");

	return len && len < 256 && !host[len];
}

char *request_base_url(const struct request *q)
{
	const char *host = request_header(q, "Host");
	char *url;

	if (!host || !host_ok(host))
		host = "localhost";
	if (asprintf(&url, "%s://%s", q->server->cert ? "https" : "http",
		     host) < 0)
		return NULL;
	return url;
}

static enum http_method method_of(const char *name)
{
	static const char *const names[] = { "GET", "HEAD",  "POST",
					     "PUT", "PATCH", "DELETE" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name))
			return (enum http_method)i;
	return HTTP_OTHER;
}

struct headers {
	struct framing framing;
	struct error *err;
};

static int look_at_header(void *opaque, const char *name, const char *value)
{
	struct headers *h = opaque;

	return framing_header(&h->framing, name, value, h->err);
}

/* @method and @version are where libmicrohttpd has them. */
static int check_framing(struct request *q, const char *method,
			 const char *version, struct error *err)
{
	const union MHD_ConnectionInfo *info = mhd->get_connection_info(
		q->conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	bool known = q->server->in_place && info;
	struct headers h = {
		.framing = { .version = version,
			     .next = known ? framing_behind(version) : NULL },
		.err = err,
	};
	int r = request_for_headers(q, look_at_header, &h);

	return r < 0 ? r
		     : framing_end(&h.framing,
				   known ? method + info->header_size : NULL,
				   &q->has_length, &q->content_length, err);
}

/* Of what a browser may be made to send, see origin.h. */
static int check_origin(const struct request *q, struct error *err)
{
	const struct http_server *s = q->server;
	const struct origin_rules rules = {
		.check_host = (s->tcp && s->local) || s->hosts,
		.names = s->hosts,
	};

	if (!s->app.unasked)
		return 0;
	return origin_check(&rules, request_header(q, "Host"),
			    request_header(q, "Origin"), err);
}

static void begin(struct exchange *x, const char *method, const char *version)
{
	struct request *q = &x->q;
	struct error err = { 0 };

	q->method_name = method;
	q->method = method_of(method);
	if (x->bad_target) {
		respond_header(q, "Connection", "close");
		respond_error(q, x->target_error.code == -EFBIG ? 414 : 400,
			      x->target_error.msg);
		return;
	}
	if (check_framing(q, method, version, &err) < 0) {
		x->endless = true;
		respond_header(q, "Connection", "close");
		respond_error(q, 400, err.msg);
		return;
	}
	if (check_origin(q, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	if (!take_client(q, x->connection)) {
		respond_retry(q, "There are too many requests from there.");
		return;
	}
	q->server->app.begin(q);
	if (!q->response.status && !q->sink && q->content_length > q->body.max)
		respond_errorf(q, 413, "The body is over %zu bytes.",
			       q->body.max);
}

static void take_body(struct exchange *x, const char *data, size_t len)
{
	struct request *q = &x->q;

	q->body_bytes += len;
	if (x->connection)
		atomic_store_explicit(&x->connection->body_bytes, q->body_bytes,
				      memory_order_relaxed);
	if (x->phase == PHASE_DROP)
		return;
	if (q->sink) {
		if (q->sink->chunk(q, data, len) < 0)
			x->phase = PHASE_DROP;
	} else {
		text_add_bytes(&q->body, data, len);
		if (q->body.failed) {
			x->phase = PHASE_DROP;
			respond_errorf(q, 413, "The body is over %zu bytes.",
				       q->body.max);
		}
	}
}

static enum MHD_Result send_response(struct exchange *x);

/*
 * An answer before the body ends the connection, and what the client still
 * sends may hide it from him. Bodies of a modest size are read to the end.
 */
static bool answer_before_body(struct exchange *x)
{
	const char *expect = request_header(&x->q, "Expect");

	return x->endless || (expect && !strcasecmp(expect, "100-continue")) ||
	       x->q.content_length > DROP_BYTES_MAX;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn,
				  const char *url, const char *method,
				  const char *version, const char *data,
				  size_t *len, void **req_cls)
{
	struct http_server *s = cls;
	struct exchange *x = *req_cls;

	if (!x)
		return MHD_NO;
	if (x->phase == PHASE_HEADERS) {
		/* Who he is may take its time, and that is not the client's. */
		connection_is_busy(s, x->connection);
		x->phase = PHASE_BODY;
		x->q.may_upgrade = !strcmp(version, "HTTP/1.1");
		begin(x, method, version);
		connection_waits(s, x->connection, true);
		if (!x->q.response.status)
			return MHD_YES;
		x->phase = PHASE_DROP;
		return answer_before_body(x) ? send_response(x) : MHD_YES;
	}
	if (*len) {
		take_body(x, data, *len);
		*len = 0;
		return MHD_YES;
	}
	connection_is_busy(s, x->connection);
	if (!x->q.response.status)
		s->app.finish(&x->q);
	if (!x->q.response.status)
		respond_error(&x->q, 500, "There is no answer.");
	return send_response(x);
}

/* ---- answers ---- */

const char *http_reason(unsigned int status)
{
	const char *text = mhd->get_reason_phrase_for(status);

	return text ? text : "Unknown";
}

void respond_header(struct request *q, const char *name, const char *value)
{
	struct response *r = &q->response;
	struct header *h = &r->headers[r->n_headers];

	if (r->n_headers == RESPONSE_HEADERS_MAX)
		return;
	h->name = strdup(name);
	h->value = strdup(value);
	if (h->name && h->value) {
		r->n_headers++;
		return;
	}
	free(h->name);
	free(h->value);
}

void respond_empty(struct request *q, unsigned int status)
{
	if (!q->response.status)
		q->response.status = status;
}

void respond_text(struct request *q, unsigned int status, const char *type,
		  char *text)
{
	struct response *r = &q->response;

	if (r->status) {
		free(text);
		return;
	}
	r->status = text ? status : 500;
	if (!text)
		return;
	r->text = text;
	r->text_bytes = strlen(text);
	respond_header(q, "Content-Type", type);
}

void respond_json(struct request *q, unsigned int status, struct text_buf *b)
{
	respond_text(q, status, "application/json", text_buf_take(b));
}

void respond_file(struct request *q, unsigned int status, int fd, uint64_t off,
		  uint64_t len)
{
	struct response *r = &q->response;

	if (r->status) {
		close(fd);
		return;
	}
	r->status = status;
	r->fd = fd;
	r->fd_off = off;
	r->fd_bytes = len;
}

void respond_producer(struct request *q, unsigned int status,
		      const struct producer *p, uint64_t len)
{
	struct response *r = &q->response;

	if (r->status) {
		p->free(p->opaque);
		return;
	}
	r->status = status;
	r->produced = true;
	r->producer = *p;
	r->producer_bytes = len;
}

void respond_upgrade(struct request *q, const char *protocol, upgrade_fn *fn,
		     void *opaque)
{
	struct response *r = &q->response;

	r->status = 101;
	r->upgrade = fn;
	r->upgrade_opaque = opaque;
	respond_header(q, "Upgrade", protocol);
}

static void add_html_escaped(struct text_buf *b, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			text_add(b, "&amp;");
			break;
		case '<':
			text_add(b, "&lt;");
			break;
		case '>':
			text_add(b, "&gt;");
			break;
		case '"':
			text_add(b, "&quot;");
			break;
		case '\'':
			text_add(b, "&#x27;");
			break;
		default:
			text_add_char(b, *text);
		}
	}
}

static void add_error_html(struct text_buf *b, unsigned int status,
			   const char *explanation)
{
	const char *reason = http_reason(status);

	text_addf(b,
		  "<html>\n <head>\n  <title>%u %s</title>\n </head>\n"
		  " <body>\n  <h1>%u %s</h1>\n  ",
		  status, reason, status, reason);
	add_html_escaped(b, explanation);
	text_add(b, "<br /><br />\n\n\n\n </body>\n</html>");
}

static void add_error_json(struct text_buf *b, unsigned int status,
			   const char *explanation)
{
	struct text_buf m = { 0 };

	text_add(&m, explanation);
	text_add(&m, "<br /><br />\n\n\n");
	text_add(b, "{\"message\": ");
	text_add_json(b, m.text ? m.text : "");
	text_addf(b, ", \"code\": \"%u %s\", \"title\": \"%s\"}", status,
		  http_reason(status), http_reason(status));
	text_buf_done(&m);
}

void respond_error(struct request *q, unsigned int status,
		   const char *explanation)
{
	const char *accept = request_header(q, "Accept");
	struct text_buf b = { 0 };

	if (accept && strstr(accept, "application/json") &&
	    !strstr(accept, "text/html") && !strstr(accept, "*/*")) {
		add_error_json(&b, status, explanation);
		respond_json(q, status, &b);
	} else {
		add_error_html(&b, status, explanation);
		respond_text(q, status, "text/html; charset=UTF-8",
			     text_buf_take(&b));
	}
}

void respond_errorf(struct request *q, unsigned int status, const char *fmt,
		    ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	respond_error(q, status, text);
}

void respond_retry(struct request *q, const char *explanation)
{
	respond_header(q, "Retry-After", HTTP_RETRY_SEC);
	respond_error(q, 503, explanation);
}

void respond_failure(struct request *q, const struct error *err)
{
	static const struct {
		int code;
		unsigned int status;
	} statuses[] = {
		{ -EINVAL, 400 }, { -EBADMSG, 400 }, { -EACCES, 401 },
		{ -EPERM, 403 },  { -ENOENT, 404 },  { -EEXIST, 409 },
		{ -EBUSY, 409 },  { -EFBIG, 413 },   { -EDQUOT, 413 },
		{ -ENOSPC, 413 }, { -ENOTSUP, 415 }, { -ETIMEDOUT, 504 },
	};
	size_t i;

	if (err->code == -EAGAIN) {
		respond_retry(q, err->msg);
		return;
	}

	for (i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (statuses[i].code == err->code) {
			respond_error(q, statuses[i].status, err->msg);
			return;
		}
	}
	/* Ours to mend: the log has it, the client need not. */
	log_line("%s: %s", q->id, err->msg);
	respond_error(q, 500,
		      "The server has either erred or is incapable of "
		      "performing the requested operation.");
}

static ssize_t produce(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct request *q = cls;
	struct response *r = &q->response;
	size_t len = (size_t)min_u64(max, r->producer_bytes - pos);

	if (!len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (r->producer.read(r->producer.opaque, buf, len,
			     r->producer.off + pos) < 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	return (ssize_t)len;
}

static ssize_t read_file(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct response *r = cls;
	size_t len = (size_t)min_u64(max, r->fd_bytes - pos);
	ssize_t n;

	if (!len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	do
		n = pread(r->fd, buf, len, (off_t)(r->fd_off + pos));
	while (n < 0 && errno == EINTR);
	return n > 0 ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

/*
 * sendfile() spares a copy here but leaves the client all of the page cache's
 * misses. On one machine, where both have a core, that is less than half as
 * fast as data that were just read.
 */
static bool peer_is_local(const struct request *q)
{
	const struct sockaddr *sa = client_address(q);

	return q->server->local ||
	       (sa && (sa->sa_family == AF_INET || sa->sa_family == AF_INET6) &&
		is_loopback(sa));
}

static void on_upgrade(void *cls, struct MHD_Connection *conn, void *req_cls,
		       const char *extra, size_t extra_bytes, MHD_socket sock,
		       struct MHD_UpgradeResponseHandle *handle)
{
	struct response *r = cls;
	struct upgraded u = { .fd = sock,
			      .extra = extra,
			      .extra_bytes = extra_bytes,
			      .internal = handle };

	r->upgrade(r->upgrade_opaque, &u);
}

void http_upgraded_close(const struct upgraded *u)
{
	mhd->upgrade_action(u->internal, MHD_UPGRADE_ACTION_CLOSE);
}

static struct MHD_Response *make_response(struct response *r, struct request *q)
{
	if (r->upgrade)
		return mhd->create_response_for_upgrade(on_upgrade, r);
	if (r->produced)
		return mhd->create_response_from_callback(
			r->producer_bytes, BLOCK_BYTES, produce, q, NULL);
	if (r->fd >= 0 && peer_is_local(q))
		return mhd->create_response_from_callback(
			r->fd_bytes, BLOCK_BYTES, read_file, r, NULL);
	if (r->fd >= 0)
		return mhd->create_response_from_fd_at_offset64(
			r->fd_bytes, TAKE_FD(r->fd), r->fd_off);
	return mhd->create_response_from_buffer(
		r->text_bytes, r->text ? r->text : "", MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result send_response(struct exchange *x)
{
	struct request *q = &x->q;
	struct response *r = &q->response;
	struct MHD_Response *m = make_response(r, q);
	enum MHD_Result ret;
	size_t i;

	if (!m)
		return MHD_NO;
	for (i = 0; i < r->n_headers; i++)
		mhd->add_response_header(m, r->headers[i].name,
					 r->headers[i].value);
	mhd->add_response_header(m, "X-Openstack-Request-Id", q->id);
	if (r->upgrade)
		connection_leaves(q->server, x->connection);
	ret = mhd->queue_response(q->conn, r->status, m);
	mhd->destroy_response(m);
	return ret;
}

/* ---- start and end ---- */

/* Decoding is ours, after the target was split. */
static size_t do_not_unescape(void *cls, struct MHD_Connection *conn, char *s)
{
	return strlen(s);
}

/* What clients do wrong is no news. */
static void drop_log(void *cls, const char *fmt, va_list args)
{
}

int http_start(struct http_server *s, const struct http_app *app,
	       struct error *err)
{
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, s->key },
		{ MHD_OPTION_END, 0, NULL },
	};

	s->app = *app;
	s->daemon = mhd->start_daemon(
		MHD_USE_THREAD_PER_CONNECTION |
			MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
			MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG | MHD_USE_ITC |
			(s->cert ? MHD_USE_TLS : 0U),
		0, on_accept, s, on_request, s, MHD_OPTION_EXTERNAL_LOGGER,
		drop_log, NULL, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
		MHD_OPTION_CONNECTION_LIMIT, s->max,
		MHD_OPTION_STRICT_FOR_CLIENT, s->in_place ? 0 : 1,
		MHD_OPTION_CONNECTION_TIMEOUT, s->idle_sec,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
		MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)(16U << 10),
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
		MHD_OPTION_UNESCAPE_CALLBACK, do_not_unescape, NULL,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
		MHD_OPTION_ARRAY, s->cert ? tls : &tls[2], MHD_OPTION_END);
	if (!s->daemon)
		return error_set(err, -EINVAL, 0,
				 s->cert ? "glance: the HTTP server does not "
					   "start; are glance-cert and "
					   "glance-key a pair in PEM?"
					 : "glance: the HTTP server does not "
					   "start");
	if (pthread_create(&s->watch, NULL, watch, s))
		return error_set(err, -EAGAIN, 0, "glance: no thread");
	s->watching = true;
	return 0;
}

void http_free(struct http_server *s)
{
	if (!s)
		return;
	if (s->watching) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->stop_cond);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->watch, NULL);
	}
	if (s->daemon)
		mhd->stop_daemon(s->daemon); /* closes the socket */
	else
		closep(&s->listen_fd);
	if (s->unix_path)
		unlink(s->unix_path);
	free(s->unix_path);
	free(s->cert);
	free(s->key);
	pthread_cond_destroy(&s->stop_cond);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
