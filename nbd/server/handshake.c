/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The newstyle handshake (doc/proto.md of the NBD project, "Fixed newstyle
 * negotiation"). An option is looked at when all of it is here. What needs an
 * export has it opened by a worker, and the client's next option waits for that;
 * so the export that INFO or a context was asked of is open when GO comes.
 */
#include <errno.h>
#include <stdio.h>

#include "formats/cursor.h"
#include "formats/put-be.h"
#include "nbd/server/client.h"

/* Bytes of options that a client may send in all, and of one. */
#define OPTIONS_BYTES_MAX (1U << 20)
#define OPTION_BYTES_MAX  (SCRATCH_BYTES - NBD_OPTION_BYTES)

/* What a client is told of exports: nbdkit's limit, too. */
#define LIST_MAX 9999U

#define META_BASE_ALLOCATION	"base:allocation"
#define META_BASE_ALLOCATION_ID 1U

/* An option that is being answered. */
struct option {
	enum nbd_opt number;
	const uint8_t *data;
	size_t n;
};

/* A piece of the handshake, to be sent. False: no memory, and it ends. */
static bool say(struct client *c, const void *data, size_t n)
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

bool handshake_begin(struct client *c)
{
	uint8_t b[18];

	put_be64(b, 0, NBD_MAGIC);
	put_be64(b, 8, NBD_OPT_MAGIC);
	put_be16(b, 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	return say(c, b, sizeof(b));
}

static bool answer(struct client *c, enum nbd_opt opt, uint32_t type,
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

static bool answer_text(struct client *c, enum nbd_opt opt, uint32_t type,
			const char *text)
{
	return answer(c, opt, type, text, strlen(text));
}

/* ---- what a worker does ---- */

/* A job for a worker, while the client is PHASE_BUSY. */
struct job {
	struct queue_request q;
	struct queue_user user;
	struct client *client;
	enum nbd_opt opt;
	char *name;
	uint8_t *data; /* of the option */
	size_t n;
	uint64_t began_nsec;
	/* In the client's own thread, when it has been done; false: it ends. */
	bool (*then)(struct job *j);

	struct connection *old; /* to be let go of first; or NULL */
	struct connection *connection; /* out: or NULL */
	struct nbd_request *list; /* out: answers to LIST */
	bool failed;
	const struct service *service;
	const struct handed *handed;
	void (*tell)(const struct fault *f);
};

static void job_free(struct job *j)
{
	free(j->name);
	free(j->data);
	free(j);
}

static void job_done(struct queue_request *q)
{
	struct job *j = container_of(q, struct job, q);
	struct client *c = j->client;

	c->at_work--;
	/* What we took is not the client's time. */
	c->deadline_nsec += now_nsec() - j->began_nsec;
	if (c->broken) {
		if (j->connection) /* to be closed with it */
			c->user.connection = j->connection;
		if (j->list)
			request_free(j->list);
	} else {
		c->phase = PHASE_OPTIONS;
		if (!j->then(j))
			client_break(c);
	}
	job_free(j);
	client_go_on(c);
}

/* Takes over @name, and @list. */
static bool start_job(struct client *c, const struct option *o, char *name,
		      struct nbd_request *list,
		      void (*call)(struct queue_request *q),
		      bool (*then)(struct job *j))
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j || !name) {
		if (list)
			request_free(list);
		free(j);
		free(name);
		return false;
	}
	*j = (struct job){
		.q = { .op = QUEUE_CALL, .call = call, .done = job_done },
		.user = { .queue = c->loop->queue },
		.client = c,
		.opt = o->number,
		.name = name,
		.then = then,
		.list = list,
		.began_nsec = now_nsec(),
		.service = c->loop->service,
		.handed = c->handed,
		.tell = c->loop->tell
	};
	j->data = malloc(o->n + 1);
	if (!j->data) {
		if (list)
			request_free(list);
		job_free(j);
		return false;
	}
	memcpy(j->data, o->data, o->n);
	j->n = o->n;
	if (!list)
		j->old = TAKE_PTR(c->user.connection);
	c->phase = PHASE_BUSY;
	c->at_work++;
	queue_submit(&j->user, &j->q);
	return true;
}

/* ---- exports ---- */

/* He was let in to one image, which he need not name. */
static int open_handed(const struct job *j, struct connection **ret,
		       struct fault *f)
{
	const struct handed *h = j->handed;
	size_t id_len = strcspn(h->export, "~");

	if (*j->name && (strlen(j->name) != id_len ||
			 memcmp(j->name, h->export, id_len) != 0))
		return session_refuse(j->name, f);
	return session_open(&j->service->config, h->export,
			    &(struct peer){ h->peer, h->peer }, ret, f);
}

static void open_export(struct queue_request *q)
{
	struct job *j = container_of(q, struct job, q);
	struct fault f;
	int r;

	if (j->old)
		connection_close(j->old);
	if (j->handed)
		r = open_handed(j, &j->connection, &f);
	else
		r = session_open(&j->service->config, j->name,
				 &(struct peer){ j->client->peer.text,
						 j->client->peer.identity },
				 &j->connection, &f);
	if (r < 0) {
		j->failed = true;
		j->tell(&f);
	}
}

/* What was opened is the client's. */
static void take_export(struct job *j)
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

static uint16_t transmission_flags(const struct client *c)
{
	const struct session_traits *t = &c->traits;
	unsigned int flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_CACHE;

	flags |= t->writable ? NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
				       NBD_FLAG_SEND_TRIM |
				       NBD_FLAG_SEND_WRITE_ZEROES |
				       NBD_FLAG_SEND_FAST_ZERO
			     : NBD_FLAG_READ_ONLY;
	if (t->multi_conn)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (c->structured)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

static bool answer_info(struct client *c, enum nbd_opt opt, uint16_t type,
			const void *data, size_t n)
{
	uint8_t b[2 + NBD_STRING_MAX];

	if (n > NBD_STRING_MAX)
		return true;
	put_be16(b, 0, type);
	if (n)
		memcpy(b + 2, data, n);
	return answer(c, opt, NBD_REP_INFO, b, 2 + n);
}

static bool answer_export(struct client *c, enum nbd_opt opt)
{
	uint8_t b[10];

	put_be64(b, 0, c->traits.bytes);
	put_be16(b, 8, transmission_flags(c));
	return answer_info(c, opt, NBD_INFO_EXPORT, b, sizeof(b));
}

static bool answer_block_size(struct client *c, enum nbd_opt opt)
{
	uint8_t b[12];

	put_be32(b, 0, c->traits.block_min);
	put_be32(b, 4, c->traits.block_preferred);
	put_be32(b, 8, c->traits.block_max);
	return answer_info(c, opt, NBD_INFO_BLOCK_SIZE, b, sizeof(b));
}

/* Option INFO or GO: the name, then numbers of what else is wanted. */
static bool info_name(const struct option *o, char **ret_name,
		      struct cursor *ret_rest)
{
	struct cursor c = { .buf = o->data, .len = o->n };
	uint32_t len = cursor_be32_at(&c, 0);
	uint16_t n;

	if (c.short_read || len > NBD_STRING_MAX || len > o->n - 4)
		return false;
	n = cursor_be16_at(&c, 4 + len);
	if (c.short_read || o->n - 6 - len != 2U * n ||
	    memchr(o->data + 4, 0, len))
		return false;
	*ret_rest = (struct cursor){ .buf = o->data + 6 + len, .len = 2U * n };
	*ret_name = strndup((const char *)o->data + 4, len);
	return true;
}

static bool info_wants(struct cursor *wanted, enum nbd_info what)
{
	size_t at;

	for (at = 0; at < wanted->len; at += 2)
		if (cursor_be16_at(wanted, at) == what)
			return true;
	return false;
}

static bool answer_opened(struct client *c, const struct option *o)
{
	struct cursor wanted;
	char *name = NULL;
	bool ok;

	if (!c->export)
		return answer_text(c, o->number, NBD_REP_ERR_UNKNOWN,
				   "there is no such export for this client");
	if (!info_name(o, &name, &wanted))
		return false;
	free(name);
	ok = answer_export(c, o->number);
	if (ok && info_wants(&wanted, NBD_INFO_NAME))
		ok = answer_info(c, o->number, NBD_INFO_NAME, c->export,
				 strlen(c->export));
	if (ok && info_wants(&wanted, NBD_INFO_DESCRIPTION))
		ok = answer_info(c, o->number, NBD_INFO_DESCRIPTION,
				 c->traits.description,
				 strlen(c->traits.description));
	if (ok && info_wants(&wanted, NBD_INFO_BLOCK_SIZE))
		ok = answer_block_size(c, o->number);
	ok = ok && answer(c, o->number, NBD_REP_ACK, NULL, 0);
	if (o->number == NBD_OPT_GO)
		c->phase = PHASE_TRANSMISSION;
	return ok;
}

static bool then_answer_opened(struct job *j)
{
	const struct option o = { j->opt, j->data, j->n };

	take_export(j);
	return answer_opened(j->client, &o);
}

/* Is @name the one that is open? Contexts that were chosen are of that one. */
static bool is_open(struct client *c, const char *name)
{
	if (c->export && !strcmp(c->export, name))
		return true;
	c->allocation = false;
	return false;
}

static bool take_info(struct client *c, const struct option *o)
{
	struct cursor wanted;
	char *name = NULL;

	if (!info_name(o, &name, &wanted))
		return answer_text(
			c, o->number, NBD_REP_ERR_INVALID,
			"the option's lengths contradict each other");
	if (name && is_open(c, name)) {
		free(name);
		return answer_opened(c, o);
	}
	return start_job(c, o, name, NULL, open_export, then_answer_opened);
}

static bool begin(struct client *c)
{
	uint8_t b[134] = { 0 };

	put_be64(b, 0, c->traits.bytes);
	put_be16(b, 8, transmission_flags(c));
	c->phase = PHASE_TRANSMISSION;
	return say(c, b, c->no_zeroes ? 10 : sizeof(b));
}

static bool then_begin(struct job *j)
{
	take_export(j);
	/* The option has no word for a refusal. */
	return j->client->export && begin(j->client);
}

static bool take_export_name(struct client *c, const struct option *o)
{
	char *name;

	if (o->n > NBD_STRING_MAX || memchr(o->data, 0, o->n))
		return false;
	name = strndup((const char *)o->data, o->n);
	if (!name || !is_open(c, name))
		return start_job(c, o, name, NULL, open_export, then_begin);
	free(name);
	return begin(c);
}

/* ---- LIST ---- */

static int list_one(void *opaque, const char *name, const char *description)
{
	struct job *j = opaque;
	size_t n = strlen(name), m = description ? strlen(description) : 0;
	uint8_t head[24];

	if (n > NBD_STRING_MAX || m > NBD_STRING_MAX)
		return 0;
	put_be64(head, 0, NBD_REP_MAGIC);
	put_be32(head, 8, NBD_OPT_LIST);
	put_be32(head, 12, NBD_REP_SERVER);
	put_be32(head, 16, (uint32_t)(4 + n + m));
	put_be32(head, 20, (uint32_t)n);
	j->failed = !request_add(j->list, head, sizeof(head)) ||
		    !request_add(j->list, name, n) ||
		    (m && !request_add(j->list, description, m));
	return j->failed ? -ENOMEM : 0;
}

static void list(struct queue_request *q)
{
	struct job *j = container_of(q, struct job, q);

	/* The default export is all that there is for him. */
	if (j->handed)
		list_one(j, "", NULL);
	else if (service_list(j->service, LIST_MAX, list_one, j) < 0)
		j->failed = true;
}

static bool then_list(struct job *j)
{
	struct client *c = j->client;

	if (j->failed) {
		request_free(j->list);
		return answer_text(c, NBD_OPT_LIST, NBD_REP_ERR_SHUTDOWN,
				   "the exports cannot be listed now");
	}
	reply_add(c, j->list);
	return answer(c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static bool take_list(struct client *c, const struct option *o)
{
	struct nbd_request *r;

	if (o->n)
		return answer_text(c, o->number, NBD_REP_ERR_INVALID,
				   "this option has no data");
	r = request_new(c);
	return r && start_job(c, o, strdup(""), r, list, then_list);
}

/* ---- contexts ---- */

/* The name that the contexts are of, and where their queries begin. */
static bool meta_name(const struct option *o, char **ret_name, size_t *ret_at,
		      uint32_t *ret_n)
{
	struct cursor c = { .buf = o->data, .len = o->n };
	uint32_t len = cursor_be32_at(&c, 0);

	if (c.short_read || len > NBD_STRING_MAX || len > o->n - 4 ||
	    memchr(o->data + 4, 0, len))
		return false;
	*ret_n = cursor_be32_at(&c, 4 + len);
	*ret_at = 8 + len;
	if (c.short_read)
		return false;
	*ret_name = strndup((const char *)o->data + 4, len);
	return true;
}

static bool answer_allocation(struct client *c, enum nbd_opt opt)
{
	static const uint8_t name[] = META_BASE_ALLOCATION;
	uint8_t b[4 + sizeof(name)];

	put_be32(b, 0,
		 opt == NBD_OPT_SET_META_CONTEXT ? META_BASE_ALLOCATION_ID : 0);
	memcpy(b + 4, name, sizeof(name));
	return answer(c, opt, NBD_REP_META_CONTEXT, b, sizeof(b) - 1);
}

static bool is_query(const uint8_t *query, size_t n, const char *text)
{
	return n == strlen(text) && !memcmp(query, text, n);
}

/* Goes through the queries; -1: they are not sound; else: is it asked for? */
static int wants_allocation(const struct option *o, size_t at, uint32_t n)
{
	struct cursor c = { .buf = o->data, .len = o->n };
	bool list = o->number == NBD_OPT_LIST_META_CONTEXT;
	bool wanted = list && !n;
	uint32_t i, len;

	for (i = 0; i < n; i++) {
		len = cursor_be32_at(&c, at);
		if (c.short_read || len > NBD_STRING_MAX || len > o->n - at - 4)
			return -1;
		at += 4;
		if (is_query(o->data + at, len, META_BASE_ALLOCATION) ||
		    (list && is_query(o->data + at, len, "base:")))
			wanted = true;
		at += len;
	}
	return at == o->n ? wanted : -1;
}

static bool answer_contexts(struct client *c, const struct option *o)
{
	char *name = NULL;
	uint32_t n = 0;
	size_t at = 0;
	int wanted;

	if (!c->export)
		return answer_text(c, o->number, NBD_REP_ERR_UNKNOWN,
				   "there is no such export for this client");
	if (!meta_name(o, &name, &at, &n))
		return false;
	free(name);
	wanted = wants_allocation(o, at, n);
	if (o->number == NBD_OPT_SET_META_CONTEXT)
		c->allocation = wanted > 0;
	if (wanted < 0)
		return answer_text(
			c, o->number, NBD_REP_ERR_INVALID,
			"the option's lengths contradict each other");
	if (wanted && !answer_allocation(c, o->number))
		return false;
	return answer(c, o->number, NBD_REP_ACK, NULL, 0);
}

static bool then_answer_contexts(struct job *j)
{
	const struct option o = { j->opt, j->data, j->n };

	take_export(j);
	return answer_contexts(j->client, &o);
}

static bool take_contexts(struct client *c, const struct option *o)
{
	char *name = NULL;
	uint32_t n;
	size_t at;

	if (o->number == NBD_OPT_SET_META_CONTEXT)
		c->allocation = false; /* whatever comes of this one */
	if (!c->structured)
		return answer_text(c, o->number, NBD_REP_ERR_INVALID,
				   "structured replies come first");
	if (!meta_name(o, &name, &at, &n))
		return answer_text(
			c, o->number, NBD_REP_ERR_INVALID,
			"the option's lengths contradict each other");
	if (name && is_open(c, name)) {
		free(name);
		return answer_contexts(c, o);
	}
	return start_job(c, o, name, NULL, open_export, then_answer_contexts);
}

/* ---- options ---- */

/* False: the client ends. */
static bool take_option(struct client *c, const struct option *o)
{
	if (!c->fixed && o->number != NBD_OPT_EXPORT_NAME)
		return false;
	switch (o->number) {
	case NBD_OPT_EXPORT_NAME:
		return take_export_name(c, o);
	case NBD_OPT_ABORT:
		c->phase = PHASE_LAST;
		return answer(c, o->number, NBD_REP_ACK, NULL, 0);
	case NBD_OPT_LIST:
		return take_list(c, o);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return take_info(c, o);
	case NBD_OPT_STRUCTURED_REPLY:
		if (o->n)
			return answer_text(c, o->number, NBD_REP_ERR_INVALID,
					   "this option has no data");
		c->structured = true;
		return answer(c, o->number, NBD_REP_ACK, NULL, 0);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return take_contexts(c, o);
	case NBD_OPT_STARTTLS:
		break;
	}
	return answer_text(c, o->number, NBD_REP_ERR_UNSUP,
			   "this option is not known");
}

static ssize_t take_flags(struct client *c, const uint8_t *buf, size_t n)
{
	struct cursor in = { .buf = buf, .len = n };
	uint32_t flags = cursor_be32_at(&in, 0);

	if (in.short_read)
		return 0;
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		return -1;
	c->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	c->phase = PHASE_OPTIONS;
	return 4;
}

/* One option; 0: it is not all here. */
static ssize_t take_one(struct client *c, const uint8_t *buf, size_t n)
{
	struct cursor in = { .buf = buf, .len = n };
	uint64_t magic = cursor_be64_at(&in, 0);
	uint32_t number = cursor_be32_at(&in, 8);
	uint32_t len = cursor_be32_at(&in, 12);
	struct option o;

	if (in.short_read)
		return 0;
	if (magic != NBD_OPT_MAGIC || len > OPTION_BYTES_MAX)
		return -1;
	if (n - NBD_OPTION_BYTES < len)
		return 0;
	c->option_bytes += NBD_OPTION_BYTES + len;
	if (c->option_bytes > OPTIONS_BYTES_MAX)
		return -1;
	o = (struct option){ number, buf + NBD_OPTION_BYTES, len };
	return take_option(c, &o) ? NBD_OPTION_BYTES + (ssize_t)len : -1;
}

bool handshake_has_room(const struct client *c)
{
	return c->phase == PHASE_OPTIONS && !c->blocked &&
	       c->in_flight < FLIGHT_REQUESTS_MAX;
}

ssize_t handshake_take(struct client *c, const uint8_t *buf, size_t n)
{
	size_t used = 0;
	ssize_t one;

	if (c->phase == PHASE_FLAGS) {
		one = take_flags(c, buf, n);
		if (one <= 0)
			return one;
		used = (size_t)one;
	}
	while (handshake_has_room(c)) {
		one = take_one(c, buf + used, n - used);
		if (one < 0)
			return -1;
		if (!one)
			break;
		used += (size_t)one;
	}
	return (ssize_t)used;
}
