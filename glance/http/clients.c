/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may come, and who is too slow to stay. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "glance/http/http-inside.h"

/* Of all connections, 1 / ROOM are kept free where somebody is slow ... */
#define ROOM		4U
/* ... for those that are ended are there until their threads have seen it. */
#define ROOM_PAUSE_USEC 1000U

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
	int64_t now = http_now_usec(), most = 0;

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

void *clients_watch(void *opaque)
{
	struct http_server *s = opaque;
	struct connection *c;
	struct timespec ts;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int64_t now = http_now_usec();
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

void client_waits(struct http_server *s, struct connection *c, bool in_body)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->since_usec = http_now_usec();
	c->in_body = in_body;
	c->busy = false;
	c->has_client = c->has_client && in_body;
	atomic_store_explicit(&c->body_bytes, 0, memory_order_relaxed);
	pthread_mutex_unlock(&s->lock);
}

void client_is_busy(struct http_server *s, struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->busy = true;
	pthread_mutex_unlock(&s->lock);
}

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

enum MHD_Result clients_on_accept(void *cls, const struct sockaddr *sa,
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

bool client_take(struct request *q, struct connection *c)
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

void client_leaves(struct http_server *s, struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&s->lock);
	c->left = true;
	pthread_mutex_unlock(&s->lock);
}

void clients_on_connection(void *cls, struct MHD_Connection *conn,
			   void **socket,
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
	c->since_usec = http_now_usec();
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
