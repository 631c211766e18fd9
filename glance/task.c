/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/http/text-buf.h"
#include "glance/task.h"
#include "glance/time-text.h"

/* Glance's task_time_to_live, 48 hours. */
#define LIFE_USEC (48LL * 3600 * 1000000)

#define COLUMNS                                                           \
	"id, type, status, owner, image_id, request_id, user_id, input, " \
	"result, message, created_at, updated_at, expires_at"

enum {
	COL_CREATED = 10,
	COL_UPDATED,
	COL_EXPIRES,
};

void task_done(struct task *t)
{
	free(t->id);
	free(t->type);
	free(t->status);
	free(t->owner);
	free(t->image_id);
	free(t->request_id);
	free(t->user_id);
	free(t->input);
	free(t->result);
	free(t->message);
	*t = (struct task){ 0 };
}

static int forget_old(struct index_tx *tx, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "DELETE FROM tasks WHERE expires_at < ?", &st,
			  err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, time_now_usec());
	return index_run(st, err);
}

int task_insert(struct index_tx *tx, struct task *t, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	char id[37];
	int r = forget_old(tx, err);

	record_new_id(id);
	if (r >= 0)
		r = record_set(&t->id, id, err);
	if (r >= 0)
		r = record_set(&t->status, TASK_PENDING, err);
	if (r >= 0)
		r = index_sql(tx,
			      "INSERT INTO tasks (id, type, status, owner,"
			      " image_id, request_id, user_id, input,"
			      " created_at, updated_at)"
			      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			      &st, err);
	if (r < 0)
		return r;
	t->created_usec = t->updated_usec = time_now_usec();
	index_bind_text(st, 1, t->id);
	index_bind_text(st, 2, t->type);
	index_bind_text(st, 3, t->status);
	index_bind_text(st, 4, t->owner);
	index_bind_text(st, 5, t->image_id);
	index_bind_text(st, 6, t->request_id);
	index_bind_text(st, 7, t->user_id);
	index_bind_text(st, 8, t->input);
	sqlite.bind_int64(st, 9, t->created_usec);
	sqlite.bind_int64(st, 10, t->updated_usec);
	return index_run(st, err);
}

static int read_row(sqlite3_stmt *st, struct task *ret, struct error *err)
{
	struct task t = { 0 };
	char **const fields[] = { &t.id,      &t.type,	   &t.status,
				  &t.owner,   &t.image_id, &t.request_id,
				  &t.user_id, &t.input,	   &t.result,
				  &t.message };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		if (record_set(fields[i], index_text(st, (int)i), err) < 0) {
			task_done(&t);
			return -ENOMEM;
		}
	}
	t.created_usec = sqlite.column_int64(st, COL_CREATED);
	t.updated_usec = sqlite.column_int64(st, COL_UPDATED);
	t.has_expires = sqlite.column_type(st, COL_EXPIRES) != SQLITE_NULL;
	t.expires_usec = sqlite.column_int64(st, COL_EXPIRES);
	*ret = t;
	return 0;
}

int task_load(struct index_tx *tx, const char *id, struct task *ret,
	      struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT " COLUMNS " FROM tasks WHERE id = ?", &st,
			  err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	r = index_step(st, err);
	if (!r)
		return error_set(err, -ENOENT, 0, "No task found with ID %.64s",
				 id);
	return r < 0 ? r : read_row(st, ret, err);
}

/*
 * Those of Glance's table. Ties, and what was made in one second there, come in
 * the order in which they were made.
 */
static const struct {
	const char *key;
	const char *column;
} sorts[] = {
	{ "created_at", "n" },
	{ "id", "id" },
	{ "type", "type" },
	{ "status", "status" },
	{ "owner", "ifnull(owner, '')" },
	{ "expires_at", "ifnull(expires_at, 0)" },
	{ "updated_at", "updated_at" },
	{ "image_id", "ifnull(image_id, '')" },
	{ "request_id", "ifnull(request_id, '')" },
	{ "user_id", "ifnull(user_id, '')" },
	{ "deleted", "''" },
	{ "deleted_at", "''" },
};

static const char *column_of(const char *key)
{
	size_t i;

	for (i = 0; key && i < ARRAY_SIZE(sorts); i++)
		if (!strcmp(sorts[i].key, key))
			return sorts[i].column;
	return key ? NULL : "n";
}

bool task_sorts_by(const char *key)
{
	return column_of(key);
}

static int find_marker(struct index_tx *tx, const char *id, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT n FROM tasks WHERE id = ?", &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	r = index_step(st, err);
	return r ? r
		 : error_set(err, -EINVAL, 0, "No task found with ID %.64s",
			     id);
}

/* The statement of @f; what is in it is ours but for what is bound. */
static int prepare_list(struct index_tx *tx, const struct task_filter *f,
			sqlite3_stmt **ret, struct error *err)
{
	const char *column = column_of(f->sort_key);
	const char *dir = f->ascending ? "" : " DESC";
	struct text_buf b = { 0 };
	int r;

	text_add(&b, "SELECT " COLUMNS
		     " FROM tasks WHERE (?1 IS NULL OR image_id = ?1)"
		     " AND (?2 IS NULL OR status = ?2)"
		     " AND (?3 IS NULL OR type = ?3)");
	if (f->marker)
		text_addf(&b,
			  " AND (%s, n) %c (SELECT %s, n FROM tasks"
			  " WHERE id = ?4)",
			  column, f->ascending ? '>' : '<', column);
	text_addf(&b, " ORDER BY %s%s, n%s LIMIT ?5", column, dir, dir);
	r = b.failed ? error_set(err, -ENOMEM, 0, "out of memory")
		     : index_sql(tx, b.text, ret, err);
	text_buf_done(&b);
	return r;
}

int task_each(struct index_tx *tx, const struct task_filter *f,
	      int (*each)(void *opaque, struct task *t), void *opaque,
	      struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = f->marker ? find_marker(tx, f->marker, err) : 0;

	if (r >= 0)
		r = prepare_list(tx, f, &st, err);
	if (r < 0)
		return r;
	index_bind_text(st, 1, f->image_id);
	index_bind_text(st, 2, f->status);
	index_bind_text(st, 3, f->type);
	if (f->marker)
		index_bind_text(st, 4, f->marker);
	index_bind_u64(st, 5, f->limit);
	while ((r = index_step(st, err)) == 1) {
		CLEANUP(task_done) struct task t = { 0 };

		r = read_row(st, &t, err);
		if (r >= 0)
			r = each(opaque, &t);
		if (r)
			break;
	}
	return r;
}

static int set_status(struct index_tx *tx, const char *id, const char *status,
		      struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "UPDATE tasks SET status = ?, updated_at = ?"
			  " WHERE id = ?",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, status);
	sqlite.bind_int64(st, 2, time_now_usec());
	index_bind_text(st, 3, id);
	return index_run(st, err);
}

static int take_turns(struct index_tx *tx, unsigned int per_project,
		      struct task *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(
		tx,
		"SELECT " COLUMNS " FROM tasks WHERE n = (SELECT first FROM ("
		"SELECT min(CASE WHEN status = 'pending' THEN n END) AS first,"
		" sum(status = 'processing') AS busy,"
		" max(CASE WHEN status <> 'pending' THEN updated_at END) AS"
		" served FROM tasks GROUP BY owner) WHERE first IS NOT NULL"
		" AND busy < ? ORDER BY busy, served, first LIMIT 1)",
		&st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, per_project);
	r = index_step(st, err);
	if (r <= 0)
		return r;
	r = read_row(st, ret, err);
	return r < 0 ? r : 1;
}

int task_take(struct index_tx *tx, unsigned int per_project, struct task *ret,
	      struct error *err)
{
	int r = take_turns(tx, per_project, ret, err);

	if (r <= 0)
		return r;
	r = set_status(tx, ret->id, TASK_PROCESSING, err);
	if (r >= 0)
		r = record_set(&ret->status, TASK_PROCESSING, err);
	return r < 0 ? r : 1;
}

int task_reset(struct index_tx *tx, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "UPDATE tasks SET status = 'pending'"
			  " WHERE status = 'processing'",
			  &st, err);

	return r < 0 ? r : index_run(st, err);
}

int task_end(struct index_tx *tx, const char *id, const char *status,
	     const char *result, const char *message, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int64_t now = time_now_usec();
	int r = index_sql(tx,
			  "UPDATE tasks SET status = ?, result = ?,"
			  " message = ?, updated_at = ?, expires_at = ?"
			  " WHERE id = ?",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, status);
	index_bind_text(st, 2, result);
	index_bind_text(st, 3, message);
	sqlite.bind_int64(st, 4, now);
	sqlite.bind_int64(st, 5, now + LIFE_USEC);
	index_bind_text(st, 6, id);
	return index_run(st, err);
}

int task_set_image(struct index_tx *tx, const char *id, const char *image_id,
		   struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "UPDATE tasks SET image_id = ? WHERE id = ?", &st,
			  err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, image_id);
	index_bind_text(st, 2, id);
	return index_run(st, err);
}
