/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request and its answer.
 *
 * A request's life: target and headers -> app->begin() -> its body, to the
 * sink that begin() set or into q->body -> app->finish() -> the answer.
 * begin() may answer already; the body is read and dropped then, and finish()
 * is not called.
 */
#ifndef GLANCE_HTTP_REQUEST_H
#define GLANCE_HTTP_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "iouring/net.h"
#include "glance/http/text-buf.h"
#include "glance/http/uri.h"
#include "glance/identity.h"
#include "iouring/error.h"

struct MHD_Connection;
struct http_server;
struct request;
struct route;

/* What who comes too early is told to wait. */
#define HTTP_RETRY_SEC "1"

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_PATCH,
	HTTP_DELETE,
	HTTP_OTHER,
};

/* Where the bytes of a streamed body go. */
struct body_sink {
	/*
	 * Takes all @len bytes. On failure it has answered, or answers in
	 * app->finish(); the rest of the body is dropped.
	 */
	int (*chunk)(struct request *q, const void *data, size_t len);
};

/* An answer's body that is made as it is sent. */
struct producer {
	/* Gives @len bytes at @off, inside the size promised, or fails. */
	int (*read)(void *opaque, void *buf, size_t len, uint64_t off);
	void (*free)(void *opaque);
	void *opaque;
	uint64_t off; /* where the answer begins */
};

/* A connection that has left HTTP. */
struct upgraded {
	int fd; /* to speak on; blocking or not, as it comes */
	const void *extra; /* what the client sent already ... */
	size_t extra_bytes; /* ... valid during upgrade_fn only */
	void *internal; /* http.c's */
};

/*
 * Is called with @u, a copy of which http_upgraded_close() must get once the
 * connection is done with; from any thread. Must not wait.
 */
typedef void upgrade_fn(void *opaque, const struct upgraded *u);

struct header {
	char *name;
	char *value;
};

#define RESPONSE_HEADERS_MAX 48

struct response {
	unsigned int status; /* 0: not answered yet */
	struct header headers[RESPONSE_HEADERS_MAX];
	size_t n_headers;
	char *text; /* owned */
	size_t text_bytes;
	int fd; /* owned; -1: none */
	uint64_t fd_off;
	uint64_t fd_bytes;
	bool produced;
	struct producer producer;
	uint64_t producer_bytes;
	upgrade_fn *upgrade;
	void *upgrade_opaque;
};

struct request {
	struct http_server *server;
	void *app; /* what http_app.opaque says */
	struct MHD_Connection *conn;
	enum http_method method;
	const char *method_name; /* valid until the answer */
	struct uri uri;
	bool has_client; /* a proxy that is believed asks for @client */
	struct net client;
	char id[41]; /* "req-UUID", x-openstack-request-id */
	const struct route *route;
	struct identity who;

	struct text_buf body; /* unless there is a sink */
	const struct body_sink *sink;
	uint64_t body_bytes; /* received so far */
	bool may_upgrade; /* HTTP/1.1 */
	bool has_length; /* Content-Length was given: content_length */
	uint64_t content_length;

	/* For the handler; freed with the request, also when the client left. */
	void *state;
	void (*state_free)(void *state);

	struct response response;
	int64_t start_usec; /* CLOCK_MONOTONIC */
	void *internal; /* http.c's */
};

/* ---- request.c ---- */

/*
 * The client's address without its port, "unix" or "-"; of who comes by a proxy
 * that is believed, what that says.
 */
void request_peer(const struct request *q, char *ret, size_t room);
/* A request's header, NULL: absent. Any case. */
const char *request_header(const struct request *q, const char *name);
/* Calls @each for every header until it returns non-zero. */
int request_for_headers(const struct request *q,
			int (*each)(void *opaque, const char *name,
				    const char *value),
			void *opaque);
/* The media type of the body without parameters is @type. */
bool request_type_is(const struct request *q, const char *type);
/* Its headers say that a body comes. */
bool request_has_body(const struct request *q);
/* "http://host:port" as the client sees us, for links. To be freed. */
char *request_base_url(const struct request *q);

/* ---- respond.c ---- */

/* Adds a header to the answer; @value without control characters. */
void respond_header(struct request *q, const char *name, const char *value);

/* Each of these answers; the first that is called holds. */
void respond_empty(struct request *q, unsigned int status);
/* Takes @text over (NULL: out of memory, 500). */
void respond_text(struct request *q, unsigned int status, const char *type,
		  char *text);
void respond_json(struct request *q, unsigned int status, struct text_buf *b);
/* [@off, @off + @len) of @fd, which is taken over. */
void respond_file(struct request *q, unsigned int status, int fd, uint64_t off,
		  uint64_t len);
/* @p->opaque is taken over. @len bytes are promised. */
void respond_producer(struct request *q, unsigned int status,
		      const struct producer *p, uint64_t len);
void http_upgraded_close(const struct upgraded *u);
/* 101, then @fn owns the connection. */
void respond_upgrade(struct request *q, const char *protocol, upgrade_fn *fn,
		     void *opaque);
/*
 * A refusal as Glance words it: HTML, or JSON or plain text as Accept asks.
 * @explanation is escaped.
 */
void respond_error(struct request *q, unsigned int status,
		   const char *explanation);
void respond_errorf(struct request *q, unsigned int status, const char *fmt,
		    ...) PRINTF(3, 4);
/* 415: the body's media type is not one that is read here. */
void respond_unsupported(struct request *q);
/* 503, and when to come again. */
void respond_retry(struct request *q, const char *explanation);
/* The status that fits err->code, and its message. */
void respond_failure(struct request *q, const struct error *err);
const char *http_reason(unsigned int status);

#endif
