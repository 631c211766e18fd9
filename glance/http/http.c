/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "formats/codec/openssl.h"
#include "glance/http/cors.h"
#include "glance/http/forwarded.h"
#include "glance/http/framing.h"
#include "glance/http/http-inside.h"
#include "glance/http/mhd-lib.h"
#include "glance/http/origin.h"

/* Of a connection's memory in libmicrohttpd: headers, and chunks of a body. */
#define CONNECTION_BYTES (HTTP_HEADERS_BYTES_MAX + (96U << 10))
/* A body this large is not read only to be dropped. */
#define DROP_BYTES_MAX	 (64U << 20)
#define STACK_BYTES	 (512U << 10)
/* Of an answer, made or read at once. */
#define BLOCK_BYTES	 (1U << 20)
/* Descriptors that are not for connections: files, the index, Keystone. */
#define OTHER_FDS	 64U
#define CONNECTIONS_MIN	 16U

enum phase {
	PHASE_HEADERS,
	PHASE_BODY,
	PHASE_DROP, /* answered; what is left of the body is not wanted */
};

/* A request with what only this file needs. */
struct exchange {
	struct request q;
	struct connection *connection;
	enum phase phase;
	bool bad_target;
	bool endless; /* nobody knows where its body ends */
	struct error target_error;
};

static int take_idle(struct http_server *s, const char *text, struct error *err)
{
	unsigned long n = HTTP_IDLE_SEC;
	char *end;

	if (text) {
		n = strtoul(text, &end, 10);
		if (!isdigit((unsigned char)*text) || *end || !n ||
		    n > HTTP_IDLE_SEC_MAX)
			return error_set(err, -EINVAL, 0,
					 "glance-timeout is 1 to %u seconds, "
					 "not \"%.32s\"",
					 HTTP_IDLE_SEC_MAX, text);
	}
	s->idle_sec = (unsigned int)n;
	return 0;
}

/* As many as there are descriptors for: a request may need two. */
static unsigned int connections_max(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return CONNECTIONS_MIN;
	if (l.rlim_cur < OTHER_FDS + 2 * CONNECTIONS_MIN)
		return CONNECTIONS_MIN;
	return (unsigned int)min_u64(HTTP_CONNECTIONS_MAX,
				     (l.rlim_cur - OTHER_FDS) / 2);
}

static int take_limits(struct http_server *s, const struct http_config *c,
		       struct error *err)
{
	unsigned long n;
	char *end;

	s->max = connections_max();
	s->hosts = c->hosts;
	s->cors_origins = c->cors_origins;
	if (cors_check(c->cors_origins, err) < 0)
		return err->code;
	if (c->per_address) {
		n = strtoul(c->per_address, &end, 10);
		if (!isdigit((unsigned char)*c->per_address) || *end || !n ||
		    n > HTTP_CONNECTIONS_MAX)
			return error_set(err, -EINVAL, 0,
					 "glance-per-address is 1 to %d "
					 "connections, not \"%.32s\"",
					 HTTP_CONNECTIONS_MAX, c->per_address);
		s->per_address = (unsigned int)n;
	}
	return proxies_parse(c->proxies, &s->proxies, err);
}

int http_listen(const struct http_config *c, struct http_server **ret,
		struct error *err)
{
	struct http_server *s;
	int r;

	if (!mhd_lib_load())
		return error_set(err, -ENOTSUP, 0,
				 "glance: libmicrohttpd is needed, and not "
				 "installed");
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->listen_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->stop_cond, NULL);
	s->in_place = !strcmp(mhd->get_version(), "0.9.75");
	r = take_idle(s, c->idle, err);
	if (r >= 0)
		r = take_limits(s, c, err);
	if (r >= 0)
		r = http_load_tls(s, c, err);
	if (r >= 0)
		r = !strncmp(c->listen, "unix:", 5)
			    ? http_listen_unix(s, c->listen + 5, err)
			    : http_listen_tcp(s, c->listen, err);
	if (r < 0) {
		http_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

bool http_is_local(const struct http_server *s)
{
	return s->local;
}

bool http_is_tls(const struct http_server *s)
{
	return s->cert;
}

unsigned int http_connections_max(const struct http_server *s)
{
	return s->max;
}

int http_listen_fd(const struct http_server *s)
{
	return s->listen_fd;
}

/* ---- requests ---- */

/* A random UUID, RFC 4122 version 4. */
static void make_request_id(char ret[41])
{
	uint8_t b[16];

	if (openssl.RAND_bytes(b, sizeof(b)) != 1)
		memset(b, 0, sizeof(b));
	snprintf(ret, 41,
		 "req-%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 0xfU, b[7],
		 (b[8] & 0x3fU) | 0x80U, b[9], b[10], b[11], b[12], b[13],
		 b[14], b[15]);
}

/* The first libmicrohttpd tells of a request: its target, undecoded. */
static void *on_target(void *cls, const char *target,
		       struct MHD_Connection *conn)
{
	struct http_server *s = cls;
	const union MHD_ConnectionInfo *info;
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->q.server = s;
	x->q.app = s->app.opaque;
	x->q.conn = conn;
	x->q.response.fd = -1;
	x->q.start_usec = http_now_usec();
	x->q.body.max = HTTP_BODY_BYTES_MAX;
	make_request_id(x->q.id);
	info = mhd->get_connection_info(conn,
					MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	x->connection = info ? info->socket_context : NULL;
	if (uri_parse(target, &x->q.uri, &x->target_error) < 0)
		x->bad_target = true;
	return x;
}

static void response_done(struct response *r)
{
	size_t i;

	for (i = 0; i < r->n_headers; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	free(r->text);
	closep(&r->fd);
	if (r->produced && r->producer.free)
		r->producer.free(r->producer.opaque);
}

static void exchange_free(struct exchange *x)
{
	struct request *q = &x->q;

	if (q->state_free)
		q->state_free(q->state);
	identity_done(&q->who);
	uri_done(&q->uri);
	text_buf_done(&q->body);
	response_done(&q->response);
	free(x);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **req_cls,
			 enum MHD_RequestTerminationCode why)
{
	struct http_server *s = cls;
	struct exchange *x = *req_cls;

	*req_cls = NULL;
	if (!x)
		return;
	if (s->app.done && x->q.response.status)
		s->app.done(&x->q);
	client_waits(s, x->connection, false);
	exchange_free(x);
}

static enum http_method method_of(const char *name)
{
	static const char *const names[] = { "GET", "HEAD",  "POST",
					     "PUT", "PATCH", "DELETE" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name))
			return (enum http_method)i;
	return HTTP_OTHER;
}

struct headers {
	struct framing framing;
	struct error *err;
};

static int look_at_header(void *opaque, const char *name, const char *value)
{
	struct headers *h = opaque;

	return framing_header(&h->framing, name, value, h->err);
}

/* @method and @version are where libmicrohttpd has them. */
static int check_framing(struct request *q, const char *method,
			 const char *version, struct error *err)
{
	const union MHD_ConnectionInfo *info = mhd->get_connection_info(
		q->conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	bool known = q->server->in_place && info;
	struct headers h = {
		.framing = { .version = version,
			     .next = known ? framing_behind(version) : NULL },
		.err = err,
	};
	int r = request_for_headers(q, look_at_header, &h);

	return r < 0 ? r
		     : framing_end(&h.framing,
				   known ? method + info->header_size : NULL,
				   &q->has_length, &q->content_length, err);
}

/* Of what a browser may be made to send, see origin.h. */
static int check_origin(const struct request *q, struct error *err)
{
	const struct http_server *s = q->server;
	const struct origin_rules rules = {
		.check_host = (s->tcp && s->local) || s->hosts,
		.names = s->hosts,
	};

	const char *origin = request_header(q, "Origin");

	if (!s->app.unasked)
		return 0;
	return origin_check(&rules, request_header(q, "Host"),
			    cors_lists(s->cors_origins, origin) ? NULL : origin,
			    err);
}

static void begin(struct exchange *x, const char *method, const char *version)
{
	struct request *q = &x->q;
	struct error err = { 0 };

	q->method_name = method;
	q->method = method_of(method);
	if (x->bad_target) {
		respond_header(q, "Connection", "close");
		respond_error(q, x->target_error.code == -EFBIG ? 414 : 400,
			      x->target_error.msg);
		return;
	}
	if (check_framing(q, method, version, &err) < 0) {
		x->endless = true;
		respond_header(q, "Connection", "close");
		respond_error(q, 400, err.msg);
		return;
	}
	if (check_origin(q, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	cors_take(q, q->server->cors_origins);
	if (q->response.status)
		return;
	if (!client_take(q, x->connection)) {
		respond_retry(q, "There are too many requests from there.");
		return;
	}
	q->server->app.begin(q);
	if (!q->response.status && !q->sink && q->content_length > q->body.max)
		respond_errorf(q, 413, "The body is over %zu bytes.",
			       q->body.max);
}

static void take_body(struct exchange *x, const char *data, size_t len)
{
	struct request *q = &x->q;

	q->body_bytes += len;
	if (x->connection)
		atomic_store_explicit(&x->connection->body_bytes, q->body_bytes,
				      memory_order_relaxed);
	if (x->phase == PHASE_DROP)
		return;
	if (q->sink) {
		if (q->sink->chunk(q, data, len) < 0)
			x->phase = PHASE_DROP;
	} else {
		text_add_bytes(&q->body, data, len);
		if (q->body.failed) {
			x->phase = PHASE_DROP;
			respond_errorf(q, 413, "The body is over %zu bytes.",
				       q->body.max);
		}
	}
}

static enum MHD_Result send_response(struct exchange *x);

/*
 * An answer before the body ends the connection, and what the client still
 * sends may hide it from him. Bodies of a modest size are read to the end.
 */
static bool answer_before_body(struct exchange *x)
{
	const char *expect = request_header(&x->q, "Expect");

	return x->endless || (expect && !strcasecmp(expect, "100-continue")) ||
	       x->q.content_length > DROP_BYTES_MAX;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn,
				  const char *url, const char *method,
				  const char *version, const char *data,
				  size_t *len, void **req_cls)
{
	struct http_server *s = cls;
	struct exchange *x = *req_cls;

	if (!x)
		return MHD_NO;
	if (x->phase == PHASE_HEADERS) {
		/* Who he is may take its time, and that is not the client's. */
		client_is_busy(s, x->connection);
		x->phase = PHASE_BODY;
		x->q.may_upgrade = !strcmp(version, "HTTP/1.1");
		begin(x, method, version);
		client_waits(s, x->connection, true);
		if (!x->q.response.status)
			return MHD_YES;
		x->phase = PHASE_DROP;
		return answer_before_body(x) ? send_response(x) : MHD_YES;
	}
	if (*len) {
		take_body(x, data, *len);
		*len = 0;
		return MHD_YES;
	}
	client_is_busy(s, x->connection);
	if (!x->q.response.status)
		s->app.finish(&x->q);
	if (!x->q.response.status)
		respond_error(&x->q, 500, "There is no answer.");
	return send_response(x);
}

/* ---- answers ---- */

static ssize_t produce(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct request *q = cls;
	struct response *r = &q->response;
	size_t len = (size_t)min_u64(max, r->producer_bytes - pos);

	if (!len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (r->producer.read(r->producer.opaque, buf, len,
			     r->producer.off + pos) < 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	return (ssize_t)len;
}

static ssize_t read_file(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct response *r = cls;
	size_t len = (size_t)min_u64(max, r->fd_bytes - pos);
	ssize_t n;

	if (!len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	do
		n = pread(r->fd, buf, len, (off_t)(r->fd_off + pos));
	while (n < 0 && errno == EINTR);
	return n > 0 ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

/*
 * sendfile() spares a copy here but leaves the client all of the page cache's
 * misses. On one machine, where both have a core, that is less than half as
 * fast as data that were just read.
 */
static bool peer_is_local(const struct request *q)
{
	const struct sockaddr *sa = request_address(q);

	return q->server->local ||
	       (sa && (sa->sa_family == AF_INET || sa->sa_family == AF_INET6) &&
		http_is_loopback(sa));
}

static void on_upgrade(void *cls, struct MHD_Connection *conn, void *req_cls,
		       const char *extra, size_t extra_bytes, MHD_socket sock,
		       struct MHD_UpgradeResponseHandle *handle)
{
	struct response *r = cls;
	struct upgraded u = { .fd = sock,
			      .extra = extra,
			      .extra_bytes = extra_bytes,
			      .internal = handle };

	r->upgrade(r->upgrade_opaque, &u);
}

void http_upgraded_close(const struct upgraded *u)
{
	mhd->upgrade_action(u->internal, MHD_UPGRADE_ACTION_CLOSE);
}

static struct MHD_Response *make_response(struct response *r, struct request *q)
{
	if (r->upgrade)
		return mhd->create_response_for_upgrade(on_upgrade, r);
	if (r->produced)
		return mhd->create_response_from_callback(
			r->producer_bytes, BLOCK_BYTES, produce, q, NULL);
	if (r->fd >= 0 && peer_is_local(q))
		return mhd->create_response_from_callback(
			r->fd_bytes, BLOCK_BYTES, read_file, r, NULL);
	if (r->fd >= 0)
		return mhd->create_response_from_fd_at_offset64(
			r->fd_bytes, TAKE_FD(r->fd), r->fd_off);
	return mhd->create_response_from_buffer(
		r->text_bytes, r->text ? r->text : "", MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result send_response(struct exchange *x)
{
	struct request *q = &x->q;
	struct response *r = &q->response;
	struct MHD_Response *m = make_response(r, q);
	enum MHD_Result ret;
	size_t i;

	if (!m)
		return MHD_NO;
	/* It takes no empty values; blanks in front of one are not of it. */
	for (i = 0; i < r->n_headers; i++)
		mhd->add_response_header(
			m, r->headers[i].name,
			*r->headers[i].value ? r->headers[i].value : " ");
	mhd->add_response_header(m, "X-Openstack-Request-Id", q->id);
	if (r->upgrade)
		client_leaves(q->server, x->connection);
	ret = mhd->queue_response(q->conn, r->status, m);
	mhd->destroy_response(m);
	return ret;
}

/* ---- start and end ---- */

/* Decoding is ours, after the target was split. */
static size_t do_not_unescape(void *cls, struct MHD_Connection *conn, char *s)
{
	return strlen(s);
}

/* What clients do wrong is no news. */
static void drop_log(void *cls, const char *fmt, va_list args)
{
}

int http_start(struct http_server *s, const struct http_app *app,
	       struct error *err)
{
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, s->key },
		{ MHD_OPTION_END, 0, NULL },
	};

	s->app = *app;
	s->daemon = mhd->start_daemon(
		MHD_USE_THREAD_PER_CONNECTION |
			MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
			MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG | MHD_USE_ITC |
			(s->cert ? MHD_USE_TLS : 0U),
		0, clients_on_accept, s, on_request, s,
		MHD_OPTION_EXTERNAL_LOGGER, drop_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
		MHD_OPTION_CONNECTION_LIMIT, s->max,
		MHD_OPTION_STRICT_FOR_CLIENT, s->in_place ? 0 : 1,
		MHD_OPTION_CONNECTION_TIMEOUT, s->idle_sec,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
		MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)(16U << 10),
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
		MHD_OPTION_UNESCAPE_CALLBACK, do_not_unescape, NULL,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
		MHD_OPTION_NOTIFY_CONNECTION, clients_on_connection, s,
		MHD_OPTION_ARRAY, s->cert ? tls : &tls[2], MHD_OPTION_END);
	if (!s->daemon)
		return error_set(err, -EINVAL, 0,
				 s->cert ? "glance: the HTTP server does not "
					   "start; are glance-cert and "
					   "glance-key a pair in PEM?"
					 : "glance: the HTTP server does not "
					   "start");
	if (pthread_create(&s->watch, NULL, clients_watch, s))
		return error_set(err, -EAGAIN, 0, "glance: no thread");
	s->watching = true;
	return 0;
}

void http_free(struct http_server *s)
{
	if (!s)
		return;
	if (s->watching) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->stop_cond);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->watch, NULL);
	}
	if (s->daemon)
		mhd->stop_daemon(s->daemon); /* closes the socket */
	else
		closep(&s->listen_fd);
	socket_file_done(&s->file);
	free(s->cert);
	free(s->key);
	pthread_cond_destroy(&s->stop_cond);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
