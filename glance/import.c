/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POST /v2/images/ID/import, and what its task does afterwards.
 *
 * The request makes the image importing and the task pending in one step. The
 * image's property os_glance_import_task says whose the image is until the
 * task ends: active, or queued again with nothing left of the data. A server
 * that ends in between leaves both as they are, and the next begins the task
 * anew.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/bury.h"
#include "glance/copies.h"
#include "glance/fetch.h"
#include "glance/glance-download.h"
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/import-methods.h"
#include "glance/import-state.h"
#include "glance/import.h"
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/limits.h"
#include "glance/log.h"
#include "glance/record-rows.h"
#include "glance/recover.h"
#include "glance/routes.h"
#include "glance/stores.h"
#include "glance/task-tokens.h"
#include "glance/tombstone.h"
#include "glance/upload.h"
#include "glance/worker.h"

/* How often it is looked whether the image is still there. */
#define LOOK_NSEC 500000000U

/* ---- the request ---- */

struct import {
	struct glance *g;
	struct request *q;
	const json_t *body;
	enum import_method method;
	const char *uri;
	struct error uri_error; /* what is wrong with it */
	struct error method_error; /* with what glance-download is told */
	char task_id[37]; /* whose token is kept; "": none's */
	const char *keys[MORE_STORES_MAX + 1]; /* of the stores it is for */
	size_t n_keys;
	bool all; /* the client says: all stores */
};

static int check_flag(const json_t *body, const char *name, struct error *err)
{
	const json_t *v = json_object_get(body, name);

	if (!v || json_is_boolean(v))
		return 0;
	return error_set(err, -EINVAL, 0, "'%s' must be boolean value only",
			 name);
}

static int add_store(struct import *i, const char *name, struct error *err)
{
	const char *key = stores_key_of(i->g, name);
	size_t n;

	if (!key)
		return error_set(err, -EEXIST, 0,
				 "Store for identifier %.64s not found", name);
	for (n = 0; n < i->n_keys; n++)
		if (!strcmp(i->keys[n], key))
			return 0;
	i->keys[i->n_keys++] = key;
	return 0;
}

/*
 * "all_stores", "stores", X-Image-Meta-Store, or the first. Where there is one
 * store nobody hears of any.
 */
static int parse_stores(struct import *i, struct error *err)
{
	const json_t *list = json_object_get(i->body, "stores"), *v;
	const char *header = request_header(i->q, "X-Image-Meta-Store");
	const char *key;
	size_t n;
	int r = 0;

	i->all = json_is_true(json_object_get(i->body, "all_stores"));
	if (stores_many(i->g) && list && !json_is_array(list))
		return error_set(err, -EINVAL, 0, "'stores' must be a list");
	if (stores_many(i->g) && i->all && json_array_size(list))
		return error_set(err, -EINVAL, 0,
				 "All_stores parameter can't be used with "
				 "x-image-meta-store header or 'stores' in the "
				 "request body.");
	if (stores_many(i->g) && i->all)
		for (n = 0; (key = stores_key(i->g, n)); n++)
			i->keys[i->n_keys++] = key;
	else if (stores_many(i->g))
		json_array_foreach((json_t *)list, n, v)
			if (r >= 0)
				r = json_is_string(v)
					    ? add_store(i, json_string_value(v),
							err)
					    : error_set(err, -EINVAL, 0,
							"a store is named by a "
							"string");
	if (r >= 0 && !i->n_keys && stores_many(i->g) && header)
		r = add_store(i, header, err);
	if (!i->n_keys)
		i->keys[i->n_keys++] = "";
	return r;
}

static int parse_body(struct import *i, struct error *err)
{
	const json_t *method = json_object_get(i->body, "method");
	const char *name = json_member(method, "name");
	int r;

	if (!method)
		return error_set(err, -EINVAL, 0,
				 "Import request requires a 'method' field.");
	if (!name)
		return error_set(err, -EINVAL, 0,
				 "Import request requires a 'name' field.");
	if (!import_method_by_name(i->g, name, &i->method))
		return error_set(err, -EINVAL, 0,
				 "Unknown import method name '%.64s'.", name);
	i->uri = json_member(method, "uri");
	r = check_flag(i->body, "all_stores_must_succeed", err);
	if (r >= 0)
		r = check_flag(i->body, "all_stores", err);
	return r < 0 ? r : parse_stores(i, err);
}

static int check_status(const struct import *i, const struct record *image,
			struct error *err)
{
	const char *method = import_method_name(i->method);

	if (i->method == IMPORT_COPY_IMAGE && image->status != IMAGE_ACTIVE)
		return error_set(err, -EEXIST, 0,
				 "Only images with status active can be "
				 "targeted for copying");
	if (i->method == IMPORT_COPY_IMAGE)
		return record_property(image, IMPORT_LOCK)
			       ? error_set(err, -EEXIST, 0,
					   "Image has active task")
			       : 0;
	if (image->status == IMAGE_ACTIVE)
		return error_set(err, -EEXIST, 0,
				 "Image with status active cannot be target "
				 "for import");
	if (record_property(image, IMPORT_LOCK))
		return error_set(err, -EEXIST, 0, "Image has active task");
	if ((i->method == IMPORT_WEB_DOWNLOAD ||
	     i->method == IMPORT_GLANCE_DOWNLOAD) &&
	    image->status != IMAGE_QUEUED)
		return error_set(err, -EEXIST, 0,
				 "Image needs to be in 'queued' state to use "
				 "'%s' method",
				 method);
	if (i->method == IMPORT_GLANCE_DIRECT &&
	    image->status != IMAGE_UPLOADING)
		return error_set(err, -EEXIST, 0,
				 "Image needs to be staged before '%s' method "
				 "can be used",
				 method);
	return 0;
}

static int check_image(const struct import *i, const struct record *image,
		       struct error *err)
{
	int r = check_status(i, image, err);

	if (r < 0)
		return r;
	if (!image->container_format || !image->disk_format)
		return error_set(err, -EEXIST, 0,
				 "'%s' needs to be set before import",
				 image->container_format ? "disk_format"
							 : "container_format");
	if (i->method_error.code)
		return error_set(err, i->method_error.code, 0, "%s",
				 i->method_error.msg);
	if (i->method == IMPORT_COPY_IMAGE
		    ? !i->q->who.admin
		    : !image_may_change(&i->q->who, image))
		return error_set(err, -EPERM, 0,
				 "You are not authorized to complete %s "
				 "action.",
				 i->method == IMPORT_COPY_IMAGE
					 ? "copy_image"
					 : "modify_image");
	return 0;
}

/* Staging is over: all of the data lie there, not only some. */
static int check_staged(const struct import *i, const struct record *image,
			struct error *err)
{
	if (i->method != IMPORT_GLANCE_DIRECT ||
	    (image->has_size && store_has_staged(i->g->store, image->id)))
		return 0;
	return error_set(err, -EEXIST, 0,
			 "Image needs to be staged before 'glance-direct' "
			 "method can be used");
}

static int check_uri(const struct import *i, struct error *err)
{
	if (i->method != IMPORT_WEB_DOWNLOAD || !i->uri_error.code)
		return 0;
	return error_set(err, -EINVAL, 0,
			 "URI for web-download does not pass filtering: %.256s",
			 i->uri ? i->uri : "None");
}

/* By their names, or null. */
static json_t *store_names(const struct import *i)
{
	json_t *list = json_array();
	size_t n;

	for (n = 0; n < i->n_keys; n++)
		json_array_append_new(list, stores_many(i->g)
						    ? json_string(stores_name(
							      i->g, i->keys[n]))
						    : json_null());
	return list;
}

static char *task_input(const struct import *i, const char *image_id)
{
	json_t *j = json_pack("{s:s, s:O, s:o}", "image_id", image_id,
			      "import_req", i->body, "backend", store_names(i));
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	return text;
}

static int fill_task(const struct import *i, const char *image_id,
		     struct task *t, struct error *err)
{
	int r = record_set(&t->type, TASK_API_IMPORT, err);

	if (r >= 0)
		r = record_set(&t->owner, i->q->who.project, err);
	if (r >= 0)
		r = record_set(&t->user_id, i->q->who.user, err);
	if (r >= 0)
		r = record_set(&t->request_id, i->q->id, err);
	if (r >= 0)
		r = record_set(&t->image_id, image_id, err);
	t->input = task_input(i, image_id);
	if (r >= 0 && !t->input)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	return r;
}

/* The image is the task's. */
static int lock_image(struct record *image, const char *task,
		      const char *stores, struct error *err)
{
	int r = record_set_property(image, IMPORT_LOCK, task, err);

	if (r >= 0)
		r = record_set_property(image, IMPORT_TO_COME, stores, err);
	if (r >= 0)
		r = record_set_property(image, IMPORT_FAILED, "", err);
	return r;
}

/* As the image's property has them: where there is one, nobody hears of it. */
static char *names_of(const struct import *i)
{
	struct text_buf b = { 0 };
	size_t n;

	text_add(&b, "");
	for (n = 0; n < i->n_keys && stores_many(i->g); n++)
		text_addf(&b, "%s%s", n ? "," : "",
			  stores_name(i->g, i->keys[n]));
	return text_buf_take(&b);
}

/* Of the stores those that have it not are left. */
static int drop_present(struct import *i, const struct record *image,
			struct error *err)
{
	size_t n, kept = 0;

	for (n = 0; n < i->n_keys; n++) {
		if (!record_is_in(image, i->keys[n]))
			i->keys[kept++] = i->keys[n];
		else if (!i->all)
			return error_set(err, -EINVAL, 0,
					 "Image is already present at store "
					 "'%s'",
					 stores_name(i->g, i->keys[n]));
	}
	i->n_keys = kept;
	return 0;
}

/* The task goes on in the name of who asked for it. */
static int keep_token(struct import *i, const char *task, struct error *err)
{
	const char *token = request_header(i->q, "X-Auth-Token");

	if (i->method != IMPORT_GLANCE_DOWNLOAD)
		return 0;
	snprintf(i->task_id, sizeof(i->task_id), "%s", task);
	return task_tokens_put(i->g->tokens, task, i->q->who.project,
			       token ? token : "", err);
}

static void forget_token(const struct import *i)
{
	CLEANUP(task_token_freep)
	char *token = task_tokens_take(i->g->tokens, i->task_id);
}

static int begin_import(struct index_tx *tx, void *opaque, struct error *err)
{
	struct import *i = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(task_done) struct task t = { 0 };
	CLEANUP(freep) char *names = NULL;
	int r = limits_check(i->g->limits, tx, i->q->who.project,
			     LIMIT_SIZE_TOTAL, 0, err);

	if (r >= 0)
		r = image_load(tx, &i->q->who, i->q->uri.segments[2], &image,
			       err);
	if (r >= 0)
		r = check_image(i, &image, err);
	if (r >= 0)
		r = check_staged(i, &image, err);
	if (r >= 0)
		r = check_uri(i, err);
	if (r >= 0 && i->method == IMPORT_COPY_IMAGE)
		r = drop_present(i, &image, err);
	if (r < 0 || !i->n_keys)
		return r;
	r = fill_task(i, image.id, &t, err);
	if (r >= 0)
		r = task_insert(tx, &t, err);
	if (r >= 0)
		r = keep_token(i, t.id, err);
	names = names_of(i);
	if (r >= 0)
		r = lock_image(&image, t.id, names ? names : "", err);
	if (i->method != IMPORT_COPY_IMAGE)
		image.status = IMAGE_IMPORTING;
	return r < 0 ? r : record_update(tx, &image, err);
}

static void post_import(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	struct import i = { .g = g, .q = q, .body = body };
	struct error err = { 0 };
	int r;

	if (!body)
		return;
	r = parse_body(&i, &err);
	if (r >= 0 && i.method == IMPORT_WEB_DOWNLOAD) {
		if (i.uri)
			fetch_check(g->fetch, i.uri, &i.uri_error);
		else
			error_set(&i.uri_error, -EINVAL, 0, "there is none");
	}
	if (r >= 0 && i.method == IMPORT_GLANCE_DOWNLOAD)
		glance_download_check(json_object_get(body, "method"),
				      &i.method_error);
	if (r >= 0)
		r = index_write(g->index, begin_import, &i, &err);
	if (r < 0) {
		forget_token(&i);
		respond_failure(q, &err);
		return;
	}
	worker_wake(g->worker);
	respond_empty(q, 202);
}

/* ---- the task ---- */

struct run {
	struct glance *g;
	const struct task *task;
	struct worker *worker;
	const json_t *input;
	char image_id[37];
	struct upload *upload; /* where a download goes */
	const char *message; /* of the failure */
	uint64_t looked_nsec; /* at the image, last */
	bool gone; /* the image: somebody has deleted it */
	bool deleted; /* the image, with the task */
	const char *keys[MORE_STORES_MAX + 1]; /* of the stores it is for */
	size_t n_keys;
	bool all; /* each of them must have it */
	bool copies; /* the image is, and stays, active */
	bool downloads;
	char *token; /* of who asked for it; NULL: it was not kept */
};

static int add_bytes(void *opaque, const void *data, size_t len,
		     struct error *err)
{
	const struct run *r = opaque;

	return upload_add(r->upload, data, len, err);
}

/* 1: the image is not there yet; 0: it is, and active: a server before us. */
static int look_at_image(struct run *r, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	int code = index_read(r->g->index, &tx, err);

	if (code >= 0)
		code = record_load(tx, r->image_id, &image, err);
	if (code < 0)
		return code;
	if (!import_owns(&image, r->task->id))
		return error_set(err, -EEXIST, 0,
				 "the image is not this task's any more");
	return image.status == IMAGE_ACTIVE && !r->copies ? 0 : 1;
}

/* What takes long asks this about once a second, or more often. */
static bool ends(void *opaque)
{
	struct run *r = opaque;
	struct error err = { 0 };
	uint64_t now = now_nsec();
	int code;

	if (worker_ends(r->worker))
		return true;
	if (now - r->looked_nsec < LOOK_NSEC)
		return r->gone;
	r->looked_nsec = now;
	code = look_at_image(r, &err);
	r->gone = code == -ENOENT || code == -EEXIST;
	return r->gone;
}

static int download(struct run *r, const char *uri, struct error *err)
{
	const struct fetch_sink sink = { add_bytes, ends, r };
	CLEANUP(upload_freep) struct upload *u = NULL;
	int code =
		upload_begin(r->g, NULL, r->image_id, UPLOAD_IMPORT, &u, err);

	r->upload = u;
	r->downloads = true;
	if (code >= 0)
		code = upload_set_stores(u, r->keys, r->n_keys, r->all, err);
	if (code >= 0)
		code = fetch(r->g->fetch, uri, &sink, err);
	return code < 0 ? code : upload_finish(u, NULL, NULL, err);
}

static int copy_far(struct run *r, const struct far_image *f, struct error *err)
{
	const struct fetch_sink sink = { add_bytes, ends, r };
	CLEANUP(upload_freep) struct upload *u = NULL;
	int code =
		upload_begin(r->g, NULL, r->image_id, UPLOAD_IMPORT, &u, err);

	r->upload = u;
	if (code >= 0)
		code = upload_set_stores(u, r->keys, r->n_keys, r->all, err);
	if (code >= 0)
		code = upload_set_original(u, f->fields, f->sha512, err);
	if (code >= 0)
		code = glance_download_data(r->g, f, &sink, err);
	return code < 0 ? code : upload_finish(u, &f->size, f->md5, err);
}

static int download_image(struct run *r, const json_t *method,
			  struct error *err)
{
	CLEANUP(far_image_done) struct far_image f = { 0 };
	int code;

	r->downloads = true;
	if (!r->token)
		return error_set(err, -EACCES, 0,
				 "the service was started again meanwhile, and "
				 "keeps no tokens: ask for the import once "
				 "more");
	code = glance_download_find(r->g, method, r->token, ends, r, &f, err);
	return code < 0 ? code : copy_far(r, &f, err);
}

static int take_staged(struct run *r, struct error *err)
{
	CLEANUP(upload_freep) struct upload *u = NULL;
	int code =
		upload_begin(r->g, NULL, r->image_id, UPLOAD_STAGED, &u, err);

	if (code >= 0)
		code = upload_set_stores(u, r->keys, r->n_keys, r->all, err);
	if (code >= 0)
		code = upload_read_staged(u, ends, r, err);
	return code < 0 ? code : upload_finish(u, NULL, NULL, err);
}

/* Those that the image is in already are of a server before us. */
static int find_stores(struct run *r, struct error *err)
{
	const json_t *list = json_object_get(r->input, "backend");
	const json_t *must =
		json_object_get(json_object_get(r->input, "import_req"),
				"all_stores_must_succeed");
	size_t i, n = min_u64(json_array_size(list), ARRAY_SIZE(r->keys));

	r->all = !json_is_false(must);
	for (i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(list, i));

		r->keys[i] = name ? stores_key_of(r->g, name) : "";
		if (!r->keys[i])
			return error_set(err, -ENOENT, 0,
					 "Store for identifier %.64s not found",
					 name);
	}
	r->n_keys = n;
	if (!n)
		r->keys[r->n_keys++] = "";
	return 0;
}

struct step {
	struct run *r;
	const char *key;
};

/* A copy that will not come. */
static int say_failed(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct step *s = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int code = record_load(tx, s->r->image_id, &image, err);

	if (code >= 0)
		code = import_reached(&image, stores_name(s->r->g, s->key),
				      false, err);
	return code < 0 ? code : record_update(tx, &image, err);
}

/* One that came, while another that had to come as well did not. */
static int take_back(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct step *s = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int code = record_load(tx, s->r->image_id, &image, err);

	if (code >= 0)
		code = copies_forget(s->r->g, tx, &image, s->key, err);
	return code < 0 ? code : record_update(tx, &image, err);
}

static void take_all_back(struct run *r, size_t n)
{
	struct step s = { .r = r };

	while (n--) {
		s.key = r->keys[n];
		index_write(r->g->index, take_back, &s, NULL);
	}
	copies_sweep(r->g, r->image_id);
}

static int copy_to_all(struct run *r, struct error *err)
{
	struct step s = { .r = r };
	size_t i, good = 0;
	int code = 0;

	for (i = 0; i < r->n_keys; i++) {
		struct error why = { 0 };

		s.key = r->keys[i];
		code = copies_add(r->g, r->image_id, s.key, r->task->id, ends,
				  r, &why);
		good += code >= 0;
		if (code >= 0)
			continue;
		error_clear(err);
		error_set(err, code, 0, "%s", why.msg);
		if (code == -ECANCELED)
			return code;
		index_write(r->g->index, say_failed, &s, NULL);
		if (r->all) {
			take_all_back(r, i);
			return code;
		}
	}
	return good ? 0 : code;
}

static int run_method(struct run *r, enum import_method m, const json_t *method,
		      struct error *err)
{
	const char *uri = json_member(method, "uri");

	switch (m) {
	case IMPORT_COPY_IMAGE:
		return copy_to_all(r, err);
	case IMPORT_GLANCE_DIRECT:
		return take_staged(r, err);
	case IMPORT_GLANCE_DOWNLOAD:
		return download_image(r, method, err);
	default:
		return uri ? download(r, uri, err)
			   : error_set(err, -EINVAL, 0, "there is no uri");
	}
}

static int run_api_import(struct run *r, struct error *err)
{
	const json_t *method = json_object_get(
		json_object_get(r->input, "import_req"), "method");
	const char *name = json_member(method, "name");
	enum import_method m;
	int code = find_stores(r, err);

	if (code >= 0 && (!name || !import_method_by_name(r->g, name, &m)))
		code = error_set(err, -EINVAL, 0,
				 "the task's input names no method that there "
				 "is");
	if (code < 0)
		return code;
	r->copies = m == IMPORT_COPY_IMAGE;
	code = look_at_image(r, err);
	return code <= 0 ? code : run_method(r, m, method, err);
}

/* ---- an administrator's: the image is made first ---- */

static int make_image(struct index_tx *tx, void *opaque, struct error *err)
{
	struct run *r = opaque;
	const json_t *properties =
		json_object_get(r->input, "image_properties");
	const struct identity who = { .project = r->task->owner,
				      .user = r->task->user_id,
				      .admin = true,
				      .member = true };
	CLEANUP(record_done) struct record image = { 0 };
	int code = image_from_json(&who, properties, &image, err);

	if (code >= 0 && !image.disk_format)
		code = record_set(&image.disk_format, "qcow2", err);
	if (code >= 0 && !image.container_format)
		code = record_set(&image.container_format, "bare", err);
	if (code >= 0)
		code = lock_image(&image, r->task->id, "", err);
	image.status = IMAGE_IMPORTING;
	if (code >= 0)
		code = glance_check_id(r->g, image.id, err);
	if (code >= 0)
		code = record_insert(tx, &image, err);
	if (code >= 0)
		code = task_set_image(tx, r->task->id, image.id, err);
	if (code >= 0)
		snprintf(r->image_id, sizeof(r->image_id), "%s", image.id);
	return code;
}

static int run_admin_import(struct run *r, struct error *err)
{
	const char *uri = json_member(r->input, "import_from");
	int code;

	if (!*r->image_id) {
		code = index_write(r->g->index, make_image, r, err);
		if (code < 0)
			return code;
	}
	code = look_at_image(r, err);
	r->keys[0] = "";
	r->n_keys = 1;
	r->all = true;
	if (code <= 0)
		return code;
	return uri ? download(r, uri, err)
		   : error_set(err, -EINVAL, 0, "there is no import_from");
}

/* ---- its end ---- */

static int load_locked(struct index_tx *tx, const struct run *r,
		       struct record *image)
{
	if (!*r->image_id || record_load(tx, r->image_id, image, NULL) < 0)
		return 0;
	return import_owns(image, r->task->id);
}

static int end_well(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct run *r = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	char result[64];
	int code = 0;

	if (load_locked(tx, r, &image)) {
		record_remove_property(&image, IMPORT_LOCK);
		code = record_update(tx, &image, err);
	}
	snprintf(result, sizeof(result), "{\"image_id\": \"%s\"}", r->image_id);
	if (code >= 0)
		code = tombstone_drop(tx, TOMBSTONE_STAGED, r->image_id, err);
	return code < 0 ? code
			: task_end(tx, r->task->id, TASK_SUCCESS, result, "",
				   err);
}

/* The stores that were asked for will not get what could not be fetched. */
static int say_all_failed(const struct run *r, struct record *image,
			  struct error *err)
{
	size_t i;
	int code = 0;

	if (!r->downloads || !record_property(image, IMPORT_TO_COME))
		return 0;
	for (i = 0; i < r->n_keys && code >= 0; i++)
		code = import_reached(image, stores_name(r->g, r->keys[i]),
				      false, err);
	return code;
}

/* @image is as it was before. */
static int give_up(struct run *r, struct record *image, struct error *err)
{
	record_remove_property(image, IMPORT_LOCK);
	if (r->copies)
		return 0;
	image->status = IMAGE_QUEUED;
	image->has_size = false;
	return say_all_failed(r, image, err);
}

static int end_badly(struct index_tx *tx, void *opaque, struct error *err)
{
	struct run *r = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int code = tombstone_drop(tx, TOMBSTONE_STAGED, r->image_id, err);

	if (code >= 0 && load_locked(tx, r, &image)) {
		code = give_up(r, &image, err);
		r->deleted = !strcmp(r->task->type, TASK_IMPORT);
		if (code >= 0)
			code = r->deleted ? record_delete(tx, &image, err)
					  : record_update(tx, &image, err);
	}
	return code < 0 ? code
			: task_end(tx, r->task->id, TASK_FAILURE, NULL,
				   r->message, err);
}

static int bury_staged(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct run *r = opaque;

	return tombstone_add(tx, TOMBSTONE_STAGED, r->image_id, err);
}

/* They are the image's by now, or nobody's; new ones cannot come yet. */
static int drop_staged(struct run *r, struct error *err)
{
	int code;

	if (!*r->image_id || !store_has_staged(r->g->store, r->image_id))
		return 0;
	code = index_write(r->g->index, bury_staged, r, err);
	if (code >= 0)
		store_discard(r->g->store, STORE_STAGING, r->image_id);
	return code;
}

static void end(struct run *r, int code, const struct error *why)
{
	struct error err = { 0 };
	int r2;

	r->message = why->msg;
	r2 = drop_staged(r, &err);
	if (r2 >= 0)
		r2 = index_write(r->g->index, code < 0 ? end_badly : end_well,
				 r, &err);
	if (r2 < 0)
		log_line("task %s: %s", r->task->id, err.msg);
	else if (r->deleted)
		glance_bury(r->g, r->image_id);
}

void import_run(struct glance *g, const struct task *t, struct worker *w)
{
	CLEANUP(json_in_freep) json_t *input = NULL;
	struct run r = { .g = g, .task = t, .worker = w };
	struct error err = { 0 };
	int code = json_in_parse(t->input, strlen(t->input), &input, &err);

	r.input = input;
	r.token = task_tokens_take(g->tokens, t->id);
	if (t->image_id)
		snprintf(r.image_id, sizeof(r.image_id), "%s", t->image_id);
	if (code >= 0)
		code = !strcmp(t->type, TASK_IMPORT)
			       ? run_admin_import(&r, &err)
			       : run_api_import(&r, &err);
	if (code == -ECANCELED && r.gone) {
		error_clear(&err);
		code = error_set(&err, -ENOENT, 0,
				 "Image %s was deleted while its data came",
				 r.image_id);
	}
	if (code != -ECANCELED)
		end(&r, code, &err);
	task_token_freep(&r.token);
}

int import_reset(struct index_tx *tx, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = task_reset(tx, err);

	if (r >= 0)
		r = index_sql(tx,
			      "UPDATE images SET status = 'queued', size = NULL"
			      " WHERE status = 'importing' AND NOT EXISTS ("
			      "SELECT 1 FROM tasks WHERE image_id = images.id"
			      " AND tasks.status = 'pending')",
			      &st, err);
	return r < 0 ? r : index_run(st, err);
}

const struct route import_routes[] = {
	{ HTTP_POST, "/v2/images/{}/import", post_import },
	{ 0 },
};
