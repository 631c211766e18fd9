/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "glance/glance.h"
#include "glance/observe.h"
#include "glance/record.h"
#include "glance/routes.h"
#include "glance/http/tunnel.h"
#include "glance/time-text.h"

/* Routes are about a hundred, each with a few statuses. */
#define COUNTS_MAX 1024U

/* Upper bounds, in us; the last bucket has none. */
static const uint64_t bounds[] = { 250,	  1000,	  2500,	   10000,
				   50000, 250000, 1000000, 10000000 };
#define BUCKETS (ARRAY_SIZE(bounds) + 1)

struct count {
	const char *method, *route; /* literals */
	unsigned int status;
	uint64_t requests, usec;
	uint64_t took[BUCKETS];
};

struct observer {
	char *path; /* of the log; NULL: none */
	pthread_mutex_t lock; /* the rest */
	int fd;
	struct stat st; /* of fd */
	struct count counts[COUNTS_MAX];
	size_t n;
};

/* ---- the log ---- */

static int open_log(struct observer *o)
{
	closep(&o->fd);
	o->fd = open(o->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	return o->fd < 0 || fstat(o->fd, &o->st) < 0 ? -errno : 0;
}

/* Whoever rotates logs renames them. */
static bool is_current(const struct observer *o)
{
	struct stat st;

	return o->fd >= 0 && !stat(o->path, &st) && st.st_dev == o->st.st_dev &&
	       st.st_ino == o->st.st_ino;
}

/* "-" where there is none; nothing in it can end a field or a line. */
static void add_field(struct text_buf *b, const char *text)
{
	if (text && *text)
		text_add_percent(b, text);
	else
		text_add_char(b, '-');
	text_add_char(b, ' ');
}

static uint64_t answer_bytes(const struct response *r)
{
	if (r->fd_bytes)
		return r->fd_bytes;
	return r->produced ? r->producer_bytes : r->text_bytes;
}

/* TIME PEER PROJECT USER METHOD PATH STATUS SENT TAKEN USEC REQUEST */
static void add_line(struct text_buf *b, const struct request *q, uint64_t usec)
{
	char when[21], peer[64];
	size_t i;

	time_format(time_now_usec(), when);
	request_peer(q, peer, sizeof(peer));
	text_addf(b, "%s %s ", when, peer);
	add_field(b, q->who.project);
	add_field(b, q->who.user);
	add_field(b, q->method_name);
	if (!q->uri.n_segments)
		text_add_char(b, '/');
	for (i = 0; i < q->uri.n_segments; i++) {
		text_add_char(b, '/');
		text_add_percent(b, q->uri.segments[i]);
	}
	text_addf(b, " %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n",
		  q->response.status, answer_bytes(&q->response), q->body_bytes,
		  usec, q->id);
}

/* Lock is held. A log that cannot be written costs its lines alone. */
static void write_line(struct observer *o, const struct text_buf *b)
{
	ssize_t n;

	if (b->failed || !b->len || (!is_current(o) && open_log(o) < 0))
		return;
	do
		n = write(o->fd, b->text, b->len);
	while (n < 0 && errno == EINTR);
}

/* ---- counts ---- */

/* Lock is held. NULL: there are too many. */
static struct count *find_count(struct observer *o, const char *method,
				const char *route, unsigned int status)
{
	struct count *c;
	size_t i;

	for (i = 0; i < o->n; i++) {
		c = &o->counts[i];
		if (c->status == status && c->method == method &&
		    c->route == route)
			return c;
	}
	if (o->n == COUNTS_MAX)
		return NULL;
	c = &o->counts[o->n++];
	c->method = method;
	c->route = route;
	c->status = status;
	return c;
}

static const char *method_text(enum http_method m)
{
	static const char *const names[] = { "GET",   "HEAD",	"POST", "PUT",
					     "PATCH", "DELETE", "other" };

	return names[m];
}

static void count(struct observer *o, const struct request *q, uint64_t usec)
{
	struct count *c = find_count(o, method_text(q->method),
				     q->route ? q->route->pattern : "",
				     q->response.status);
	size_t i = 0;

	if (!c)
		return;
	while (i < ARRAY_SIZE(bounds) && usec > bounds[i])
		i++;
	c->requests++;
	c->usec += usec;
	c->took[i]++;
}

void observe_request(struct request *q)
{
	struct glance *g = q->app;
	struct observer *o = g->observer;
	int64_t took = now_nsec() / 1000 - (uint64_t)q->start_usec;
	uint64_t usec = took > 0 ? (uint64_t)took : 0;
	struct text_buf line = { 0 };

	if (o->path)
		add_line(&line, q, usec);
	pthread_mutex_lock(&o->lock);
	count(o, q, usec);
	if (o->path)
		write_line(o, &line);
	pthread_mutex_unlock(&o->lock);
	text_buf_done(&line);
}

int observer_new(const char *log, struct observer **ret, struct error *err)
{
	struct observer *o = calloc(1, sizeof(*o));
	int r = 0;

	if (!o)
		return error_set(err, -ENOMEM, 0, "out of memory");
	o->fd = -1;
	pthread_mutex_init(&o->lock, NULL);
	o->path = log ? strdup(log) : NULL;
	if (log && !o->path)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	else if (log && (r = open_log(o)) < 0)
		r = error_set(err, r, 0, "access-log: %s: %s", log,
			      errno_text(-r));
	if (r < 0) {
		observer_free(o);
		return r;
	}
	*ret = o;
	return 0;
}

void observer_free(struct observer *o)
{
	if (!o)
		return;
	closep(&o->fd);
	pthread_mutex_destroy(&o->lock);
	free(o->path);
	free(o);
}

/* ---- GET /metrics: Prometheus's text format, version 0.0.4 ---- */

static void add_labels(struct text_buf *b, const char *name,
		       const struct count *c)
{
	text_addf(b, "%s{method=\"%s\",route=\"%s\",status=\"%u\"", name,
		  c->method, c->route, c->status);
}

static void add_requests(struct text_buf *b, const struct observer *o)
{
	static const char name[] = "platter_http_request_duration_seconds";
	uint64_t sum;
	size_t i, k;

	text_addf(b,
		  "# HELP %s Requests of the API that were answered.\n"
		  "# TYPE %s histogram\n",
		  name, name);
	for (i = 0; i < o->n; i++) {
		const struct count *c = &o->counts[i];

		for (k = 0, sum = 0; k < BUCKETS; k++) {
			sum += c->took[k];
			add_labels(b,
				   "platter_http_request_duration_seconds_"
				   "bucket",
				   c);
			if (k < ARRAY_SIZE(bounds))
				text_addf(b, ",le=\"%g\"} %" PRIu64 "\n",
					  (double)bounds[k] / 1e6, sum);
			else
				text_addf(b, ",le=\"+Inf\"} %" PRIu64 "\n",
					  sum);
		}
		add_labels(b, "platter_http_request_duration_seconds_sum", c);
		text_addf(b, "} %.6f\n", (double)c->usec / 1e6);
		add_labels(b, "platter_http_request_duration_seconds_count", c);
		text_addf(b, "} %" PRIu64 "\n", c->requests);
	}
}

static void add_images(struct text_buf *b, struct glance *g)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;

	if (index_read(g->index, &tx, NULL) < 0 ||
	    index_sql(tx,
		      "SELECT status, count(*), ifnull(sum(size), 0) FROM"
		      " images GROUP BY status",
		      &st, NULL) < 0)
		return;
	text_add(b, "# HELP platter_images Images in the index.\n"
		    "# TYPE platter_images gauge\n");
	while (index_step(st, NULL) == 1)
		text_addf(b, "platter_images{status=\"%s\"} %lld\n",
			  index_text(st, 0),
			  (long long)sqlite.column_int64(st, 1));
}

static void get_metrics(struct request *q)
{
	struct glance *g = q->app;
	struct observer *o = g->observer;
	struct text_buf b = { 0 };

	if (!q->who.admin) {
		respond_error(q, 403,
			      "You are not authorized to complete this "
			      "action.");
		return;
	}
	pthread_mutex_lock(&o->lock);
	add_requests(&b, o);
	pthread_mutex_unlock(&o->lock);
	add_images(&b, g);
	text_addf(&b,
		  "# HELP platter_http_nbd_connections NBD clients that came "
		  "by HTTP.\n# TYPE platter_http_nbd_connections gauge\n"
		  "platter_http_nbd_connections %u\n",
		  tunnels_count(g->tunnels));
	if (g->add_metrics)
		g->add_metrics(&b);
	respond_text(q, 200, "text/plain; version=0.0.4; charset=utf-8",
		     text_buf_take(&b));
}

const struct route observe_routes[] = {
	{ HTTP_GET, "/metrics", get_metrics },
	{ 0 },
};
