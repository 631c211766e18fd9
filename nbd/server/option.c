/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/option.h"

#include <errno.h>
#include <string.h>

#include "formats/put-be.h"

bool option_say(struct client *c, const void *data, size_t n)
{
	struct nbd_request *r = request_new(c);

	if (r && request_add(r, data, n)) {
		reply_add(c, r);
		return true;
	}
	if (r)
		request_free(r);
	return false;
}

bool option_answer(struct client *c, enum nbd_opt opt, uint32_t type,
		   const void *data, size_t n)
{
	uint8_t head[20];
	struct nbd_request *r = request_new(c);

	put_be64(head, 0, NBD_REP_MAGIC);
	put_be32(head, 8, (uint32_t)opt);
	put_be32(head, 12, type);
	put_be32(head, 16, (uint32_t)n);
	if (r && request_add(r, head, sizeof(head)) &&
	    (!n || request_add(r, data, n))) {
		reply_add(c, r);
		return true;
	}
	if (r)
		request_free(r);
	return false;
}

bool option_answer_text(struct client *c, enum nbd_opt opt, uint32_t type,
			const char *text)
{
	return option_answer(c, opt, type, text, strlen(text));
}

static void job_free(struct option_job *j)
{
	free(j->name);
	free(j->data);
	free(j);
}

void option_tell(const struct option_job *j, const struct fault *f)
{
	j->client->loop->tell(f);
}

/* ---- in a worker ---- */

/* He was let in to one image, which he need not name. */
static int open_handed(const struct option_job *j, struct connection **ret,
		       struct fault *f)
{
	const struct handed *h = j->client->handed;
	size_t id_len = strcspn(h->export, "~");

	if (*j->name && (strlen(j->name) != id_len ||
			 memcmp(j->name, h->export, id_len) != 0))
		return session_refuse(j->name, f);
	return session_open(&j->client->loop->service->config, h->export,
			    &(struct peer){ h->peer, h->peer }, ret, f);
}

/* He is told that there is no such export, the administrator what it was. */
static int forbid(const struct option_job *j, struct fault *f)
{
	char name[NBD_STRING_MAX];

	text_escape(name, sizeof(name), j->name);
	f->err.code = 0;
	error_set(&f->err, -EACCES, 0,
		  "%s: --tls-access has no line for "
		  "export \"%s\"",
		  j->client->peer.text, name);
	return session_turn_away(f);
}

static void open_export(struct option_job *j)
{
	const struct client *c = j->client;
	struct fault f;
	int r;

	if (c->handed)
		r = open_handed(j, &j->connection, &f);
	else if (c->tls && !tls_may_open(c->tls, j->name))
		r = forbid(j, &f);
	else
		r = session_open(
			&c->loop->service->config, j->name,
			&(struct peer){ c->peer.text, c->peer.identity },
			&j->connection, &f);
	if (r < 0) {
		j->failed = true;
		j->why = f.err.code;
		option_tell(j, &f);
	}
}

static void job_run(struct queue_request *q)
{
	struct option_job *j = container_of(q, struct option_job, q);

	if (j->old)
		connection_close(j->old);
	if (j->reopen)
		open_export(j);
	if (j->call)
		j->call(j);
}

/* ---- in the client's thread ---- */

/* What was opened is the client's. */
static void take_export(struct option_job *j)
{
	struct client *c = j->client;

	free(c->export);
	c->export = NULL;
	c->user.connection = j->connection;
	if (!j->connection)
		return;
	if (session_traits(j->connection, &c->traits))
		c->export = TAKE_PTR(j->name);
}

static void job_done(struct queue_request *q)
{
	struct option_job *j = container_of(q, struct option_job, q);
	struct client *c = j->client;

	c->at_work--;
	/* What we took is not the client's time. */
	c->deadline_nsec += now_nsec() - j->began_nsec;
	if (c->broken) {
		c->user.connection = j->connection; /* to be closed with it */
		if (j->list)
			request_free(j->list);
	} else {
		c->phase = PHASE_OPTIONS;
		if (j->reopen || j->close)
			take_export(j);
		if (!j->then(j))
			client_break(c);
	}
	job_free(j);
	client_go_on(c);
}

static void begin_job(struct client *c, struct option_job *j)
{
	j->q = (struct queue_request){ .op = QUEUE_CALL,
				       .call = job_run,
				       .done = job_done };
	j->user = (struct queue_user){ .queue = c->loop->queue };
	j->client = c;
	j->began_nsec = now_nsec();
	j->connection = c->user.connection;
	if (j->reopen || j->close) {
		c->contexts.n = 0; /* they go with it */
		j->old = TAKE_PTR(c->user.connection);
		j->connection = NULL;
	}
	c->phase = PHASE_BUSY;
	c->at_work++;
	queue_submit(&j->user, &j->q);
}

bool option_start_job(struct client *c, const struct option *o,
		      const struct option_job *start)
{
	struct option_job *j = malloc(sizeof(*j));
	uint8_t *data = malloc(o->n + 1);

	if (!j || !data || !start->name) {
		if (start->list)
			request_free(start->list);
		free(start->name);
		free(j);
		free(data);
		return false;
	}
	if (o->n)
		memcpy(data, o->data, o->n);
	*j = *start;
	j->data = data;
	j->option = (struct option){ o->number, data, o->n };
	begin_job(c, j);
	return true;
}
