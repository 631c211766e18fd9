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
#include "nbd/server/contexts.h"
#include "nbd/server/option.h"
#include "nbd/server/starttls.h"

/* Bytes of options that a client may send in all, and of one. */
#define OPTIONS_BYTES_MAX (1U << 20)
#define OPTION_BYTES_MAX  (SCRATCH_BYTES - NBD_OPTION_BYTES)

/* What a client is told of exports: nbdkit's limit, too. */
#define LIST_MAX 9999U

bool handshake_begin(struct client *c)
{
	uint8_t b[18];

	put_be64(b, 0, NBD_MAGIC);
	put_be64(b, 8, NBD_OPT_MAGIC);
	put_be16(b, 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	return option_say(c, b, sizeof(b));
}

/* ---- exports ---- */

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
	return option_answer(c, opt, NBD_REP_INFO, b, 2 + n);
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

/*
 * That somebody else has what he may open is no secret; else all that he may not
 * open is not there.
 */
static bool answer_not_opened(struct client *c, const struct option *o, int why)
{
	switch (why) {
	case -EBUSY:
		return option_answer_text(
			c, o->number, NBD_REP_ERR_POLICY,
			"the export is in use: another process has its overlay "
			"or its image open for writing, or locked");
	case -ESTALE:
		return option_answer_text(
			c, o->number, NBD_REP_ERR_POLICY,
			"the epoch is over, or never was: somebody else has "
			"the overlay now, or it is another one");
	case -EUSERS:
		return option_answer_text(c, o->number, NBD_REP_ERR_POLICY,
					  "there are too many connections");
	default:
		return option_answer_text(
			c, o->number, NBD_REP_ERR_UNKNOWN,
			"there is no such export for this client");
	}
}

/* @why: with no export open, see option_job.why. */
static bool answer_opened(struct client *c, const struct option *o, int why)
{
	struct cursor wanted;
	char *name = NULL;
	bool ok;

	if (!c->export)
		return answer_not_opened(c, o, why);
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
	ok = ok && option_answer(c, o->number, NBD_REP_ACK, NULL, 0);
	if (o->number == NBD_OPT_GO)
		c->phase = PHASE_TRANSMISSION;
	return ok;
}

static bool then_answer_opened(struct option_job *j)
{
	return answer_opened(j->client, &j->option, j->why);
}

static bool take_info(struct client *c, const struct option *o)
{
	struct cursor wanted;
	char *name = NULL;

	if (!info_name(o, &name, &wanted))
		return option_answer_text(
			c, o->number, NBD_REP_ERR_INVALID,
			"the option's lengths contradict each other");
	if (name && client_has_open(c, name)) {
		free(name);
		return answer_opened(c, o, 0);
	}
	return option_start_job(
		c, o,
		&(struct option_job){ .name = name,
				      .reopen = true,
				      .then = then_answer_opened });
}

static bool begin(struct client *c)
{
	uint8_t b[134] = { 0 };

	put_be64(b, 0, c->traits.bytes);
	put_be16(b, 8, transmission_flags(c));
	c->phase = PHASE_TRANSMISSION;
	return option_say(c, b, c->no_zeroes ? 10 : sizeof(b));
}

static bool then_begin(struct option_job *j)
{
	/* The option has no word for a refusal. */
	return j->client->export && begin(j->client);
}

static bool take_export_name(struct client *c, const struct option *o)
{
	char *name;

	if (o->n > NBD_STRING_MAX || memchr(o->data, 0, o->n))
		return false;
	name = strndup((const char *)o->data, o->n);
	if (!name || !client_has_open(c, name))
		return option_start_job(
			c, o,
			&(struct option_job){ .name = name,
					      .reopen = true,
					      .then = then_begin });
	free(name);
	return begin(c);
}

/* ---- LIST ---- */

static int list_one(void *opaque, const char *name, const char *description)
{
	struct option_job *j = opaque;
	size_t n = strlen(name), m = description ? strlen(description) : 0;
	uint8_t head[24];

	if (n > NBD_STRING_MAX || m > NBD_STRING_MAX ||
	    (j->client->tls && !tls_may_open(j->client->tls, name)))
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

static void list(struct option_job *j)
{
	/* The default export is all that there is for him. */
	if (j->client->handed)
		list_one(j, "", NULL);
	else if (service_list(j->client->loop->service, LIST_MAX, list_one, j) <
		 0)
		j->failed = true;
}

static bool then_list(struct option_job *j)
{
	struct client *c = j->client;

	if (j->failed) {
		request_free(j->list);
		return option_answer_text(c, NBD_OPT_LIST, NBD_REP_ERR_SHUTDOWN,
					  "the exports cannot be listed now");
	}
	reply_add(c, j->list);
	return option_answer(c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static bool take_list(struct client *c, const struct option *o)
{
	struct nbd_request *r;

	if (o->n)
		return option_answer_text(c, o->number, NBD_REP_ERR_INVALID,
					  "this option has no data");
	r = request_new(c);
	return r && option_start_job(c, o,
				     &(struct option_job){ .name = strdup(""),
							   .list = r,
							   .call = list,
							   .then = then_list });
}

/* ---- options ---- */

/* What may be said where TLS is required, and is not there yet? */
static bool may_be_plain(const struct client *c, const struct option *o)
{
	return !c->loop->tls_required || c->secure ||
	       o->number == NBD_OPT_STARTTLS || o->number == NBD_OPT_ABORT;
}

/* False: the client ends. */
static bool take_option(struct client *c, const struct option *o)
{
	if (!c->fixed && o->number != NBD_OPT_EXPORT_NAME)
		return false;
	if (!may_be_plain(c, o))
		/* EXPORT_NAME has no word for a refusal. */
		return o->number != NBD_OPT_EXPORT_NAME &&
		       option_answer_text(c, o->number, NBD_REP_ERR_TLS_REQD,
					  "TLS comes first");
	switch (o->number) {
	case NBD_OPT_EXPORT_NAME:
		return take_export_name(c, o);
	case NBD_OPT_ABORT:
		c->phase = PHASE_LAST;
		return option_answer(c, o->number, NBD_REP_ACK, NULL, 0);
	case NBD_OPT_LIST:
		return take_list(c, o);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return take_info(c, o);
	case NBD_OPT_STRUCTURED_REPLY:
		if (o->n)
			return option_answer_text(c, o->number,
						  NBD_REP_ERR_INVALID,
						  "this option has no data");
		c->structured = true;
		return option_answer(c, o->number, NBD_REP_ACK, NULL, 0);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return contexts_take(c, o);
	case NBD_OPT_STARTTLS:
		return starttls_take(c, o);
	}
	return option_answer_text(c, o->number, NBD_REP_ERR_UNSUP,
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
