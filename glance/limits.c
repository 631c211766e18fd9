/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "glance/json-file.h"
#include "glance/json-in.h"
#include "glance/limits.h"

#define NO_LIMIT (-1)

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
	struct json_file file;
	json_t *all; /* checked */
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

int limits_open(const char *path, struct limits **ret, struct error *err)
{
	struct limits *l;
	int r;

	*ret = NULL;
	if (!path)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&l->lock, NULL);
	r = json_file_open(&l->file, path, err);
	if (r < 0)
		error_prefix(err, "limits");
	else
		r = load(l, err);
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
	json_decref(l->all);
	json_file_done(&l->file);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int64_t limit_of(struct limits *l, const char *project, enum limit what)
{
	struct error why = { 0 };
	const json_t *v;
	int64_t n;

	pthread_mutex_lock(&l->lock);
	if (json_file_changed(&l->file) && load(l, &why) < 0 &&
	    !l->file.complained) {
		fprintf(stderr, "platter: %s; the limits before are in force\n",
			why.msg);
		l->file.complained = true;
	}
	v = project ? json_object_get(json_object_get(l->all, project),
				      limits[what].name)
		    : NULL;
	if (!v)
		v = json_object_get(json_object_get(l->all, "default"),
				    limits[what].name);
	n = v ? json_integer_value(v) : NO_LIMIT;
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
		*ret = (uint64_t)sqlite3_column_int64(st, 0);
	return r < 0 ? r : 0;
}

int limits_check(struct limits *l, struct index_tx *tx, const char *project,
		 enum limit what, uint64_t more, struct error *err)
{
	int64_t max = l ? limit_of(l, project, what) : NO_LIMIT;
	uint64_t used = 0;
	int r;

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
