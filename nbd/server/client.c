/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/client.h"

#include <string.h>
#include <sys/socket.h>

#define SPARE_MAX 1024U

struct nbd_request *request_new(struct client *c)
{
	struct loop *l = c->loop;
	struct nbd_request *r = l->spare;

	if (r) {
		l->spare = r->next;
		l->n_spare--;
	} else {
		r = malloc(sizeof(*r));
		if (!r)
			return NULL;
	}
	/* But for the runs, which are written before they are read. */
	memset(r, 0, offsetof(struct nbd_request, zeroes));
	r->raw = NULL;
	r->raw_n = r->raw_room = 0;
	r->context_idx = 0;
	r->client = c;
	c->in_flight++;
	c->asked++;
	return r;
}

void request_free(struct nbd_request *r)
{
	struct client *c = r->client;
	struct loop *l = c->loop;

	c->flight_bytes -= r->weight;
	buffer_give(&l->buffers, r->q.buf, r->q.len);
	free(r->raw);
	c->in_flight--;
	if (l->n_spare == SPARE_MAX) {
		free(r);
		return;
	}
	r->next = l->spare;
	l->spare = r;
	l->n_spare++;
}

bool request_add(struct nbd_request *r, const void *data, size_t n)
{
	size_t room = r->raw_room ? r->raw_room : 256;
	uint8_t *grown;

	while (room < r->raw_n + n)
		room *= 2;
	if (room != r->raw_room) {
		grown = realloc(r->raw, room);
		if (!grown)
			return false;
		r->raw = grown;
		r->raw_room = room;
	}
	memcpy(r->raw + r->raw_n, data, n);
	r->raw_n += n;
	return true;
}

void client_drop_contexts(struct client *c)
{
	c->contexts.n = 0;
	if (c->user.connection)
		connection_drop_contexts(c->user.connection);
}

bool client_has_open(const struct client *c, const char *name)
{
	return c->export && !strcmp(c->export, name);
}

ssize_t client_recv(struct client *c, void *buf, size_t n)
{
	return c->secure ? tls_recv(c->tls, buf, n)
			 : recv(c->watch.fd, buf, n, MSG_DONTWAIT);
}

/* A worker may be at TLS's handshake: no other may be given the number. */
static void hang_up(struct client *c)
{
	if (c->secure)
		tls_session_end(c->tls);
	if (c->phase == PHASE_TLS && c->at_work) {
		epoll_ctl(c->loop->epoll_fd, EPOLL_CTL_DEL, c->watch.fd, NULL);
		shutdown(c->watch.fd, SHUT_RDWR);
		c->late_fd = TAKE_FD(c->watch.fd);
		return;
	}
	close(TAKE_FD(c->watch.fd)); /* epoll forgets it, too */
}

void client_break(struct client *c)
{
	struct nbd_request *r;

	if (c->broken)
		return;
	c->broken = true;
	atomic_store(&c->user.gone, true);
	if (c->shaking) {
		c->shaking = false;
		c->loop->n_shaking--;
	}
	hang_up(c);
	while ((r = c->out)) {
		c->out = r->next;
		request_free(r);
	}
	if (c->incoming)
		request_free(TAKE_PTR(c->incoming));
}

void client_go_on(struct client *c)
{
	/* One message for all that have been done meanwhile: see queue_ready(). */
	if (c->touched)
		return;
	c->touched = true;
	c->next_touched = c->loop->touched;
	c->loop->touched = c;
}
