/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Metadata querying" of the protocol. A query is a context's name, or, of the
 * option that lists, a namespace, or QEMU's "qemu:dirty-bitmap:", for all that is
 * in it. Names may lead to disks: a worker looks.
 */
#include "nbd/server/contexts.h"

#include <string.h>

#include "formats/cursor.h"
#include "formats/put-be.h"

/* Queries of one option; bytes of one list. */
#define QUERIES_MAX    64U
#define LIST_BYTES_MAX (1U << 20)

struct query {
	const char *text; /* no string */
	size_t n;
};

struct queries {
	bool list; /* what there is, else these are to be set */
	struct query all[QUERIES_MAX];
	uint32_t n;
};

/* The name that the contexts are of, and where their queries begin. */
static bool take_name(const struct option *o, char **ret_name, size_t *ret_at)
{
	struct cursor c = { .buf = o->data, .len = o->n };
	uint32_t len = cursor_be32_at(&c, 0);

	if (c.short_read || len > NBD_STRING_MAX || len > o->n - 4 ||
	    memchr(o->data + 4, 0, len))
		return false;
	*ret_at = 4 + (size_t)len;
	*ret_name = strndup((const char *)o->data + 4, len);
	return true;
}

/* 0, or the protocol's word for what is wrong with it. */
static uint32_t take_queries(const struct option *o, size_t at,
			     struct queries *ret)
{
	struct cursor c = { .buf = o->data, .len = o->n };
	uint32_t i, len;

	ret->list = o->number == NBD_OPT_LIST_META_CONTEXT;
	ret->n = cursor_be32_at(&c, at);
	if (!c.short_read && ret->n > QUERIES_MAX)
		return NBD_REP_ERR_TOO_BIG;
	at += 4;
	for (i = 0; i < ret->n; i++) {
		len = cursor_be32_at(&c, at);
		if (c.short_read || len > NBD_STRING_MAX || len > o->n - at - 4)
			return NBD_REP_ERR_INVALID;
		ret->all[i] =
			(struct query){ (const char *)o->data + at + 4, len };
		at += 4 + (size_t)len;
	}
	return at == o->n ? 0 : NBD_REP_ERR_INVALID;
}

static bool is_same(const struct query *a, const struct query *b)
{
	return a->n == b->n && !memcmp(a->text, b->text, a->n);
}

/* Is @q for all that begins with it? */
static bool is_prefix(const struct query *q, const char *name)
{
	static const char *const prefixes[] = { "base:", "qemu:",
						CONTEXT_DIRTY };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (is_same(q, &(struct query){ prefixes[i],
						strlen(prefixes[i]) }))
			return !strncmp(name, prefixes[i], q->n);
	return false;
}

static bool is_asked_for(const struct queries *q, const char *name)
{
	const struct query this = { name, strlen(name) };
	uint32_t i;

	for (i = 0; i < q->n; i++)
		if (is_same(&q->all[i], &this) || is_prefix(&q->all[i], name))
			return true;
	return !q->n;
}

/* ---- in a worker ---- */

static bool add_answer(struct option_job *j, uint32_t id, const char *name,
		       size_t n)
{
	uint8_t head[24];

	put_be64(head, 0, NBD_REP_MAGIC);
	put_be32(head, 8, (uint32_t)j->option.number);
	put_be32(head, 12, NBD_REP_META_CONTEXT);
	put_be32(head, 16, (uint32_t)(4 + n));
	put_be32(head, 20, id);
	return request_add(j->list, head, sizeof(head)) &&
	       request_add(j->list, name, n);
}

struct listing {
	struct option_job *job;
	const struct queries *queries;
};

static int list_one(void *opaque, const char *name)
{
	const struct listing *l = opaque;
	struct option_job *j = l->job;

	if (!is_asked_for(l->queries, name))
		return 0;
	j->failed = !add_answer(j, 0, name, strlen(name));
	j->too_big = j->list->raw_n > LIST_BYTES_MAX;
	return j->failed || j->too_big;
}

static bool was_before(const struct queries *q, uint32_t i)
{
	uint32_t k;

	for (k = 0; k < i; k++)
		if (is_same(&q->all[k], &q->all[i]))
			return true;
	return false;
}

/* What cannot be had is not set, and the client sees that. */
static void set_one(struct option_job *j, const struct query *q)
{
	char name[NBD_STRING_MAX + 1];
	struct context *x = NULL;
	struct fault f;

	if (memchr(q->text, 0, q->n))
		return;
	j->too_big = j->contexts.n == CONTEXTS_MAX;
	if (j->too_big)
		return;
	memcpy(name, q->text, q->n);
	name[q->n] = '\0';
	if (session_open_context(j->connection, name, &x, &f) < 0)
		option_tell(j, &f);
	if (!x)
		return;
	j->contexts.list[j->contexts.n++] = x;
	j->failed |= !add_answer(j, j->contexts.n, name, q->n);
}

static void look(struct option_job *j)
{
	struct queries q = { 0 };
	struct listing l = { j, &q };
	char *name = NULL;
	struct fault f;
	size_t at = 0;
	uint32_t i;

	if (!j->connection)
		return;
	if (!take_name(&j->option, &name, &at) ||
	    take_queries(&j->option, at, &q))
		j->failed = true; /* they were sound before */
	free(name);
	if (q.list && session_each_context(j->connection, list_one, &l, &f) < 0)
		option_tell(j, &f);
	for (i = 0; !q.list && i < q.n && !j->failed && !j->too_big; i++)
		if (!was_before(&q, i))
			set_one(j, &q.all[i]);
}

/* ---- in the client's thread ---- */

static bool then_answer(struct option_job *j)
{
	struct client *c = j->client;
	enum nbd_opt opt = j->option.number;

	if (!c->export || j->failed || j->too_big) {
		request_free(j->list);
		if (opt == NBD_OPT_SET_META_CONTEXT)
			client_drop_contexts(c);
		if (j->too_big)
			return option_answer_text(c, opt, NBD_REP_ERR_TOO_BIG,
						  "too many contexts");
		return !c->export &&
		       option_answer_text(
			       c, opt, NBD_REP_ERR_UNKNOWN,
			       "there is no such export for this client");
	}
	if (opt == NBD_OPT_SET_META_CONTEXT)
		c->contexts = j->contexts;
	reply_add(c, j->list);
	return option_answer(c, opt, NBD_REP_ACK, NULL, 0);
}

static bool refuse(struct client *c, const struct option *o, uint32_t why)
{
	return option_answer_text(
		c, o->number, why,
		why == NBD_REP_ERR_TOO_BIG
			? "too many queries"
			: "the option's lengths contradict each other");
}

bool contexts_take(struct client *c, const struct option *o)
{
	struct option_job start = { .call = look, .then = then_answer };
	struct queries q;
	size_t at = 0;
	uint32_t why;

	if (o->number == NBD_OPT_SET_META_CONTEXT)
		client_drop_contexts(c); /* whatever comes of this one */
	if (!c->structured)
		return option_answer_text(c, o->number, NBD_REP_ERR_INVALID,
					  "structured replies come first");
	if (!take_name(o, &start.name, &at))
		return refuse(c, o, NBD_REP_ERR_INVALID);
	why = take_queries(o, at, &q);
	if (why) {
		free(start.name);
		return refuse(c, o, why);
	}
	start.reopen = start.name && !client_has_open(c, start.name);
	start.list = request_new(c);
	if (!start.list) {
		free(start.name);
		return false;
	}
	return option_start_job(c, o, &start);
}
