/* SPDX-License-Identifier: BSD-3-Clause */
/* What http.c and http-request.c share; nobody else includes this. */
#ifndef IOURING_SOURCES_HTTP_INSIDE_H
#define IOURING_SOURCES_HTTP_INSIDE_H

#include <pthread.h>

#include "iouring/batch.h"
#include "iouring/sources/credentials.h"
#include "iouring/sources/http-answer.h"
#include "iouring/sources/http-engine.h"
#include "iouring/sources/http.h"
#include "iouring/sources/keystone-token.h"

/* Requests of one object at a time, so many connections. */
#define HTTP_CONNECTIONS_MAX 16U

/* An object of a web server, as it was when it was opened. */
struct http_object {
	struct source s;
	struct url given; /* as it was named */
	struct url url; /* where it is asked for */
	char *text; /* to be asked for */
	char *people; /* for messages */
	char *name; /* of its identity */
	bool named; /* by the user */
	bool constant; /* its name says what it is */
	bool may_be_whole; /* see struct http_wish */
	bool whole; /* the server gives no ranges */
	struct url *allowed; /* where redirects may lead, too */
	size_t n_allowed;

	/* Set by the first request, before there are others. */
	uint64_t bytes;
	char etag[HTTP_VERSION_BYTES], modified[HTTP_VERSION_BYTES];

	struct http_ends *ends; /* NULL: not yet */

	atomic_uint_fast64_t progress_nsec; /* bytes came last */
	pthread_mutex_t lock; /* of what follows */
	struct http_request *queue, **queue_end; /* for a connection */
	unsigned int active;
	struct credentials credentials;
	char *moved_to; /* where a redirect led; NULL: nowhere */
	uint64_t moved_until; /* nsec */
	uint64_t not_before; /* nsec: the server is to be left alone */
	bool changed; /* it is gone, for good */
	uint64_t failed_nsec; /* when one failed, and it was told; 0: none */
};

/* Where bytes go, one piece after the other. */
struct http_piece {
	uint8_t *buf; /* NULL: nobody wants these */
	size_t len;
	struct batch_io *io; /* whose they are; NULL: nobody's */
};

/* Whoever waits for several requests. */
struct http_wait {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	size_t left;
};

/* One range of the object; zeroed but for these. */
struct http_request {
	struct http_object *o;
	struct http_wait *wait;
	uint64_t off, len;
	struct http_piece *pieces;
	size_t n_pieces;
	bool probe; /* what is it? One byte, which nobody wants */
	int ret; /* out: 0, or a negative errno */
	struct error why; /* out: in words */

	/* The request's own. */
	struct transfer t;
	struct http_request *next;
	uint64_t done; /* bytes of it that have come */
	size_t piece, in_piece; /* where the next one goes */
	uint64_t since; /* nsec: it makes no progress */
	unsigned int tries, redirects, shorts, no_ranges;
	unsigned int restarts; /* from where redirects begin */
	bool renewed; /* with new credentials, once */
	bool renewed_token; /* ... with a new token of Keystone's, once */
	struct keystone_waiter keystone;
	char *url; /* asked now; NULL: to be chosen */
	bool moved; /* url is where a redirect led */
	bool public_only; /* url's address must be */
	struct credentials used;

	/* Of this answer. */
	struct http_answer a;
	struct curl_slist *headers;
	uint64_t first; /* asked for, with what is skipped */
	uint64_t skip; /* bytes, to be dropped */
	uint64_t got; /* of its body */
	bool judged;
	enum http_verdict verdict;
};

/* false: there is no libcurl. Before anything else here. */
bool http_requests_load(void);

/* Hands it to a connection, as soon as one is free. Any thread. */
void http_request_start(struct http_request *r);

/*
 * Tells @easy all of a request but its range, and who takes its body. False: r->why
 * says why not. In a thread of its own, or the engine's.
 */
bool http_request_prepare(struct http_request *r, CURL *easy);

/* Has headers taken, and addresses looked at. */
void http_request_listen(struct http_request *r, CURL *easy);

/* What the answer is to be like. */
struct http_want http_request_want(const struct http_request *r);

/* It came from where it may not; for people: why it ended. */
bool http_request_is_forbidden(const struct http_request *r);
const char *http_request_words(CURLcode code);

/* See http_source_take(); http-whole.c */
int http_request_whole(struct http_object *o,
		       int (*take)(void *opaque, const void *data, size_t len),
		       void *opaque, struct error *err);

/* All of them have ended. */
void http_wait(struct http_wait *w);

#endif
