/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "formats/cache.h"
#include "formats/report.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/sources/remote-options.h"
#include "iouring/unix-socket.h"
#include "nbd/connection.h"
#include "nbd/control.h"
#include "nbd/export-name.h"
#include "nbd/export.h"
#include "nbd/overlays.h"

#define LINE_BYTES_MAX 65536U
#define CLIENTS_MAX    16U
#define PROGRESS_NSEC  100000000ULL
#define WORD_MSEC      200
#define BUSY_TRIES     250U /* of PAUSE_USEC */
#define PAUSE_USEC     20000U
#define STEP_BYTES_MAX (2U << 20) /* of overlay_pull() over data */

/* Who is connected; lines are short, and come one at a time. */
struct client {
	int fd; /* -1: free */
	char *line;
	size_t len;
};

/* A command that may take long: a thread of its own has its client. */
struct job {
	struct control *control;
	int fd; /* the client */
	json_t *ask;
	const struct overlay_command *command; /* NULL: none */
	json_t *(*run)(struct job *j); /* its answer */
	uint64_t total_bytes;
	uint64_t told_nsec;
	/* Of a pull: bytes a second, 0: no limit; how far it was; fetched. */
	uint64_t rate, began_nsec, last_bytes, fetched_bytes;
	pthread_t thread;
	atomic_bool ended;
	struct job *next;
};

struct control {
	struct socket_file file;
	int fd; /* listens */
	int stop; /* an eventfd; readable: the end */
	bool running;
	pthread_t thread;
	const struct config *config;
	struct client clients[CLIENTS_MAX];
	struct job *jobs;
	atomic_bool stopping; /* jobs shall end */
};

/* ---- lines ---- */

static void drop(struct client *c)
{
	closep(&c->fd);
	c->fd = -1;
	free(TAKE_PTR(c->line));
	c->len = 0;
}

/* Drops @j. False: it could not be sent. */
static bool send_line(int fd, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	bool ok;

	json_decref(j);
	if (text)
		text[len++] = '\n'; /* over the NUL */
	ok = text && send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
	free(text);
	return ok;
}

/* One that does not read its answers is dropped. */
static void send_answer(struct client *c, json_t *j)
{
	if (!send_line(c->fd, j))
		drop(c);
}

/* ---- answers ---- */

static json_t *failure(const struct error *err)
{
	return json_pack("{s:s}", "error", err->msg);
}

static int list_snapshot(void *opaque, const char *name, uint64_t bytes)
{
	return json_array_append_new(opaque, json_string(name));
}

static json_t *overlay_json(struct overlay *o)
{
	json_t *snapshots = json_array();
	struct overlay_stats s;

	overlay_get_stats(o, &s);
	overlay_each_snapshot(o, list_snapshot, snapshots);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "file-bytes",
			 (json_int_t)s.file_bytes, "room-bytes",
			 (json_int_t)s.room_bytes, "flushes",
			 (json_int_t)s.flushes, "syncs", (json_int_t)s.syncs,
			 "epoch", (json_int_t)overlay_epoch(o), "pulling",
			 overlay_is_pulled(o), "snapshots", snapshots);
}

/* An export's, as a client may ask for it: what is no UTF-8 is encoded. */
static json_t *name_json(const char *name)
{
	json_t *j = json_string(name);
	CLEANUP(freep) char *text = j ? NULL : malloc(3 * strlen(name) + 1);
	char *to = text;

	if (j || !text)
		return j;
	for (; *name; name++) {
		if (isascii((unsigned char)*name))
			*to++ = *name;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*name);
	}
	*to = '\0';
	return json_string(text);
}

static int list_export(void *opaque, const struct export *e,
		       unsigned int connections)
{
	json_t *j = json_pack("{s:o, s:i, s:I}", "name", name_json(e->name),
			      "connections", (int)connections, "size",
			      (json_int_t)export_bytes(e));

	if (j && export_is_writable(e))
		json_object_set_new(j, "overlay", overlay_json(e->overlay));
	return json_array_append_new(opaque, j);
}

static int list_client(void *opaque, const struct connection_info *i)
{
	json_t *j = json_pack(
		"{s:o, s:o, s:I, s:i, s:I}", "export", name_json(i->export),
		"peer", report_text(i->peer), "since", (json_int_t)i->since,
		"requests", (int)i->requests, "epoch", (json_int_t)i->epoch);

	return json_array_append_new(opaque, j);
}

static json_t *answer_list(void)
{
	json_t *exports_list = json_array(), *clients = json_array();

	export_each_open(list_export, exports_list);
	connection_each(list_client, clients);
	return json_pack("{s:o, s:o}", "exports", exports_list, "clients",
			 clients);
}

static json_int_t load(const _Atomic uint64_t *n)
{
	return (json_int_t)atomic_load_explicit(n, memory_order_relaxed);
}

static json_t *op_json(const struct traffic_count *c)
{
	json_t *took = json_array();
	unsigned int i;

	for (i = 0; i < TRAFFIC_BUCKETS; i++)
		json_array_append_new(took, json_integer(load(&c->took[i])));
	return json_pack("{s:I, s:I, s:I, s:I, s:o}", "requests",
			 load(&c->requests), "errors", load(&c->errors),
			 "bytes", load(&c->bytes), "usec",
			 load(&c->nsec) / 1000, "took", took);
}

static json_t *traffic_json(const struct traffic *t)
{
	json_t *j = json_object();
	unsigned int op;

	for (op = 0; op < TRAFFIC_OPS; op++)
		if (load(&t->ops[op].requests))
			json_object_set_new(j, traffic_op_name(op),
					    op_json(&t->ops[op]));
	return j;
}

static int add_traffic(void *opaque, const struct export *e,
		       unsigned int connections)
{
	struct traffic sum = { 0 };

	traffic_sum(&sum, &e->traffic);
	return json_array_append_new(
		opaque, json_pack("{s:o, s:o}", "name", name_json(e->name),
				  "traffic", traffic_json(&sum)));
}

static json_t *answer_stats(void)
{
	json_t *list = json_array();
	struct cache_stats cache;
	struct traffic all;

	export_get_traffic(&all);
	export_each_open(add_traffic, list);
	cache_get_stats(&cache);
	return json_pack("{s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I}}",
			 "traffic", traffic_json(&all), "exports", list,
			 "cache", "hits", (json_int_t)cache.hits, "misses",
			 (json_int_t)cache.misses, "bytes",
			 (json_int_t)cache.bytes, "room-bytes",
			 (json_int_t)cache.room_bytes, "room-waits",
			 (json_int_t)cache.room_waits, "table-misses",
			 (json_int_t)cache.meta_misses);
}

static int list_object(void *opaque, const struct disk_cache_object *o)
{
	json_array_append_new(
		opaque,
		json_pack("{s:o, s:I, s:I, s:b, s:b, s:i}", "name",
			  report_text(o->name), "size", (json_int_t)o->bytes,
			  "kept", (json_int_t)o->kept_bytes, "mine", o->mine,
			  "filling", o->filling, "failures", (int)o->failures));
	return 0;
}

static json_t *answer_cache(void)
{
	json_t *list = json_array();

	disk_cache_each(list_object, list);
	return json_pack("{s:o}", "objects", list);
}

static json_t *answer_warm(const json_t *ask)
{
	const char *name = json_string_value(json_object_get(ask, "name"));

	return json_pack("{s:i}", "objects", (int)disk_cache_want(name));
}

static json_t *answer_create(struct control *k, const json_t *ask)
{
	const char *name = json_string_value(json_object_get(ask, "export"));
	struct error err = { 0 };
	int r = name ? export_create(k->config, name, &err)
		     : error_set(&err, -EINVAL, 0, "no export is named");

	return r < 0 ? failure(&err) : json_object();
}

/* A command of one overlay. */
struct overlay_command {
	const char *name;
	int (*run)(struct job *j, struct export *e, const json_t *ask,
		   struct error *err);
	bool takes_long; /* it is a job's */
	bool makes; /* there need not be a file yet */
};

/* The overlay is opened if it is not. @j: NULL where it takes not long. */
static json_t *answer_overlay(struct control *k, struct job *j,
			      const struct overlay_command *command,
			      const json_t *ask)
{
	const char *name = json_string_value(json_object_get(ask, "export"));
	struct error err = { 0 };
	struct export *e;
	int r;

	if (!name)
		r = error_set(&err, -EINVAL, 0, "no export is named");
	else
		r = export_open_by_operator(k->config, name, &e, &err);
	if (r < 0)
		return failure(&err);
	if (!export_is_writable(e))
		r = error_set(&err, -EINVAL, 0, "export \"%s\" has no overlay",
			      name);
	else if (!command->makes && !overlay_is_made(e->overlay))
		r = error_set(&err, -ENOENT, 0,
			      "there is no overlay \"%s\": nothing has been "
			      "written to it (\"platter overlay create\" makes "
			      "one)",
			      name);
	else
		r = command->run(j, e, ask, &err);
	export_close(e);
	return r < 0 ? failure(&err) : json_object();
}

/* NULL: there is none, or it may not be one. */
static const char *snapshot_name(const json_t *ask, struct error *err)
{
	const char *name = json_string_value(json_object_get(ask, "name"));

	if (name && overlays_name_ok(name))
		return name;
	error_set(err, -EINVAL, 0,
		  "a snapshot's name is of letters, digits, '-', '_' and '.'");
	return NULL;
}

static int run_snapshot(struct job *j, struct export *e, const json_t *ask,
			struct error *err)
{
	const char *name = snapshot_name(ask, err);

	return name ? overlay_snapshot(e->overlay, name, err) : -EINVAL;
}

struct revert {
	const char *name;
	bool discard;
};

static int revert_alone(void *opaque, struct export *e, struct error *err)
{
	const struct revert *r = opaque;

	return overlay_revert(e->overlay, r->name, r->discard, err);
}

static int run_revert(struct job *j, struct export *e, const json_t *ask,
		      struct error *err)
{
	struct revert r = { .name = snapshot_name(ask, err),
			    .discard = json_is_true(
				    json_object_get(ask, "discard")) };

	return r.name ? export_run_alone(e, revert_alone, &r, err) : -EINVAL;
}

static int run_resize(struct job *j, struct export *e, const json_t *ask,
		      struct error *err)
{
	json_int_t bytes = json_integer_value(json_object_get(ask, "size"));

	return bytes > 0 ? overlay_resize(e->overlay, (uint64_t)bytes, err)
			 : error_set(err, -EINVAL, 0,
				     "a size is a number of bytes above 0");
}

/* Clients of an export; its overlay's file is closed with the last of them. */
static json_t *answer_close(const json_t *ask)
{
	const char *text = json_string_value(json_object_get(ask, "export"));
	CLEANUP(export_name_done) struct export_name n = { 0 };
	CLEANUP(freep) char *name = NULL;
	struct error err = { 0 };

	if (!text) {
		error_set(&err, -EINVAL, 0, "no export is named");
		return failure(&err);
	}
	if (export_name_parse(text, &n, &err) < 0)
		return failure(&err);
	name = export_name_format(&n);
	return json_pack("{s:i}", "connections",
			 name ? (int)connection_shut(name) : 0);
}

static int run_flush(struct job *j, struct export *e, const json_t *ask,
		     struct error *err)
{
	return overlay_flush(e->overlay, err);
}

static int run_fence(struct job *j, struct export *e, const json_t *ask,
		     struct error *err)
{
	json_int_t epoch = json_integer_value(json_object_get(ask, "epoch"));

	if (epoch <= 0)
		return error_set(err, -EINVAL, 0,
				 "an epoch is a number above 0");
	/* What has no name in the export's has no place for an epoch either. */
	if (!strchr(e->name, '+'))
		return error_set(
			err, -EINVAL, 0,
			"export \"%s\" has no overlay of a name, whose "
			"clients could tell their epochs",
			e->name);
	return connection_fence(e, (uint64_t)epoch, err);
}

/* ---- jobs ---- */

/* Has the client hung up, or is the server about to end? */
static bool is_unwanted(const struct job *j)
{
	char c;

	return atomic_load(&j->control->stopping) ||
	       !recv(j->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
}

static int tell_progress(void *opaque, uint64_t done_bytes)
{
	struct job *j = opaque;
	uint64_t now = now_nsec();

	if (now - j->told_nsec < PROGRESS_NSEC)
		return 0;
	j->told_nsec = now;
	if (is_unwanted(j) ||
	    !send_line(j->fd, json_pack("{s:{s:I, s:I}}", "progress", "done",
					(json_int_t)done_bytes, "total",
					(json_int_t)j->total_bytes)))
		return -ECANCELED;
	return 0;
}

static int run_delete(struct job *j, struct export *e, const json_t *ask,
		      struct error *err)
{
	const char *name = snapshot_name(ask, err);
	int r;

	if (!name)
		return -EINVAL;
	j->total_bytes = overlay_bytes(e->overlay);
	r = overlay_delete(e->overlay, name, tell_progress, j, err);
	if (r == -ECANCELED)
		error_set(err, r, 0, "was interrupted; nothing is lost");
	return r;
}

/* So that it is no faster than it shall be. */
static int hold_back(void *opaque, uint64_t done_bytes)
{
	struct job *j = opaque;
	uint64_t due_nsec;
	int r = tell_progress(j, done_bytes);

	if (!j->began_nsec)
		j->began_nsec = now_nsec();
	/* A longer step was over what is there, or zero. */
	if (done_bytes - j->last_bytes <= STEP_BYTES_MAX)
		j->fetched_bytes += done_bytes - j->last_bytes;
	j->last_bytes = done_bytes;
	due_nsec = j->rate ? (uint64_t)((double)j->fetched_bytes * 1e9 /
					(double)j->rate)
			   : 0;
	while (!r && now_nsec() - j->began_nsec < due_nsec) {
		usleep(PAUSE_USEC);
		r = tell_progress(j, done_bytes);
	}
	return r;
}

struct pulled {
	const char *from;
	bool held;
};

static int make_pulled(void *opaque, struct export *e, struct error *err)
{
	const struct pulled *p = opaque;

	return overlay_make_pulled(e->overlay, p->from, p->held, err);
}

static int run_pull(struct job *j, struct export *e, const json_t *ask,
		    struct error *err)
{
	struct pulled p = {
		.from = json_string_value(json_object_get(ask, "from")),
		.held = json_is_true(json_object_get(ask, "prepare"))
	};
	json_int_t rate = json_integer_value(json_object_get(ask, "rate"));
	bool same = json_is_true(json_object_get(ask, "base"));
	const struct overlay_base base = { e->image, e->path, e->id };
	unsigned int tries = 0;
	int r = 0;

	if (p.from && !overlay_is_pulled(e->overlay))
		r = export_run_alone(e, make_pulled, &p, err);
	if (r < 0 || p.held)
		return r;
	j->total_bytes = overlay_bytes(e->overlay);
	j->rate = rate > 0 ? (uint64_t)rate : 0;
	/* One whose user was killed a moment ago is about to end. */
	while ((r = overlays_pull(e->overlay, &base, same, hold_back, j,
				  err)) == -EBUSY &&
	       tries++ < BUSY_TRIES && !is_unwanted(j)) {
		error_clear(err);
		usleep(PAUSE_USEC);
	}
	/* A server that is about to end reads nothing from others any more. */
	if (r < 0 && remote_is_stopping()) {
		error_clear(err);
		r = -ECANCELED;
	}
	if (r == -ECANCELED)
		error_set(err, r, 0, "was interrupted; nothing is lost");
	else if (r == -EIO)
		error_prefix(err, "what is not here yet");
	return r;
}

static json_t *answer_long(struct job *j)
{
	return answer_overlay(j->control, j, j->command, j->ask);
}

/* Until the client says another word, or hangs up. */
static void wait_for_word(const struct job *j)
{
	struct pollfd p = { j->fd, POLLIN, 0 };

	while (!atomic_load(&j->control->stopping) &&
	       poll(&p, 1, WORD_MSEC) <= 0)
		;
}

static json_t *trace_json(const struct trace *t, bool full)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < t->n; i++)
		json_array_append_new(
			list, json_pack("[I, I]", (json_int_t)t->ranges[i].off,
					(json_int_t)t->ranges[i].len));
	return json_pack("{s:I, s:b, s:o}", "bytes", (json_int_t)t->bytes,
			 "full", full, "ranges", list);
}

/* The export is held meanwhile, whoever opens and closes it. */
static int record(struct job *j, struct export *e, json_t **ret,
		  struct error *err)
{
	CLEANUP(trace_done) struct trace t = { 0 };
	bool full;
	int r = export_trace_begin(e, err);

	if (r < 0)
		return r;
	send_line(j->fd, json_pack("{s:{}}", "recording"));
	wait_for_word(j);
	r = export_trace_end(e, &t, &full);
	if (r < 0)
		return error_set(err, r, 0, "out of memory");
	*ret = trace_json(&t, full);
	return 0;
}

static json_t *answer_trace(struct job *j)
{
	const char *name = json_string_value(json_object_get(j->ask, "export"));
	struct error err = { 0 };
	json_t *ret = NULL;
	struct export *e;
	int r = name ? export_open_by_operator(j->control->config, name, &e,
					       &err)
		     : error_set(&err, -EINVAL, 0, "no export is named");

	if (r < 0)
		return failure(&err);
	r = record(j, e, &ret, &err);
	export_close(e);
	return r < 0 ? failure(&err) : ret;
}

static void *work_on_job(void *opaque)
{
	struct job *j = opaque;

	send_line(j->fd, j->run(j));
	closep(&j->fd);
	json_decref(j->ask);
	atomic_store(&j->ended, true);
	return NULL;
}

/* Takes over the client. */
static json_t *begin_job(struct control *k, struct client *c,
			 const struct overlay_command *command,
			 json_t *(*run)(struct job *j), json_t *ask)
{
	struct job *j = calloc(1, sizeof(*j));
	int r = ENOMEM;

	if (j) {
		j->control = k;
		j->run = run;
		j->ask = json_deep_copy(ask); /* the other one is its own */
		j->command = command;
		j->fd = c->fd;
		r = j->ask ? pthread_create(&j->thread, NULL, work_on_job, j)
			   : ENOMEM;
	}
	if (r) {
		if (j)
			json_decref(j->ask);
		free(j);
		return json_pack("{s:s}", "error", errno_text(r));
	}
	c->fd = -1;
	drop(c);
	j->next = k->jobs;
	k->jobs = j;
	return NULL;
}

/* Those that have ended; @wait: all. */
static void reap_jobs(struct control *k, bool wait)
{
	struct job **p = &k->jobs, *j;

	while ((j = *p)) {
		if (!wait && !atomic_load(&j->ended)) {
			p = &j->next;
			continue;
		}
		pthread_join(j->thread, NULL);
		*p = j->next;
		free(j);
	}
}

/* ---- commands ---- */

static const struct overlay_command *find_command(const char *name)
{
	static const struct overlay_command commands[] = {
		{ .name = "snapshot", .run = run_snapshot },
		{ .name = "revert", .run = run_revert },
		{ .name = "resize", .run = run_resize },
		{ .name = "flush", .run = run_flush },
		{ .name = "delete", .run = run_delete, .takes_long = true },
		{ .name = "pull",
		  .run = run_pull,
		  .takes_long = true,
		  .makes = true },
		{ .name = "fence",
		  .run = run_fence,
		  .takes_long = true,
		  .makes = true },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

static json_t *answer_command(struct control *k, struct client *c, json_t *ask,
			      const char *name)
{
	const struct overlay_command *command = find_command(name);

	if (!command)
		return json_pack("{s:s}", "error",
				 "there are the commands list, stats, create, "
				 "snapshot, revert, delete, resize, flush, "
				 "pull, fence, close, cache, warm, trace");
	return command->takes_long ? begin_job(k, c, command, answer_long, ask)
				   : answer_overlay(k, NULL, command, ask);
}

/* NULL: a job has begun, which answers. */
static json_t *answer(struct control *k, struct client *c, json_t *ask)
{
	const char *command =
		json_string_value(json_object_get(ask, "command"));
	json_t *ret;

	if (!command)
		ret = json_pack("{s:s}", "error",
				"a line is a JSON object with a command");
	else if (!strcmp(command, "list"))
		ret = answer_list();
	else if (!strcmp(command, "stats"))
		ret = answer_stats();
	else if (!strcmp(command, "cache"))
		ret = answer_cache();
	else if (!strcmp(command, "warm"))
		ret = answer_warm(ask);
	else if (!strcmp(command, "close"))
		ret = answer_close(ask);
	else if (!strcmp(command, "create"))
		ret = answer_create(k, ask);
	else if (!strcmp(command, "trace"))
		ret = begin_job(k, c, NULL, answer_trace, ask);
	else
		ret = answer_command(k, c, ask, command);
	return ret;
}

/* ---- clients ---- */

static void take_line(struct control *k, struct client *c, size_t len)
{
	json_error_t why;
	json_t *ask = json_loadb(c->line, len, 0, &why);
	json_t *ret = answer(k, c, ask);

	json_decref(ask);
	if (ret)
		send_answer(c, ret);
}

static void take_lines(struct control *k, struct client *c)
{
	char *end;
	size_t n;

	while (c->fd >= 0 && (end = memchr(c->line, '\n', c->len))) {
		n = (size_t)(end - c->line);
		take_line(k, c, n);
		if (c->fd < 0)
			return;
		c->len -= n + 1;
		memmove(c->line, end + 1, c->len);
	}
	if (c->len == LINE_BYTES_MAX)
		drop(c);
}

static void serve(struct control *k, struct client *c)
{
	ssize_t n = recv(c->fd, c->line + c->len, LINE_BYTES_MAX - c->len, 0);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		drop(c);
		return;
	}
	c->len += (size_t)n;
	take_lines(k, c);
}

static void welcome(struct control *k)
{
	struct timeval patience = { .tv_sec = 5 };
	int fd = accept4(k->fd, NULL, NULL, SOCK_CLOEXEC);
	size_t i;

	if (fd < 0)
		return;
	for (i = 0; i < CLIENTS_MAX && k->clients[i].fd >= 0; i++)
		;
	if (i == CLIENTS_MAX ||
	    !(k->clients[i].line = malloc(LINE_BYTES_MAX))) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	k->clients[i].fd = fd;
}

static void *work(void *opaque)
{
	struct control *k = opaque;
	struct pollfd p[CLIENTS_MAX + 2];
	size_t i;

	for (;;) {
		p[0] = (struct pollfd){ k->stop, POLLIN, 0 };
		p[1] = (struct pollfd){ k->fd, POLLIN, 0 };
		for (i = 0; i < CLIENTS_MAX; i++)
			p[i + 2] =
				(struct pollfd){ k->clients[i].fd, POLLIN, 0 };
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		if (p[0].revents)
			return NULL;
		for (i = 0; i < CLIENTS_MAX; i++)
			if (p[i + 2].revents)
				serve(k, &k->clients[i]);
		if (p[1].revents)
			welcome(k);
		reap_jobs(k, false);
	}
}

/* ---- the socket ---- */

int control_listen(const char *path, struct control **ret, struct error *err)
{
	struct control *k = calloc(1, sizeof(*k));
	size_t i;
	int r;

	if (!k)
		return error_set(err, -ENOMEM, 0, "out of memory");
	k->fd = k->stop = -1;
	for (i = 0; i < CLIENTS_MAX; i++)
		k->clients[i].fd = -1;
	k->stop = eventfd(0, EFD_CLOEXEC);
	r = k->stop < 0 ? error_set(err, -errno, 0, "%s", errno_text(errno))
			: socket_listen(path, &SOCKET_PRIVATE, &k->file, &k->fd,
					err);
	if (r < 0) {
		error_prefix(err, "control");
		control_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

int control_listen_fd(const struct control *k)
{
	return k->fd;
}

int control_start(struct control *k, const struct config *c, struct error *err)
{
	int r;

	k->config = c;
	r = pthread_create(&k->thread, NULL, work, k);
	if (r)
		return error_set(err, -r, 0, "control: no thread: %s",
				 errno_text(r));
	k->running = true;
	return 0;
}

void control_free(struct control *k)
{
	size_t i;

	if (!k)
		return;
	atomic_store(&k->stopping, true);
	if (k->running) {
		eventfd_write(k->stop, 1);
		pthread_join(k->thread, NULL);
	}
	reap_jobs(k, true);
	for (i = 0; i < CLIENTS_MAX; i++)
		drop(&k->clients[i]);
	closep(&k->fd);
	closep(&k->stop);
	socket_file_done(&k->file);
	free(k);
}
