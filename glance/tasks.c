/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks as API v2 shows them; import.c does what they say. */
#include <errno.h>
#include <string.h>

#include "glance/fetch.h"
#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/routes.h"
#include "glance/schemas.h"
#include "glance/task.h"
#include "glance/http/uri.h"
#include "glance/time-text.h"
#include "glance/worker.h"

#define PAGE_DEFAULT 25U
#define PAGE_MAX     1000U

/* ---- JSON ---- */

static void add_text(json_t *o, const char *name, const char *value)
{
	json_object_set_new(o, name, value ? json_string(value) : json_null());
}

static void add_given(json_t *o, const char *name, const char *value)
{
	if (value)
		add_text(o, name, value);
}

static void add_time(json_t *o, const char *name, int64_t usec)
{
	char text[21];

	time_format(usec, text);
	add_text(o, name, text);
}

static void add_object(json_t *o, const char *name, const char *text)
{
	json_t *v = text ? json_loads(text, 0, NULL) : NULL;

	json_object_set_new(o, name, v ? v : json_null());
}

/* What lists have of a task. */
static json_t *stub(const struct task *t)
{
	json_t *o = json_object();
	char self[64];

	snprintf(self, sizeof(self), "/v2/tasks/%s", t->id);
	add_text(o, "id", t->id);
	add_text(o, "type", t->type);
	add_text(o, "status", t->status);
	add_text(o, "owner", t->owner);
	add_time(o, "created_at", t->created_usec);
	add_time(o, "updated_at", t->updated_usec);
	add_text(o, "self", self);
	add_text(o, "schema", "/v2/schemas/task");
	if (t->has_expires)
		add_time(o, "expires_at", t->expires_usec);
	return o;
}

static json_t *whole(const struct task *t)
{
	json_t *o = stub(t);

	add_object(o, "input", t->input);
	add_object(o, "result", t->result);
	add_text(o, "message", t->message ? t->message : "");
	add_given(o, "image_id", t->image_id);
	add_given(o, "request_id", t->request_id);
	add_given(o, "user_id", t->user_id);
	return o;
}

/* ---- reading ---- */

/* Answers who is no administrator. */
static bool may_use(struct request *q)
{
	if (q->who.admin)
		return true;
	respond_error(q, 403,
		      "You are not authorized to complete tasks_api_access "
		      "action.");
	return false;
}

static void get_task(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(task_done) struct task t = { 0 };
	struct error err = { 0 };
	int r;

	if (!may_use(q))
		return;
	r = index_read(g->index, &tx, &err);
	if (r >= 0)
		r = task_load(tx, q->uri.segments[2], &t, &err);
	if (r < 0)
		respond_failure(q, &err);
	else
		respond_json_value(q, 200, whole(&t));
}

static int parse_limit(const char *text, uint64_t *ret, struct error *err)
{
	long long n;
	char *end;

	*ret = PAGE_DEFAULT;
	if (!text)
		return 0;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (!*text || *end || errno)
		return error_set(err, -EINVAL, 0,
				 "limit param must be an integer");
	if (n < 0)
		return error_set(err, -EINVAL, 0,
				 "limit param must be positive");
	*ret = min_u64((uint64_t)n, PAGE_MAX);
	return 0;
}

static int check_word(const char *what, const char *word,
		      const char *const *words, struct error *err)
{
	for (; word && *words; words++)
		if (!strcmp(word, *words))
			return 0;
	return word ? error_set(err, -EINVAL, 0, "Invalid %s: %.64s", what,
				word)
		    : 0;
}

static int parse_filter(const struct uri *u, struct task_filter *f,
			struct error *err)
{
	static const char *const directions[] = { "asc", "desc", NULL };
	static const char *const statuses[] = { TASK_PENDING, TASK_PROCESSING,
						TASK_SUCCESS, TASK_FAILURE,
						NULL };
	static const char *const types[] = { TASK_IMPORT, TASK_API_IMPORT,
					     NULL };
	const char *dir = uri_query(u, "sort_dir");
	int r = parse_limit(uri_query(u, "limit"), &f->limit, err);

	f->status = uri_query(u, "status");
	f->type = uri_query(u, "type");
	f->marker = uri_query(u, "marker");
	f->sort_key = uri_query(u, "sort_key");
	f->ascending = dir && !strcmp(dir, "asc");
	if (r >= 0)
		r = check_word("sort direction", dir, directions, err);
	if (r >= 0)
		r = check_word("status value", f->status, statuses, err);
	if (r >= 0)
		r = check_word("type value", f->type, types, err);
	if (r >= 0 && !task_sorts_by(f->sort_key))
		r = error_set(err, -EINVAL, 0,
			      "Sort key supplied was not valid.");
	if (r >= 0 && f->marker && !record_id_ok(f->marker))
		r = error_set(err, -EINVAL, 0, "Invalid marker format");
	return r;
}

static int add_stub(void *opaque, struct task *t)
{
	return json_array_append_new(opaque, stub(t));
}

static int add_whole(void *opaque, struct task *t)
{
	return json_array_append_new(opaque, whole(t));
}

/* "/v2/tasks?...", as asked, with @marker; NULL: without. To be freed. */
static char *page_link(const struct uri *u, const char *marker)
{
	struct text_buf b = { 0 };
	char separator = '?';

	text_add(&b, "/v2/tasks");
	uri_add_query(&b, u, "marker", &separator);
	if (marker)
		text_addf(&b, "%cmarker=%s", separator, marker);
	return text_buf_take(&b);
}

static void get_tasks(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct task_filter f = { 0 };
	json_t *list, *answer;
	CLEANUP(freep) char *first = NULL;
	CLEANUP(freep) char *next = NULL;
	struct error err = { 0 };
	size_t n;
	int r;

	if (!may_use(q))
		return;
	list = json_array();
	r = parse_filter(&q->uri, &f, &err);
	if (r >= 0)
		r = index_read(g->index, &tx, &err);
	if (r >= 0)
		r = task_each(tx, &f, add_stub, list, &err);
	if (r < 0) {
		json_decref(list);
		respond_failure(q, &err);
		return;
	}
	n = json_array_size(list);
	first = page_link(&q->uri, NULL);
	if (n && n == f.limit)
		next = page_link(
			&q->uri,
			json_member(json_array_get(list, n - 1), "id"));
	answer = json_pack("{s:o, s:s, s:s}", "tasks", list, "first",
			   first ? first : "/v2/tasks", "schema",
			   "/v2/schemas/tasks");
	if (next)
		json_object_set_new(answer, "next", json_string(next));
	respond_json_value(q, 200, answer);
}

/* Of one image, for all who may see it. */
static void get_image_tasks(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	struct task_filter f = { .image_id = q->uri.segments[2],
				 .ascending = true,
				 .limit = PAGE_MAX };
	json_t *list = json_array();
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, f.image_id, &image, &err);
	if (r >= 0)
		r = task_each(tx, &f, add_whole, list, &err);
	if (r < 0) {
		json_decref(list);
		respond_failure(q, &err);
		return;
	}
	respond_json_value(q, 200, json_pack("{s:o}", "tasks", list));
}

/* ---- making one ---- */

static int check_new(struct glance *g, const json_t *body, struct error *err)
{
	static const char *const required[] = { "type", "input" };
	const char *type, *uri;
	struct error why = { 0 };
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(required); i++)
		if (!json_object_get(body, required[i]))
			return error_set(err, -EINVAL, 0,
					 "Task '%s' is required", required[i]);
	r = schema_check("task", body, err);
	if (r < 0)
		return r;
	type = json_member(body, "type");
	if (strcmp(type, TASK_IMPORT) != 0)
		return error_set(err, -EINVAL, 0,
				 "Task type %.32s is begun by POST "
				 "/v2/images/{image_id}/import",
				 type);
	uri = json_member(json_object_get(body, "input"), "import_from");
	if (!uri || fetch_check(g->fetch, uri, &why) < 0)
		return error_set(err, -EINVAL, 0,
				 "URI for legacy import task does not pass "
				 "filtering: %.256s",
				 uri ? uri : "None");
	return 0;
}

static int insert(struct index_tx *tx, void *opaque, struct error *err)
{
	return task_insert(tx, opaque, err);
}

static int add_task(struct request *q, const json_t *body, struct task *t,
		    struct error *err)
{
	struct glance *g = q->app;
	int r = check_new(g, body, err);

	if (r >= 0)
		r = record_set(&t->type, TASK_IMPORT, err);
	if (r >= 0)
		r = record_set(&t->owner, q->who.project, err);
	if (r >= 0)
		r = record_set(&t->user_id, q->who.user, err);
	if (r >= 0)
		r = record_set(&t->request_id, q->id, err);
	if (r < 0)
		return r;
	t->input = json_dumps(json_object_get(body, "input"), JSON_COMPACT);
	if (!t->input)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return index_write(g->index, insert, t, err);
}

static void post_task(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(json_decrefp) json_t *body = NULL;
	CLEANUP(task_done) struct task t = { 0 };
	CLEANUP(freep) char *base = request_base_url(q);
	struct error err = { 0 };
	char location[400];

	if (!may_use(q))
		return;
	body = request_json_object(q);
	if (!body)
		return;
	if (add_task(q, body, &t, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	worker_wake(g->worker);
	snprintf(location, sizeof(location), "%s/v2/tasks/%s", base ? base : "",
		 t.id);
	respond_header(q, "Location", location);
	respond_json_value(q, 201, whole(&t));
}

const struct route task_routes[] = {
	{ HTTP_GET, "/v2/tasks", get_tasks },
	{ HTTP_POST, "/v2/tasks", post_task },
	{ HTTP_GET, "/v2/tasks/{}", get_task },
	{ HTTP_GET, "/v2/images/{}/tasks", get_image_tasks,
	  .flags = ROUTE_NO_BODY },
	{ 0 },
};
