/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "glance/http/tunnel.h"
#include "iouring/util.h"

#define BUFFER_BYTES (256U << 10)
#define RESERVED_SEC 10
#define STACK_BYTES  (128U << 10)

struct tunnels {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	struct tunnel *first;
	unsigned int n; /* with those that are only reserved */
	bool stop;
};

/* One way. */
struct way {
	int from, to;
	size_t off, len; /* what waits in the buffer */
	bool ended; /* nothing more comes */
	/*
	 * Nobody is at the other end: what comes is dropped. To hang up on
	 * nbdkit with replies under way is what nbdkit before 1.33.10 may die
	 * of; it is told that no request follows, and replies to the end.
	 */
	bool lost;
	bool shut; /* ... and the other end knows */
	char buf[BUFFER_BYTES];
};

struct tunnel {
	struct tunnels *all;
	struct tunnel_ends ends;
	struct tunnel *next, **link;
	struct way out, back; /* near to far, far to near */
};

int tunnels_new(struct tunnels **ret, struct error *err)
{
	struct tunnels *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->ended, NULL);
	*ret = t;
	return 0;
}

/*
 * One whose place is reserved, and whose client has been told, may begin after
 * this has: libmicrohttpd would free its connection under it.
 */
void tunnels_stop(struct tunnels *t)
{
	struct timespec until;
	struct tunnel *u;
	int r = 0;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	for (u = t->first; u; u = u->next) {
		shutdown(u->ends.near, SHUT_RDWR);
		shutdown(u->ends.far, SHUT_RDWR);
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += RESERVED_SEC;
	while (t->n && !r)
		r = pthread_cond_timedwait(&t->ended, &t->lock, &until);
	while (t->first)
		pthread_cond_wait(&t->ended, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

void tunnels_free(struct tunnels *t)
{
	if (!t)
		return;
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

unsigned int tunnels_count(struct tunnels *t)
{
	unsigned int n;

	pthread_mutex_lock(&t->lock);
	n = t->n;
	pthread_mutex_unlock(&t->lock);
	return n;
}

int tunnel_reserve(struct tunnels *t, struct error *err)
{
	bool ok;

	pthread_mutex_lock(&t->lock);
	ok = !t->stop && t->n < TUNNELS_MAX;
	t->n += ok;
	pthread_mutex_unlock(&t->lock);
	return ok ? 0
		  : error_set(err, -EAGAIN, 0,
			      "%u connections speak NBD here, the most that "
			      "may",
			      TUNNELS_MAX);
}

void tunnel_give_back(struct tunnels *t)
{
	pthread_mutex_lock(&t->lock);
	t->n--;
	pthread_cond_broadcast(&t->ended);
	pthread_mutex_unlock(&t->lock);
}

static bool must_wait(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static void take(struct way *w)
{
	size_t used = w->off + w->len;
	ssize_t n;

	if (w->off && used == BUFFER_BYTES) {
		memmove(w->buf, w->buf + w->off, w->len);
		w->off = 0;
		used = w->len;
	}
	n = recv(w->from, w->buf + used, BUFFER_BYTES - used, MSG_DONTWAIT);
	if (n > 0)
		w->len += (size_t)n;
	else if (!n || !must_wait())
		w->ended = true;
}

static void give(struct way *w)
{
	ssize_t n = send(w->to, w->buf + w->off, w->len,
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0) {
		w->len -= (size_t)n;
		w->off = w->len ? w->off + (size_t)n : 0;
	} else if (!must_wait()) {
		w->lost = true;
		w->len = w->off = 0;
	}
}

static bool may_take(const struct way *w)
{
	return !w->ended && w->len < BUFFER_BYTES;
}

/* What is to be waited for: at the end it comes from, and where it goes. */
static void ask(const struct way *w, struct pollfd *from, struct pollfd *to)
{
	if (may_take(w))
		from->events |= POLLIN;
	if (w->len)
		to->events |= POLLOUT;
}

static void move(struct way *w, short from_events, short to_events)
{
	bool taken = may_take(w) && from_events;

	if (taken)
		take(w);
	if (w->lost)
		w->len = w->off = 0;
	/* What has just come can mostly be sent at once. */
	if (w->len && (to_events || taken))
		give(w);
	if (w->ended && !w->len && !w->shut) {
		shutdown(w->to, SHUT_WR);
		w->shut = true;
	}
}

/* Until nothing more comes either way. */
static void join_ends(struct tunnel *u)
{
	struct pollfd fds[2];

	while (!(u->out.shut && u->back.shut)) {
		fds[0] = (struct pollfd){ .fd = u->ends.near };
		fds[1] = (struct pollfd){ .fd = u->ends.far };
		ask(&u->out, &fds[0], &fds[1]);
		ask(&u->back, &fds[1], &fds[0]);
		/* poll() tells of a hang-up also who did not ask, on and on. */
		if (!fds[0].events)
			fds[0].fd = -1;
		if (!fds[1].events)
			fds[1].fd = -1;
		if (poll(fds, 2, -1) < 0)
			continue;
		move(&u->out, fds[0].revents, fds[1].revents);
		move(&u->back, fds[1].revents, fds[0].revents);
	}
}

static void end(struct tunnel *u)
{
	struct tunnels *t = u->all;

	pthread_mutex_lock(&t->lock);
	*u->link = u->next;
	if (u->next)
		u->next->link = u->link;
	t->n--;
	/* Under the lock: tunnels_stop() must not shut another's descriptor. */
	u->ends.close(u->ends.opaque);
	pthread_cond_broadcast(&t->ended);
	pthread_mutex_unlock(&t->lock);
	free(u);
}

static void *run(void *opaque)
{
	join_ends(opaque);
	end(opaque);
	return NULL;
}

static bool start_thread(struct tunnel *u)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool ok;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ok = !pthread_create(&thread, &attr, run, u);
	pthread_attr_destroy(&attr);
	return ok;
}

void tunnel_start(struct tunnels *t, const struct tunnel_ends *ends,
		  const void *first, size_t first_bytes)
{
	struct tunnel *u =
		first_bytes <= BUFFER_BYTES ? malloc(sizeof(*u)) : NULL;

	if (!u) {
		ends->close(ends->opaque);
		tunnel_give_back(t);
		return;
	}
	u->all = t;
	u->ends = *ends;
	u->out = (struct way){ .from = ends->near, .to = ends->far };
	u->back = (struct way){ .from = ends->far, .to = ends->near };
	if (first_bytes)
		memcpy(u->out.buf, first, first_bytes);
	u->out.len = first_bytes;
	pthread_mutex_lock(&t->lock);
	u->next = t->first;
	u->link = &t->first;
	if (u->next)
		u->next->link = &u->next;
	t->first = u;
	if (t->stop) {
		shutdown(ends->near, SHUT_RDWR);
		shutdown(ends->far, SHUT_RDWR);
	}
	pthread_mutex_unlock(&t->lock);
	if (!start_thread(u))
		end(u);
}
