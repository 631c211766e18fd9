/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A turn of a loop: wait, and then for each client that is ready read all that
 * has come, have it done, and send all that is done. A client's socket is not
 * waited for while it may send no more (PHASE_BUSY, or as much as he may have is
 * under way), and is not read when the last read brought less than it could.
 *
 * A lone reader is waited for in recv(2) itself. His next request then costs one
 * wake and one system call less than by epoll, and his processor does not go to
 * sleep meanwhile, which on a virtual machine is dearer than all the rest: a fourth
 * more requests a second of one at a time. It is done while requests follow each
 * other closely, and what else the loop has to do waits for twice ALONE_NSEC. Of a
 * client who has several under way more come together by epoll, which is slower.
 *
 * A client that breaks off is closed at once, and freed when no worker is at a
 * request of his and one has let go of his export, which may take as long as a
 * flush does.
 */
#include "nbd/server/loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "nbd/server/client.h"
#include "nbd/server/starttls.h"

#define HANDSHAKE_SEC	30U
#define STOP_SEC	2U
#define EVENTS_MAX	64
#define ALONE_NSEC	4000000U
#define SEVERAL_NSEC	100000000U
#define ACCEPT_AT_ONCE	16
#define KEEPALIVE_SEC	60
#define KEEPALIVE_PAUSE 20
#define KEEPALIVE_TIMES 3
#define UNANSWERED_MSEC 120000U

struct arrival {
	int fd;
	struct handed *handed;
	struct arrival *next;
};

struct loops {
	struct loop **loops;
	unsigned int n;
};

static void handed_free(struct handed *h)
{
	if (!h)
		return;
	free(h->export);
	free(h->peer);
	free(h);
}

/* ---- a client's end ---- */

static void client_unlink(struct client *c)
{
	*c->self = c->next;
	if (c->next)
		c->next->self = c->self;
}

static void client_free(struct client *c)
{
	client_unlink(c);
	handed_free(c->handed);
	free(c->export);
	free(c->in);
	tls_session_free(c->tls);
	closep(&c->late_fd);
	atomic_fetch_sub(&c->loop->n_clients, 1);
	c->next = c->loop->dead;
	c->loop->dead = c;
}

struct goodbye {
	struct queue_request q;
	struct queue_user user;
	struct client *client;
};

static void let_go(struct queue_request *q)
{
	struct goodbye *g = container_of(q, struct goodbye, q);

	connection_close(g->client->user.connection);
}

static void let_go_done(struct queue_request *q)
{
	struct goodbye *g = container_of(q, struct goodbye, q);

	client_free(g->client);
	free(g);
}

/* Nothing is at work for him any more. */
static void client_end(struct client *c)
{
	struct goodbye *g = NULL;

	if (c->closing)
		return;
	c->closing = true;
	if (c->user.connection)
		g = calloc(1, sizeof(*g));
	if (!g) {
		if (c->user.connection)
			connection_close(c->user.connection);
		client_free(c);
		return;
	}
	*g = (struct goodbye){
		.q = { .op = QUEUE_CALL, .call = let_go, .done = let_go_done },
		.user = { .queue = c->loop->queue },
		.client = c
	};
	queue_submit(&g->user, &g->q);
}

static bool is_shaking(const struct client *c)
{
	return c->phase < PHASE_TRANSMISSION;
}

/* ---- reading ---- */

/* What was read and not understood is kept for the next time. */
static bool keep_rest(struct client *c, const uint8_t *rest, size_t n)
{
	uint8_t *grown;

	if (n > c->in_room) {
		grown = realloc(c->in, round_up(n, 64));
		if (!grown)
			return false;
		c->in = grown;
		c->in_room = round_up(n, 64);
	}
	if (n)
		memmove(c->in, rest, n);
	c->in_n = n;
	/* An idle client costs little. */
	if (!n && c->in_room > 256) {
		free(TAKE_PTR(c->in));
		c->in_room = 0;
	}
	return true;
}

static bool may_read(const struct client *c)
{
	switch (c->phase) {
	case PHASE_FLAGS:
		return true;
	case PHASE_OPTIONS:
		return handshake_has_room(c);
	case PHASE_TRANSMISSION:
		return c->incoming || transmission_has_room(c);
	case PHASE_BUSY:
	case PHASE_TLS:
	case PHASE_LAST:
		break;
	}
	return false;
}

/* What can be understood of @buf; the rest is kept. False: he ends. */
static bool understand(struct client *c, const uint8_t *buf, size_t n)
{
	ssize_t used = 0, more;

	do {
		more = 0;
		if (is_shaking(c))
			more = handshake_take(c, buf + used, n - (size_t)used);
		else if (c->phase == PHASE_TRANSMISSION)
			more = transmission_take(c, buf + used,
						 n - (size_t)used);
		if (more < 0)
			return false;
		used += more;
	} while (more && (size_t)used < n);
	/* What lies behind STARTTLS was not sent under it. */
	if (c->phase == PHASE_TLS && (size_t)used < n)
		return false;
	return keep_rest(c, buf + used, n - (size_t)used);
}

/* Straight to where a write's data belong. */
static ssize_t read_data(struct client *c, bool *ret_all)
{
	struct nbd_request *r = c->incoming;
	size_t rest = r->q.len - c->incoming_n;
	ssize_t n = client_recv(c, (uint8_t *)r->q.buf + c->incoming_n, rest);

	*ret_all = n == (ssize_t)rest;
	if (n <= 0)
		return n;
	c->incoming_n += (size_t)n;
	if (*ret_all)
		transmission_written(c);
	return n;
}

static ssize_t read_some(struct client *c, bool *ret_all)
{
	struct loop *l = c->loop;
	size_t had = c->in_n, room = sizeof(l->scratch) - had;
	ssize_t n;

	if (c->incoming && !had)
		return read_data(c, ret_all);
	n = client_recv(c, l->scratch + had, room);
	*ret_all = n == (ssize_t)room;
	if (n <= 0)
		return n;
	if (had)
		memcpy(l->scratch, c->in, had);
	if (understand(c, l->scratch, had + (size_t)n))
		return n;
	errno = EPROTO;
	return -1;
}

/* Reads while there is something. False: he ends. */
static bool read_all(struct client *c)
{
	bool all = true;
	ssize_t n;

	/* Of what TLS has by now the socket does not tell. */
	while ((all || c->secure) && may_read(c)) {
		n = read_some(c, &all);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		if (!n) {
			c->phase = PHASE_LAST; /* he says no more */
			return !c->incoming; /* whose data never come */
		}
	}
	return true;
}

/* ---- a turn ---- */

static void set_events(struct client *c)
{
	uint32_t want = (may_read(c) ? EPOLLIN : 0U) |
			(c->blocked ? EPOLLOUT : 0U) | c->tls_events;
	struct epoll_event e = { .events = want, .data.ptr = c };

	if (want == c->events)
		return;
	c->events = want;
	if (epoll_ctl(c->loop->epoll_fd, EPOLL_CTL_MOD, c->watch.fd, &e) < 0)
		client_break(c);
}

static bool is_over(const struct client *c)
{
	return c->phase == PHASE_LAST && !c->in_flight && !c->at_work;
}

/* Everything but reading: what is done goes out, and what was kept is read. */
static void settle(struct client *c)
{
	size_t had;

	do {
		if (!c->broken && c->out && !reply_send(c))
			client_break(c);
		had = c->in_n;
		if (!c->broken && had && may_read(c)) {
			memcpy(c->loop->scratch, c->in, had);
			if (!understand(c, c->loop->scratch, had))
				client_break(c);
		}
		if (!c->broken && c->secure && may_read(c) &&
		    tls_has_pending(c->tls) && !read_all(c))
			client_break(c);
	} while (!c->broken && (c->in_n != had || (c->out && !c->blocked)));
	if (!c->broken && c->phase == PHASE_TLS)
		starttls_go_on(c);
	if (!c->broken && c->shaking && !is_shaking(c)) {
		c->shaking = false;
		c->loop->n_shaking--;
	}
	if (!c->broken && is_over(c))
		client_break(c);
	if (!c->broken)
		set_events(c);
	if (c->broken && !c->at_work)
		client_end(c);
}

/* He has asked for more than one thing at once, since @asked was so. */
static void note_several(struct client *c, unsigned int asked)
{
	if (c->asked - asked > 1)
		c->loop->several_nsec = now_nsec();
}

static void client_ready(struct watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);
	unsigned int asked = c->asked;

	if (c->tls_events)
		c->tls_events = 0; /* goes on, whatever has come */
	else if (events & EPOLLERR || (events & EPOLLHUP && !may_read(c)))
		client_break(c);
	else if (events & (EPOLLIN | EPOLLHUP) && !read_all(c))
		client_break(c);
	note_several(c, asked);
	settle(c);
}

static void queue_ready(struct watch *w, uint32_t events)
{
	struct loop *l = container_of(w, struct loop, queue_watch);
	struct client *c;

	queue_reap(l->queue);
	while ((c = l->touched)) {
		l->touched = c->next_touched;
		c->touched = false;
		settle(c);
	}
}

/* ---- clients come ---- */

static void tune(int fd)
{
	const int one = 1, idle = KEEPALIVE_SEC, pause = KEEPALIVE_PAUSE,
		  times = KEEPALIVE_TIMES;
	const unsigned int unanswered = UNANSWERED_MSEC;

	/* Of a unix socket these fail, and nothing is lost by it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &pause, sizeof(pause));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered,
		   sizeof(unanswered));
}

/* For recv(2) without MSG_DONTWAIT, which serve_alone() alone calls. */
static void limit_wait(int fd)
{
	const struct timeval most = { .tv_usec = ALONE_NSEC / 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
}

static void name_peer(int fd, struct peer_names *ret)
{
	struct sockaddr_storage sa = { .ss_family = AF_UNIX };
	socklen_t len = sizeof(sa), cred_len = sizeof(struct ucred);
	struct ucred cred = { .pid = 0 };

	if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0)
		len = 0;
	if (sa.ss_family == AF_UNIX)
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len);
	peer_name(&sa, len, cred.pid, ret);
}

/* Takes over @fd and @handed. The client has been counted. */
static void client_begin(struct loop *l, int fd, struct handed *handed)
{
	struct client *c = calloc(1, sizeof(*c));
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };

	if (!c) {
		close(fd);
		handed_free(handed);
		atomic_fetch_sub(&l->n_clients, 1);
		return;
	}
	*c = (struct client){ .watch = { .fd = fd, .ready = client_ready },
			      .loop = l,
			      .user = { .queue = l->queue },
			      .handed = handed,
			      .late_fd = -1,
			      .deadline_nsec =
				      now_nsec() + HANDSHAKE_SEC * NSEC,
			      .shaking = true,
			      .events = EPOLLIN };
	limit_wait(fd);
	name_peer(fd, &c->peer);
	c->next = l->clients;
	c->self = &l->clients;
	if (c->next)
		c->next->self = &c->next;
	l->clients = c;
	l->n_shaking++;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ||
	    !handshake_begin(c))
		client_break(c);
	settle(c);
}

/* The loop with the fewest clients, counting one more for it. */
static struct loop *choose(struct loops *all)
{
	struct loop *best = all->loops[0];
	unsigned int i;

	for (i = 1; i < all->n; i++)
		if (atomic_load(&all->loops[i]->n_clients) <
		    atomic_load(&best->n_clients))
			best = all->loops[i];
	atomic_fetch_add(&best->n_clients, 1);
	return best;
}

static void wake(struct loop *l)
{
	const uint64_t one = 1;

	if (write(l->wake.fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd that is read takes 2^64 - 2 of them */
}

/* To another thread's loop. Takes over @fd and @handed. */
static int send_to(struct loop *l, int fd, struct handed *handed)
{
	struct arrival *a = malloc(sizeof(*a));

	if (!a) {
		close(fd);
		handed_free(handed);
		atomic_fetch_sub(&l->n_clients, 1);
		return -ENOMEM;
	}
	pthread_mutex_lock(&l->lock);
	*a = (struct arrival){ fd, handed, l->arrivals };
	l->arrivals = a;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	return 0;
}

static void refuse(struct loop *l, int fd, const struct fault *f)
{
	close(fd);
	l->tell(f);
}

static void listener_ready(struct watch *w, uint32_t events)
{
	struct door *d = container_of(w, struct door, watch);
	struct loop *l = d->loop, *to;
	struct fault f;
	int fd, i;

	for (i = 0; i < ACCEPT_AT_ONCE; i++) {
		fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			return; /* another loop has taken him, or he has gone */
		if (session_admit(&f) < 0) {
			refuse(l, fd, &f);
			continue;
		}
		tune(fd);
		to = choose(l->all);
		if (to == l)
			client_begin(l, fd, NULL);
		else
			send_to(to, fd, NULL);
	}
}

static void stop_clients(struct loop *l)
{
	struct client *c, *next;
	unsigned int i;

	for (i = 0; i < l->n_doors; i++)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->doors[i].watch.fd,
			  NULL);
	for (c = l->clients; c; c = next) {
		next = c->next;
		if (c->phase != PHASE_BUSY && c->phase != PHASE_TLS)
			c->phase = PHASE_LAST;
		else
			client_break(c);
		if (c->incoming)
			client_break(c);
		settle(c);
	}
}

static void wake_ready(struct watch *w, uint32_t events)
{
	struct loop *l = container_of(w, struct loop, wake);
	struct arrival *a, *next;
	uint64_t count;
	bool stopping;

	if (read(w->fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&l->lock);
	a = TAKE_PTR(l->arrivals);
	stopping = l->stopping;
	pthread_mutex_unlock(&l->lock);
	for (; a; a = next) {
		next = a->next;
		client_begin(l, a->fd, a->handed);
		free(a);
	}
	if (stopping && !l->stop_nsec) {
		l->stop_nsec = now_nsec() + STOP_SEC * NSEC;
		stop_clients(l);
	}
}

/* Those who take too long with the handshake, or with the end. */
static void end_late(struct loop *l)
{
	uint64_t now = now_nsec();
	struct client *c, *next;

	for (c = l->clients; c; c = next) {
		next = c->next;
		if (c->broken || !((c->shaking && c->phase != PHASE_BUSY &&
				    now > c->deadline_nsec) ||
				   (l->stop_nsec && now > l->stop_nsec)))
			continue;
		client_break(c);
		settle(c);
	}
}

static void free_dead(struct loop *l)
{
	struct client *c;

	while ((c = l->dead)) {
		l->dead = c->next;
		free(c);
	}
}

/* A client alone, of whom the next thing to come is a single request. */
static struct client *lone_reader(const struct loop *l)
{
	struct client *c = l->clients;
	bool waits = c && !c->next && !c->secure && !c->in_flight &&
		     !c->at_work && !c->in_n && c->phase == PHASE_TRANSMISSION;

	return waits && !c->broken && !l->stop_nsec &&
			       now_nsec() > l->several_nsec + SEVERAL_NSEC &&
			       atomic_load(&l->n_clients) == 1
		       ? c
		       : NULL;
}

/*
 * Serves a client who is alone until it is time to look for what else there is:
 * true. False: he has nothing to ask for now, or is one of several.
 */
static bool serve_alone(struct loop *l)
{
	uint64_t now = now_nsec(), since = l->looked_nsec;
	unsigned int asked;
	struct client *c;
	ssize_t n;

	l->looked_nsec = now;
	if (now - since > ALONE_NSEC)
		return false;
	while ((c = lone_reader(l)) && now_nsec() < now + ALONE_NSEC) {
		asked = c->asked;
		n = recv(c->watch.fd, l->scratch, sizeof(l->scratch), 0);
		if (n <= 0)
			return false; /* of what that is epoll tells */
		if (!understand(c, l->scratch, (size_t)n) ||
		    ((size_t)n == sizeof(l->scratch) && !read_all(c)))
			client_break(c);
		note_several(c, asked);
		settle(c);
		queue_push(l->queue);
	}
	l->looked_nsec = now_nsec();
	return c;
}

static void *loop_run(void *opaque)
{
	struct loop *l = opaque;
	struct epoll_event events[EVENTS_MAX];
	int n, i, msec;

	while (!l->stop_nsec || l->clients) {
		msec = l->n_shaking || l->stop_nsec ? 1000 : -1;
		if (lone_reader(l) && serve_alone(l))
			msec = 0;
		n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, msec);
		for (i = 0; i < n; i++) {
			struct watch *w = events[i].data.ptr;

			/* Closed meanwhile, by what came before it. */
			if (w->fd >= 0)
				w->ready(w, events[i].events);
		}
		queue_push(l->queue);
		if (l->n_shaking || l->stop_nsec)
			end_late(l);
		free_dead(l);
	}
	return NULL;
}

/* ---- threads ---- */

static int watch_it(struct loop *l, struct watch *w, uint32_t events,
		    struct error *err)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, w->fd, &e) < 0
		       ? error_set(err, -errno, 0, "epoll: %s",
				   errno_text(errno))
		       : 0;
}

static void loop_free(struct loop *l)
{
	struct nbd_request *r;

	if (!l)
		return;
	while ((r = l->spare)) {
		l->spare = r->next;
		free(r);
	}
	buffers_done(&l->buffers);
	queue_free(l->queue);
	closep(&l->wake.fd);
	closep(&l->epoll_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->doors);
	free(l);
}

static int open_doors(struct loop *l, const struct loops_options *o,
		      struct error *err)
{
	unsigned int i;
	int r = 0;

	l->doors = calloc(o->n_listen_fds + 1, sizeof(*l->doors));
	if (!l->doors)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < o->n_listen_fds && r >= 0; i++) {
		l->doors[i] = (struct door){
			.watch = { .fd = o->listen_fds[i],
				   .ready = listener_ready },
			.loop = l,
		};
		r = watch_it(l, &l->doors[i].watch, EPOLLIN | EPOLLEXCLUSIVE,
			     err);
		l->n_doors++;
	}
	return r;
}

static int loop_new(struct loops *all, const struct loops_options *o,
		    struct loop **ret, struct error *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&l->lock, NULL);
	*ret = l;
	l->all = all;
	l->service = o->service;
	l->tell = o->tell;
	l->tls = o->tls;
	l->tls_required = o->tls_required;
	l->wake = (struct watch){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				  .ready = wake_ready };
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0 || l->wake.fd < 0)
		return error_set(err, -errno, 0, "no descriptor: %s",
				 errno_text(errno));
	r = queue_new(&l->queue, err);
	if (r < 0)
		return r;
	l->queue_watch = (struct watch){ .fd = queue_fd(l->queue),
					 .ready = queue_ready };
	r = watch_it(l, &l->queue_watch, EPOLLIN, err);
	if (r >= 0)
		r = watch_it(l, &l->wake, EPOLLIN, err);
	return r < 0 ? r : open_doors(l, o, err);
}

int loops_start(const struct loops_options *o, struct loops **ret,
		struct error *err)
{
	struct loops *all = calloc(1, sizeof(*all));
	int r = 0;

	if (all)
		all->loops = calloc(o->n, sizeof(struct loop *));
	if (!all || !all->loops) {
		free(all);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	while (all->n < o->n && r >= 0)
		r = loop_new(all, o, &all->loops[all->n++], err);
	if (r >= 0) {
		unsigned int i;

		for (i = 0; i < all->n && r >= 0; i++) {
			r = -pthread_create(&all->loops[i]->thread, NULL,
					    loop_run, all->loops[i]);
			all->loops[i]->started = r >= 0;
		}
		if (r < 0)
			error_set(err, r, 0, "no thread: %s", errno_text(-r));
	}
	if (r < 0) {
		loops_stop(all);
		return r;
	}
	*ret = all;
	return 0;
}

void loops_stop(struct loops *all)
{
	unsigned int i;

	for (i = 0; i < all->n; i++) {
		struct loop *l = all->loops[i];

		if (!l || !l->started)
			continue;
		pthread_mutex_lock(&l->lock);
		l->stopping = true;
		pthread_mutex_unlock(&l->lock);
		wake(l);
	}
	for (i = 0; i < all->n; i++) {
		if (all->loops[i] && all->loops[i]->started)
			pthread_join(all->loops[i]->thread, NULL);
	}
	for (i = 0; i < all->n; i++)
		loop_free(all->loops[i]);
	free(all->loops);
	free(all);
}

int loops_hand(struct loops *all, int fd, const char *export, const char *peer,
	       struct error *err)
{
	struct handed *h = calloc(1, sizeof(*h));
	int r = -ENOMEM;

	if (h) {
		h->export = strdup(export);
		h->peer = strdup(peer);
	}
	if (!h || !h->export || !h->peer) {
		close(fd);
		handed_free(h);
	} else {
		r = send_to(choose(all), fd, h);
	}
	return r < 0 ? error_set(err, r, 0, "out of memory") : 0;
}
