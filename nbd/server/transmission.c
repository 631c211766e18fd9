/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests. All that have come are taken in one go; what the queue has done at
 * once is answered together, when the last of them has been looked at. A client
 * that asks for more than it may have under way is not read until some of that has
 * been answered, so that one who does not read his answers costs no more.
 *
 * What the protocol forbids a client to send is answered with EINVAL where it can
 * go on, and ends him where it cannot: a wrong magic, or a write of more bytes than
 * anybody would take.
 */
#include <errno.h>

#include "formats/cursor.h"
#include "formats/put-be.h"
#include "nbd/server/client.h"

/* A head, as it came. */
struct head {
	uint16_t flags;
	uint16_t command;
	uint64_t off;
	uint32_t len;
};

/* What @command may be sent with. */
static const struct {
	uint16_t flags;
	bool changes; /* the disk */
} commands[] = {
	[NBD_CMD_READ] = { NBD_CMD_FLAG_DF, false },
	[NBD_CMD_WRITE] = { NBD_CMD_FLAG_FUA, true },
	[NBD_CMD_DISC] = { 0, false },
	[NBD_CMD_FLUSH] = { 0, false },
	[NBD_CMD_TRIM] = { NBD_CMD_FLAG_FUA, true },
	[NBD_CMD_CACHE] = { 0, false },
	[NBD_CMD_WRITE_ZEROES] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE |
					   NBD_CMD_FLAG_FAST_ZERO,
				   true },
	[NBD_CMD_BLOCK_STATUS] = { NBD_CMD_FLAG_REQ_ONE, false },
};

bool transmission_has_room(const struct client *c)
{
	bool crowded = c->loop->buffers.used_bytes > CROWD_BYTES;
	size_t bytes_max = crowded ? FLIGHT_BYTES_CROWDED : FLIGHT_BYTES_MAX;

	return !c->in_flight || (c->in_flight < FLIGHT_REQUESTS_MAX &&
				 c->flight_bytes < bytes_max);
}

/* The wire's errno, which is Linux's but for its names. */
static int wire_of(int code)
{
	switch (code) {
	case 0:
	case NBD_EPERM:
	case NBD_EIO:
	case NBD_ENOMEM:
	case NBD_EINVAL:
	case NBD_ENOSPC:
	case NBD_EOVERFLOW:
	case NBD_ENOTSUP:
	case NBD_ESHUTDOWN:
		return code;
	default:
		return NBD_EINVAL;
	}
}

/* 0, or why the request is refused. */
static int check(const struct client *c, const struct head *h)
{
	const struct session_traits *t = &c->traits;
	bool empty = h->command == NBD_CMD_FLUSH;

	if (h->command >= ARRAY_SIZE(commands) ||
	    h->flags & ~commands[h->command].flags)
		return NBD_EINVAL;
	if (commands[h->command].changes && !t->writable)
		return NBD_EPERM;
	if (empty)
		return t->writable && !h->off && !h->len ? 0 : NBD_EINVAL;
	if (!range_inside(h->off, h->len, t->bytes))
		return h->command == NBD_CMD_WRITE ||
				       h->command == NBD_CMD_WRITE_ZEROES
			       ? NBD_ENOSPC
			       : NBD_EINVAL;
	if (!h->len || (h->command == NBD_CMD_BLOCK_STATUS && !c->contexts.n))
		return NBD_EINVAL;
	if (h->command == NBD_CMD_READ && h->len > SESSION_REQUEST_BYTES_MAX)
		return NBD_EOVERFLOW;
	return 0;
}

static void finish(struct nbd_request *r)
{
	r->q.wire = wire_of(r->q.wire);
	reply_add(r->client, r);
}

/* ---- block status ---- */

/* So much of an answer is enough: the client asks for the rest. */
#define STATUS_BYTES_MAX (1U << 20)

enum { STATUS_HEAD_BYTES = NBD_CHUNK_BYTES + 4 }; /* and the context's id */

/* A chunk for the context whose turn it is. False: no memory. */
static bool begin_chunk(struct nbd_request *r)
{
	static const uint8_t head[STATUS_HEAD_BYTES];
	const struct contexts *x = &r->client->contexts;

	r->q.context = x->list[r->context_idx];
	r->chunk_at = r->raw_n;
	r->chunk_end_max = r->raw_n + STATUS_BYTES_MAX / x->n;
	return request_add(r, head, sizeof(head));
}

/* All of it is there. False: nothing is. */
static bool end_chunk(struct nbd_request *r)
{
	uint8_t *head = r->raw + r->chunk_at;
	size_t n = r->raw_n - r->chunk_at;
	bool last = r->context_idx + 1 == r->client->contexts.n;

	put_be32(head, 0, NBD_CHUNK_MAGIC);
	put_be16(head, 4, last ? NBD_REPLY_FLAG_DONE : 0);
	put_be16(head, 6, NBD_REPLY_TYPE_BLOCK_STATUS);
	memcpy(head + 8, r->cookie, sizeof(r->cookie));
	put_be32(head, 16, (uint32_t)(n - NBD_CHUNK_BYTES));
	put_be32(head, 20, r->context_idx + 1);
	return n > STATUS_HEAD_BYTES;
}

/* Neighbours of one kind are one answer. */
static bool joins_last(struct nbd_request *r, uint64_t len, unsigned int state)
{
	struct cursor c = { .buf = r->raw, .len = r->raw_n };
	uint32_t last;

	if (r->raw_n == r->chunk_at + STATUS_HEAD_BYTES ||
	    cursor_be32_at(&c, r->raw_n - 4) != state)
		return false;
	last = cursor_be32_at(&c, r->raw_n - 8);
	put_be32(r->raw, r->raw_n - 8, last + (uint32_t)len);
	return true;
}

static int add_status(void *opaque, uint64_t off, uint64_t len,
		      unsigned int state)
{
	struct nbd_request *r = opaque;
	uint64_t end = r->q.off + r->q.len;
	uint8_t b[8];

	len = min_u64(len, end - min_u64(off, end));
	if (!len)
		return 1;
	if (joins_last(r, len, state))
		return 0;
	put_be32(b, 0, (uint32_t)len);
	put_be32(b, 4, state);
	return !request_add(r, b, sizeof(b)) || r->raw_n >= r->chunk_end_max;
}

/* One context has been told of. False: another is asked, or it failed. */
static bool has_told_all(struct nbd_request *r)
{
	if (r->q.wire)
		return true;
	if (!end_chunk(r)) {
		r->q.wire = NBD_EIO;
		return true;
	}
	if (++r->context_idx == r->client->contexts.n)
		return true;
	if (begin_chunk(r))
		return false;
	r->q.wire = NBD_ENOMEM;
	return true;
}

/* ---- from head to queue ---- */

static void submit(struct nbd_request *r)
{
	struct client *c = r->client;

	while (queue_submit(&c->user, &r->q))
		if (r->q.op != QUEUE_EXTENTS || has_told_all(r)) {
			finish(r);
			return;
		}
	c->at_work++;
}

static void done(struct queue_request *q)
{
	struct nbd_request *r = container_of(q, struct nbd_request, q);
	struct client *c = r->client;

	c->at_work--;
	if (c->broken) {
		request_free(r);
	} else if (q->op == QUEUE_EXTENTS && !has_told_all(r)) {
		submit(r);
	} else {
		finish(r);
	}
	client_go_on(c);
}

static void fill(struct nbd_request *r, const struct head *h)
{
	static const enum queue_op ops[] = {
		[NBD_CMD_READ] = QUEUE_READ,
		[NBD_CMD_WRITE] = QUEUE_WRITE,
		[NBD_CMD_FLUSH] = QUEUE_FLUSH,
		[NBD_CMD_TRIM] = QUEUE_TRIM,
		[NBD_CMD_CACHE] = QUEUE_PREFETCH,
		[NBD_CMD_WRITE_ZEROES] = QUEUE_ZERO,
		[NBD_CMD_BLOCK_STATUS] = QUEUE_EXTENTS,
	};
	unsigned int flags = 0;

	if (h->flags & NBD_CMD_FLAG_FUA)
		flags |= SESSION_FUA;
	if (h->command == NBD_CMD_WRITE_ZEROES &&
	    !(h->flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= SESSION_MAY_TRIM;
	if (h->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= SESSION_FAST;
	r->q.op = ops[h->command];
	r->q.flags = flags;
	r->q.one = h->flags & NBD_CMD_FLAG_REQ_ONE;
	r->q.each = add_status;
	r->q.opaque = r;
	r->q.done = done;
	/* Zeroes are told where the client can be told of them. */
	if (r->client->structured && !(h->flags & NBD_CMD_FLAG_DF) &&
	    h->len >= ZERO_RUN_MIN)
		r->q.zeroes = &r->zeroes;
}

/* @bytes more are the client's while the request is under way. */
static void weigh(struct nbd_request *r, size_t bytes)
{
	r->weight = bytes;
	r->client->flight_bytes += bytes;
}

/* Memory for what is read or written. */
static bool give_buffer(struct nbd_request *r)
{
	r->q.buf = buffer_take(&r->client->loop->buffers, r->q.len);
	if (r->q.buf)
		weigh(r, r->q.len);
	return r->q.buf;
}

static void begin_write(struct client *c, struct nbd_request *r)
{
	c->incoming = r;
	c->incoming_n = 0;
}

void transmission_written(struct client *c)
{
	struct nbd_request *r = TAKE_PTR(c->incoming);

	if (r->q.wire)
		finish(r); /* it was refused, and its data had to come */
	else
		submit(r);
}

static bool take_request(struct client *c, const struct head *h,
			 const uint8_t *cookie)
{
	bool has_data = h->command == NBD_CMD_WRITE;
	struct nbd_request *r;
	int refused;

	if (h->command == NBD_CMD_DISC) {
		c->phase = PHASE_LAST;
		return true;
	}
	/* Its data would have to be read before anything else is. */
	if (has_data && h->len > SESSION_REQUEST_BYTES_MAX)
		return false;
	refused = check(c, h);
	r = request_new(c);
	if (!r)
		return false;
	memcpy(r->cookie, cookie, sizeof(r->cookie));
	r->command = h->command;
	r->q.user = &c->user;
	r->q.off = h->off;
	r->q.len = h->len;
	r->q.wire = refused;
	if (!refused)
		fill(r, h);
	if (!refused && h->command == NBD_CMD_BLOCK_STATUS) {
		weigh(r, STATUS_BYTES_MAX);
		if (!begin_chunk(r))
			r->q.wire = NBD_ENOMEM;
	}
	if ((has_data ? h->len > 0 : !refused && h->command == NBD_CMD_READ) &&
	    !give_buffer(r)) {
		if (has_data) {
			request_free(r);
			return false;
		}
		r->q.wire = NBD_ENOMEM;
	}
	if (has_data && h->len)
		begin_write(c, r);
	else if (r->q.wire)
		finish(r);
	else
		submit(r);
	return true;
}

ssize_t transmission_take(struct client *c, const uint8_t *buf, size_t n)
{
	size_t used = 0, data;

	while (c->phase == PHASE_TRANSMISSION) {
		struct cursor in = { .buf = buf + used, .len = n - used };
		struct head h = { .flags = cursor_be16_at(&in, 4),
				  .command = cursor_be16_at(&in, 6),
				  .off = cursor_be64_at(&in, 16),
				  .len = cursor_be32_at(&in, 24) };

		if (c->incoming) {
			data = min_size(c->incoming->q.len - c->incoming_n,
					n - used);
			memcpy((uint8_t *)c->incoming->q.buf + c->incoming_n,
			       buf + used, data);
			used += data;
			c->incoming_n += data;
			if (c->incoming_n < c->incoming->q.len)
				break;
			transmission_written(c);
			continue;
		}
		if (in.short_read || !transmission_has_room(c))
			break;
		if (cursor_be32_at(&in, 0) != NBD_REQUEST_MAGIC ||
		    !take_request(c, &h, buf + used + 8))
			return -1;
		used += NBD_REQUEST_BYTES;
	}
	return (ssize_t)used;
}
