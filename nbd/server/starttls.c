/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/starttls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* ---- the option ---- */

/*
 * From the next byte on all is TLS. What was said before it, perhaps by somebody
 * else, counts for nothing (proto.md, "NBD_OPT_STARTTLS").
 */
static bool begin(struct client *c)
{
	if (!option_answer(c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0))
		return false;
	/* OpenSSL reads as the descriptor says, which a worker would wait at. */
	if (fcntl(c->watch.fd, F_SETFL, O_NONBLOCK) < 0)
		return false;
	c->structured = false;
	c->tls = tls_session_new(c->loop->tls, c->watch.fd);
	c->phase = PHASE_TLS;
	return c->tls;
}

static bool then_begin(struct option_job *j)
{
	/* Bytes behind the option are not his who will be at the other end. */
	return !j->client->in_n && begin(j->client);
}

bool starttls_take(struct client *c, const struct option *o)
{
	if (!c->loop->tls)
		return option_answer_text(c, o->number, NBD_REP_ERR_UNSUP,
					  "TLS is not offered");
	if (c->tls || o->n)
		return option_answer_text(c, o->number, NBD_REP_ERR_INVALID,
					  c->tls ? "TLS is there already"
						 : "this option has no data");
	if (!c->user.connection)
		return begin(c);
	return option_start_job(c, o,
				&(struct option_job){ .name = strdup(""),
						      .close = true,
						      .then = then_begin });
}

/* ---- the handshake ---- */

struct step {
	struct queue_request q;
	struct queue_user user;
	struct client *client;
	uint64_t began_nsec;
	enum tls_step result;
	struct fault fault;
};

static void run(struct queue_request *q)
{
	struct step *s = container_of(q, struct step, q);

	s->result = tls_handshake(s->client->tls, &s->fault.err);
}

static void add_name(struct client *c)
{
	size_t n = strlen(c->peer.text);

	if (*tls_peer(c->tls))
		snprintf(c->peer.text + n, sizeof(c->peer.text) - n, " (%s)",
			 tls_peer(c->tls));
}

static void take_result(struct client *c, struct step *s)
{
	switch (s->result) {
	case TLS_DONE:
		add_name(c);
		c->secure = true;
		c->phase = PHASE_OPTIONS;
		break;
	case TLS_WANTS_READ:
		c->tls_events = EPOLLIN;
		break;
	case TLS_WANTS_WRITE:
		c->tls_events = EPOLLOUT;
		break;
	case TLS_FAILED:
		if (s->fault.err.code) {
			error_prefix(&s->fault.err, "%s", c->peer.text);
			session_turn_away(&s->fault);
			c->loop->tell(&s->fault);
		}
		client_break(c);
		break;
	}
}

static void done(struct queue_request *q)
{
	struct step *s = container_of(q, struct step, q);
	struct client *c = s->client;

	c->at_work--;
	c->deadline_nsec += now_nsec() - s->began_nsec;
	if (!c->broken)
		take_result(c, s);
	free(s);
	client_go_on(c);
}

void starttls_go_on(struct client *c)
{
	struct step *s;

	if (c->out || c->at_work || c->tls_events)
		return;
	s = malloc(sizeof(*s));
	if (!s) {
		client_break(c);
		return;
	}
	*s = (struct step){
		.q = { .op = QUEUE_CALL, .call = run, .done = done },
		.user = { .queue = c->loop->queue },
		.client = c,
		.began_nsec = now_nsec()
	};
	c->at_work++;
	queue_submit(&s->user, &s->q);
}
