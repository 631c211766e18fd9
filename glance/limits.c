/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "glance/http/json-file.h"
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/keystone.h"
#include "glance/limits.h"
#include "glance/log.h"

#define NO_LIMIT	(-1)
#define UNKNOWN		(-2) /* Keystone's */
#define REFRESH_SEC	60U
#define REFRESH_SEC_MAX 86400U
/* How long the start waits for what Keystone says first. */
#define FIRST_SEC	2

#define COUNT_OF(where) \
	"SELECT count(*) FROM images WHERE owner IS ? AND (" where ")"
#define SIZE_OF(where)                                              \
	"SELECT ifnull(sum(size), 0) >> 20 FROM images WHERE owner" \
	" IS ? AND (" where ")"

static const struct {
	const char *name;
	const char *usage;
} limits[LIMITS] = {
	[LIMIT_SIZE_TOTAL] = { "image_size_total",
			       SIZE_OF("status IN ('active', 'deactivated')") },
	[LIMIT_STAGE_TOTAL] = { "image_stage_total",
				SIZE_OF("status IN ('uploading', "
					"'importing')") },
	[LIMIT_COUNT_TOTAL] = { "image_count_total",
				COUNT_OF("status <> 'killed'") },
	[LIMIT_COUNT_UPLOADING] = { "image_count_uploading",
				    COUNT_OF("status IN ('saving', "
					     "'uploading', 'importing')") },
};

struct limits {
	pthread_mutex_t lock; /* the rest */
	struct json_file file; /* unless they are Keystone's */
	json_t *all; /* checked; NULL: not known yet */

	bool from_keystone;
	struct keystone *keystone;
	unsigned int refresh_sec;
	pthread_t refresher;
	bool running;
	bool asked; /* once at least */
	bool stop;
	pthread_cond_t cond; /* asked, stop */
	char said[ERROR_MSG_BYTES]; /* the last failure, told once */
};

static int find(const char *name)
{
	int i;

	for (i = 0; i < LIMITS && strcmp(limits[i].name, name); i++)
		;
	return i;
}

static int check_project(const char *project, const json_t *of,
			 struct error *err)
{
	const char *name;
	json_t *v;

	if (!json_is_object(of))
		return error_set(err, -EINVAL, 0,
				 "what \"%.64s\" may have is no object",
				 project);
	json_object_foreach((json_t *)of, name, v) {
		if (find(name) == LIMITS)
			return error_set(err, -EINVAL, 0,
					 "\"%.64s\" of \"%.64s\" is no limit",
					 name, project);
		if (!json_is_integer(v) || json_integer_value(v) < NO_LIMIT)
			return error_set(err, -EINVAL, 0,
					 "\"%.64s\" of \"%.64s\" is a number, "
					 "or -1 for no limit",
					 name, project);
	}
	return 0;
}

static int load(struct limits *l, struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	const char *project;
	json_t *of;
	int r = json_file_read(&l->file, &all, err);

	if (r >= 0 && !json_is_object(all))
		r = error_set(err, -EINVAL, 0, "is no JSON object");
	json_object_foreach(all, project, of) {
		if (r >= 0)
			r = check_project(project, of, err);
	}
	if (r < 0) {
		error_prefix(err, "limits: %s", l->file.path);
		return r;
	}
	json_decref(l->all);
	l->all = TAKE_PTR(all);
	l->file.complained = false;
	return 0;
}

/* ---- Keystone's ---- */

/* What there is at @path, the member of its own name. */
static int get_list(struct limits *l, const char *path, const char *service,
		    const char *name, json_t **ret, struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	CLEANUP(freep) char *full = NULL;
	int r;

	if (asprintf(&full, "%s%s", path, service) < 0) {
		full = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = keystone_get(l->keystone, full, &all, err);
	if (r >= 0)
		*ret = json_incref(json_object_get(all, name));
	return r;
}

static void take_limit(json_t *all, const char *project, const char *name,
		       const json_t *value)
{
	json_t *of = json_object_get(all, project);

	/* Of another service's, or another time's. */
	if (!name || find(name) == LIMITS || !json_is_integer(value))
		return;
	if (!of) {
		of = json_object();
		json_object_set_new(all, project, of);
	}
	json_object_set_new(of, name, json_integer(json_integer_value(value)));
}

static int ask(struct limits *l, json_t *all, struct error *err)
{
	CLEANUP(json_decrefp) json_t *services = NULL;
	CLEANUP(json_decrefp) json_t *registered = NULL;
	CLEANUP(json_decrefp) json_t *own = NULL;
	const char *id, *project;
	json_t *v;
	size_t i;
	int r = get_list(l, "services?type=image", "", "services", &services,
			 err);

	if (r < 0)
		return r;
	id = json_member(json_array_get(services, 0), "id");
	if (!id || strspn(id, "0123456789abcdefABCDEF-") != strlen(id))
		return error_set(err, -EAGAIN, 0,
				 "Keystone knows no image service");
	r = get_list(l, "registered_limits?service_id=", id,
		     "registered_limits", &registered, err);
	if (r >= 0)
		r = get_list(l, "limits?service_id=", id, "limits", &own, err);
	if (r < 0)
		return r;
	json_array_foreach(registered, i, v) {
		take_limit(all, "default", json_member(v, "resource_name"),
			   json_object_get(v, "default_limit"));
	}
	json_array_foreach(own, i, v) {
		project = json_member(v, "project_id");
		if (project)
			take_limit(all, project,
				   json_member(v, "resource_name"),
				   json_object_get(v, "resource_limit"));
	}
	return 0;
}

/* What was known stays in force where Keystone does not answer. */
static void refresh(struct limits *l)
{
	json_t *all = json_object(), *old;
	struct error err = { 0 };

	if (ask(l, all, &err) < 0) {
		json_decref(all);
		if (strcmp(err.msg, l->said) != 0)
			log_line("limits: %s", err.msg);
		snprintf(l->said, sizeof(l->said), "%s", err.msg);
		return;
	}
	*l->said = '\0';
	pthread_mutex_lock(&l->lock);
	old = l->all;
	l->all = all;
	pthread_mutex_unlock(&l->lock);
	json_decref(old);
}

/* @sec from now, for pthread_cond_timedwait(). */
static struct timespec in_sec(unsigned int sec)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += sec;
	return until;
}

static void *keep_fresh(void *opaque)
{
	struct limits *l = opaque;
	struct timespec until;

	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		pthread_mutex_unlock(&l->lock);
		refresh(l);
		pthread_mutex_lock(&l->lock);
		l->asked = true;
		pthread_cond_broadcast(&l->cond);
		until = in_sec(l->refresh_sec);
		while (!l->stop &&
		       !pthread_cond_timedwait(&l->cond, &l->lock, &until))
			;
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int limits_start(struct limits *l, struct keystone *k, struct error *err)
{
	struct timespec until;

	if (!l || !l->from_keystone)
		return 0;
	if (!k)
		return error_set(err, -EINVAL, 0,
				 "limits=keystone needs auth=keystone:URL");
	l->keystone = k;
	if (pthread_create(&l->refresher, NULL, keep_fresh, l))
		return error_set(err, -EAGAIN, 0, "limits: no thread");
	l->running = true;
	/* Without them what needs them is 503; all else need not wait. */
	until = in_sec(FIRST_SEC);
	pthread_mutex_lock(&l->lock);
	while (!l->asked && !pthread_cond_timedwait(&l->cond, &l->lock, &until))
		;
	pthread_mutex_unlock(&l->lock);
	return 0;
}

static int take_keystone(struct limits *l, const char *where, struct error *err)
{
	unsigned long n = REFRESH_SEC;
	char *end = NULL;

	if (where[8] == ':')
		n = strtoul(where + 9, &end, 10);
	if (end && (end == where + 9 || *end || !n || n > REFRESH_SEC_MAX))
		return error_set(err, -EINVAL, 0,
				 "limits=keystone:SECONDS: 1 to %u, not "
				 "\"%.32s\"",
				 REFRESH_SEC_MAX, where + 9);
	l->from_keystone = true;
	l->refresh_sec = (unsigned int)n;
	return 0;
}

bool limits_are_keystones(const char *where)
{
	return !strncmp(where, "keystone", 8) && (!where[8] || where[8] == ':');
}

int limits_open(const char *path, struct limits **ret, struct error *err)
{
	pthread_condattr_t attr;
	struct limits *l;
	int r;

	*ret = NULL;
	if (!path)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (limits_are_keystones(path)) {
		r = take_keystone(l, path, err);
	} else {
		r = json_file_open(&l->file, path, err);
		if (r < 0)
			error_prefix(err, "limits");
		else
			r = load(l, err);
	}
	if (r < 0) {
		limits_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void limits_free(struct limits *l)
{
	if (!l)
		return;
	if (l->running) {
		pthread_mutex_lock(&l->lock);
		l->stop = true;
		pthread_cond_broadcast(&l->cond);
		pthread_mutex_unlock(&l->lock);
		pthread_join(l->refresher, NULL);
	}
	json_decref(l->all);
	if (!l->from_keystone)
		json_file_done(&l->file);
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int64_t limit_of(struct limits *l, const char *project, enum limit what)
{
	struct error why = { 0 };
	const json_t *v;
	int64_t n;

	pthread_mutex_lock(&l->lock);
	if (!l->from_keystone && json_file_changed(&l->file) &&
	    load(l, &why) < 0 && !l->file.complained) {
		log_line("%s; the limits before are in force", why.msg);
		l->file.complained = true;
	}
	v = project ? json_object_get(json_object_get(l->all, project),
				      limits[what].name)
		    : NULL;
	if (!v)
		v = json_object_get(json_object_get(l->all, "default"),
				    limits[what].name);
	n = v ? json_integer_value(v) : l->all ? NO_LIMIT : UNKNOWN;
	pthread_mutex_unlock(&l->lock);
	return n;
}

static int usage_of(struct index_tx *tx, const char *project, enum limit what,
		    uint64_t *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, limits[what].usage, &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, project);
	r = index_step(st, err);
	if (r > 0)
		*ret = (uint64_t)sqlite.column_int64(st, 0);
	return r < 0 ? r : 0;
}

int limits_check(struct limits *l, struct index_tx *tx, const char *project,
		 enum limit what, uint64_t more, struct error *err)
{
	int64_t max = l ? limit_of(l, project, what) : NO_LIMIT;
	uint64_t used = 0;
	int r;

	if (max == UNKNOWN)
		return error_set(err, -EAGAIN, 0,
				 "Keystone has not told yet what a project may "
				 "have");
	if (max == NO_LIMIT)
		return 0;
	r = usage_of(tx, project, what, &used, err);
	if (r < 0)
		return r;
	if (used <= (uint64_t)max && more <= (uint64_t)max - used)
		return 0;
	return error_set(
		err, -EDQUOT, 0,
		"The request returned a 413 Request Entity Too Large. This "
		"generally means that rate limiting or a quota threshold was "
		"breached. The response body: Project %.64s is over a limit "
		"for [Resource %s is over limit of %" PRId64
		" due to current usage %" PRIu64 " and delta %" PRIu64 "]",
		project ? project : "None", limits[what].name, max, used, more);
}

int limits_usage(struct limits *l, struct index_tx *tx, const char *project,
		 json_t **ret, struct error *err)
{
	json_t *all = json_object();
	uint64_t used = 0;
	int i, r = 0;

	for (i = 0; l && i < LIMITS && r >= 0; i++) {
		r = usage_of(tx, project, (enum limit)i, &used, err);
		json_object_set_new(
			all, limits[i].name,
			json_pack("{s:I, s:I}", "usage", (json_int_t)used,
				  "limit",
				  (json_int_t)limit_of(l, project,
						       (enum limit)i)));
	}
	if (r < 0) {
		json_decref(all);
		return r;
	}
	*ret = all;
	return 0;
}
