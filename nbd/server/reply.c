/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers to bytes. All that have ended go out in one sendmsg(2); what the socket
 * did not take is made anew for the next, from where it stopped. An answer's
 * buffer is free when its last byte has been taken.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "formats/put-be.h"
#include "nbd/server/client.h"

/* A message that is being made. */
struct message {
	struct iovec iov[IOV_MAX_USED];
	unsigned int n;
	uint8_t *heads; /* where the next head goes */
	uint8_t *heads_end;
	size_t skip; /* of the first, sent before */
	size_t bytes;
};

/* The most that one answer may need: runs of zeroes, data between them. */
#define PARTS_MAX (4U * ZERO_RUNS_MAX + 6U)

void reply_add(struct client *c, struct nbd_request *r)
{
	r->next = NULL;
	if (!c->out)
		c->out_end = &c->out;
	*c->out_end = r;
	c->out_end = &r->next;
}

static void put(struct message *m, const void *data, size_t n)
{
	size_t skip = min_size(m->skip, n);

	m->skip -= skip;
	if (skip == n)
		return;
	m->iov[m->n++] = (struct iovec){ (uint8_t *)data + skip, n - skip };
	m->bytes += n - skip;
}

/* An answer's head, of @n bytes, which the caller fills. */
static uint8_t *put_head(struct message *m, size_t n)
{
	uint8_t *at = m->heads;

	m->heads += n;
	put(m, at, n);
	return at;
}

static void put_simple(struct message *m, const struct nbd_request *r)
{
	uint8_t *h = put_head(m, NBD_SIMPLE_REPLY_BYTES);

	put_be32(h, 0, NBD_SIMPLE_REPLY_MAGIC);
	put_be32(h, 4, (uint32_t)r->q.wire);
	memcpy(h + 8, r->cookie, sizeof(r->cookie));
}

/* Also the first bytes of what it holds, if @more, which the caller fills. */
static uint8_t *put_chunk(struct message *m, const struct nbd_request *r,
			  uint16_t type, bool done, uint32_t bytes, size_t more)
{
	uint8_t *h = put_head(m, NBD_CHUNK_BYTES + more);

	put_be32(h, 0, NBD_CHUNK_MAGIC);
	put_be16(h, 4, done ? NBD_REPLY_FLAG_DONE : 0);
	put_be16(h, 6, type);
	memcpy(h + 8, r->cookie, sizeof(r->cookie));
	put_be32(h, 16, bytes);
	return h + NBD_CHUNK_BYTES;
}

static void put_data(struct message *m, const struct nbd_request *r,
		     size_t from, size_t to, bool done)
{
	uint8_t *p;

	if (from == to)
		return;
	p = put_chunk(m, r, NBD_REPLY_TYPE_OFFSET_DATA, done,
		      (uint32_t)(8 + to - from), 8);
	put_be64(p, 0, r->q.off + from);
	put(m, (const uint8_t *)r->q.buf + from, to - from);
}

static void put_hole(struct message *m, const struct nbd_request *r,
		     const struct zero_run *z, bool done)
{
	uint8_t *p = put_chunk(m, r, NBD_REPLY_TYPE_OFFSET_HOLE, done, 12, 12);

	put_be64(p, 0, r->q.off + z->off);
	put_be32(p, 8, (uint32_t)z->len);
}

static void put_chunks(struct message *m, const struct nbd_request *r)
{
	const struct zero_runs *z = &r->zeroes;
	unsigned int n = r->q.zeroes ? z->n : 0, i;
	size_t at = 0;

	for (i = 0; i < n; i++) {
		put_data(m, r, at, z->runs[i].off, false);
		at = z->runs[i].off + z->runs[i].len;
		put_hole(m, r, &z->runs[i], at == r->q.len);
	}
	put_data(m, r, at, r->q.len, true);
}

static void put_error(struct message *m, const struct nbd_request *r)
{
	uint8_t *p = put_chunk(m, r, NBD_REPLY_TYPE_ERROR, true, 6, 6);

	put_be32(p, 0, (uint32_t)r->q.wire);
	put_be16(p, 4, 0); /* no text */
}

/* Structured replies are for reading and block status; for others they may be
 * simple, but an error with them is one, too. */
static void put_reply(struct message *m, const struct nbd_request *r)
{
	bool structured = r->client->structured;

	if (!r->q.user) {
		put(m, r->raw, r->raw_n);
	} else if (structured && r->q.wire) {
		put_error(m, r);
	} else if (structured && r->command == NBD_CMD_READ) {
		put_chunks(m, r);
	} else if (structured && r->command == NBD_CMD_BLOCK_STATUS) {
		put(m, r->raw, r->raw_n);
	} else {
		put_simple(m, r);
		if (r->command == NBD_CMD_READ && !r->q.wire)
			put(m, r->q.buf, r->q.len);
	}
}

static bool has_room(const struct message *m)
{
	return IOV_MAX_USED - m->n >= PARTS_MAX &&
	       (size_t)(m->heads_end - m->heads) >= PARTS_MAX * 32U;
}

/* The bytes of an answer: as put_reply() makes them. */
static size_t reply_bytes(const struct nbd_request *r)
{
	uint8_t heads[PARTS_MAX * 32];
	struct message m;

	m.n = 0;
	m.skip = m.bytes = 0;
	m.heads = heads;
	m.heads_end = heads + sizeof(heads);
	put_reply(&m, r);
	return m.bytes;
}

/* @sent bytes more have gone; whole answers among them are done with. */
static void forget_sent(struct client *c, size_t sent)
{
	struct nbd_request *r;
	size_t n;

	sent += c->out_sent;
	while ((r = c->out)) {
		n = reply_bytes(r);
		if (sent < n)
			break;
		sent -= n;
		c->out = r->next;
		request_free(r);
	}
	c->out_sent = sent;
}

/* All of them, at once. */
static void forget_all(struct client *c)
{
	struct nbd_request *r;

	while ((r = c->out)) {
		c->out = r->next;
		request_free(r);
	}
	c->out_sent = 0;
}

/* As sendmsg(2). */
static ssize_t send_message(struct client *c, struct message *m)
{
	struct msghdr h = { .msg_iov = m->iov, .msg_iovlen = m->n };

	return c->secure && !tls_kernel_sends(c->tls)
		       ? tls_send(c->tls, m->iov, m->n)
		       : sendmsg(c->watch.fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool reply_send(struct client *c)
{
	struct loop *l = c->loop;
	struct message m;
	const struct nbd_request *r;
	ssize_t n;

	c->blocked = false;
	while (c->out) {
		m.n = 0;
		m.bytes = 0;
		m.skip = c->out_sent;
		m.heads = l->heads;
		m.heads_end = l->heads + sizeof(l->heads);
		for (r = c->out; r && has_room(&m); r = r->next)
			put_reply(&m, r);
		n = send_message(c, &m);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->blocked = true;
			return true;
		}
		if (n < 0)
			return false;
		if (!r && (size_t)n == m.bytes)
			forget_all(c);
		else
			forget_sent(c, (size_t)n);
	}
	return true;
}
