/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/record.h"
#include "glance/time-text.h"

bool member_status_ok(const char *status)
{
	return !strcmp(status, "pending") || !strcmp(status, "accepted") ||
	       !strcmp(status, "rejected");
}

int members_each(struct index_tx *tx, int64_t n,
		 int (*each)(void *opaque, const struct member *m),
		 void *opaque, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT member, status, created_at, updated_at, "
			  "can_share FROM "
			  "members WHERE image = ? ORDER BY created_at, member",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	while ((r = index_step(st, err)) == 1) {
		struct member m = { index_text(st, 0), index_text(st, 1),
				    sqlite.column_int(st, 4) != 0,
				    sqlite.column_int64(st, 2),
				    sqlite.column_int64(st, 3) };

		r = each(opaque, &m);
		if (r)
			return r;
	}
	return r;
}

int members_each_image(struct index_tx *tx, const char *project,
		       int (*each)(void *opaque, const char *image,
				   bool can_share),
		       void *opaque, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT images.id, can_share FROM members JOIN "
			  "images ON images.n = members.image WHERE member = ? "
			  "ORDER BY images.created_at, images.id",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, project);
	while ((r = index_step(st, err)) == 1) {
		r = each(opaque, index_text(st, 0),
			 sqlite.column_int(st, 1) != 0);
		if (r)
			return r;
	}
	return r;
}

int member_add(struct index_tx *tx, int64_t n, const char *project,
	       struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int64_t now = time_now_usec();
	int r = index_sql(tx,
			  "INSERT INTO members (image, member, created_at, "
			  "updated_at) VALUES (?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, project);
	sqlite.bind_int64(st, 3, now);
	sqlite.bind_int64(st, 4, now);
	r = index_run(st, err);
	return r < 0 ? r : record_touch(tx, n, err);
}

int member_put(struct index_tx *tx, int64_t n, const char *project,
	       bool can_share, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO members (image, member, status, "
			  "can_share, created_at, updated_at) VALUES (?1, ?2, "
			  "'accepted', ?3, ?4, ?4) ON CONFLICT DO UPDATE SET "
			  "can_share = ?3, updated_at = ?4",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, project);
	sqlite.bind_int(st, 3, can_share);
	sqlite.bind_int64(st, 4, time_now_usec());
	r = index_run(st, err);
	return r < 0 ? r : record_touch(tx, n, err);
}

int member_insert_as_is(struct index_tx *tx, int64_t n, const struct member *m,
			struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT OR REPLACE INTO members (image, member, "
			  "status, can_share, created_at, updated_at) VALUES "
			  "(?, ?, ?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, m->project);
	index_bind_text(st, 3, m->status);
	sqlite.bind_int(st, 4, m->can_share);
	sqlite.bind_int64(st, 5, m->created_usec);
	sqlite.bind_int64(st, 6, m->updated_usec);
	return index_run(st, err);
}

int members_forget(struct index_tx *tx, int64_t n, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "DELETE FROM members WHERE image = ?", &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	return index_run(st, err);
}

int members_clear(struct index_tx *tx, int64_t n, struct error *err)
{
	int r = members_forget(tx, n, err);

	return r < 0 ? r : record_touch(tx, n, err);
}

static int changed_one(struct index_tx *tx, int64_t n, const char *project,
		       struct error *err)
{
	if (index_changes(tx))
		return record_touch(tx, n, err);
	return error_set(err, -ENOENT, 0, "%.64s is not a member of the image.",
			 project);
}

int member_set_status(struct index_tx *tx, int64_t n, const char *project,
		      const char *status, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "UPDATE members SET status = ?, updated_at = ? WHERE "
			  "image = ? AND member = ?",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, status);
	sqlite.bind_int64(st, 2, time_now_usec());
	sqlite.bind_int64(st, 3, n);
	index_bind_text(st, 4, project);
	r = index_run(st, err);
	return r < 0 ? r : changed_one(tx, n, project, err);
}

int member_remove(struct index_tx *tx, int64_t n, const char *project,
		  struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "DELETE FROM members WHERE image = ? AND member = ?",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, project);
	r = index_run(st, err);
	return r < 0 ? r : changed_one(tx, n, project, err);
}
