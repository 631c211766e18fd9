/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "glance/admit.h"
#include "glance/record-rows.h"
#include "glance/time-text.h"
#include "glance/tombstone.h"

#define COLUMNS                                                     \
	"n, id, name, status, visibility, owner, disk_format, "     \
	"container_format, size, virtual_size, min_disk, min_ram, " \
	"protected, os_hidden, checksum, hash_algo, hash_value, "   \
	"created_at, updated_at, dialect, changed_at"

enum {
	COL_N,
	COL_ID,
	COL_NAME,
	COL_STATUS,
	COL_VISIBILITY,
	COL_OWNER,
	COL_DISK_FORMAT,
	COL_CONTAINER_FORMAT,
	COL_SIZE,
	COL_VIRTUAL_SIZE,
	COL_MIN_DISK,
	COL_MIN_RAM,
	COL_PROTECTED,
	COL_HIDDEN,
	COL_CHECKSUM,
	COL_HASH_ALGO,
	COL_HASH_VALUE,
	COL_CREATED,
	COL_UPDATED,
	COL_DIALECT,
	COL_CHANGED,
};

static int read_text(sqlite3_stmt *st, int col, char **ret, struct error *err)
{
	return record_set(ret, index_text(st, col), err);
}

static int read_texts(sqlite3_stmt *st, struct record *r, struct error *err)
{
	const struct {
		int col;
		char **field;
	} texts[] = {
		{ COL_ID, &r->id },
		{ COL_NAME, &r->name },
		{ COL_OWNER, &r->owner },
		{ COL_DISK_FORMAT, &r->disk_format },
		{ COL_CONTAINER_FORMAT, &r->container_format },
		{ COL_CHECKSUM, &r->checksum },
		{ COL_HASH_ALGO, &r->hash_algo },
		{ COL_HASH_VALUE, &r->hash_value },
		{ COL_DIALECT, &r->dialect },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(texts); i++)
		if (read_text(st, texts[i].col, texts[i].field, err) < 0)
			return err->code;
	return 0;
}

static bool read_u64(sqlite3_stmt *st, int col, uint64_t *ret)
{
	if (sqlite.column_type(st, col) == SQLITE_NULL)
		return false;
	*ret = (uint64_t)sqlite.column_int64(st, col);
	return true;
}

static int read_row(sqlite3_stmt *st, struct record *r, struct error *err)
{
	int r2 = read_texts(st, r, err);

	if (r2 < 0)
		return r2;
	r->n = sqlite.column_int64(st, COL_N);
	r->has_size = read_u64(st, COL_SIZE, &r->size);
	r->has_virtual_size = read_u64(st, COL_VIRTUAL_SIZE, &r->virtual_size);
	read_u64(st, COL_MIN_DISK, &r->min_disk);
	read_u64(st, COL_MIN_RAM, &r->min_ram);
	r->protected_ = sqlite.column_int(st, COL_PROTECTED);
	r->hidden = sqlite.column_int(st, COL_HIDDEN);
	r->created_usec = sqlite.column_int64(st, COL_CREATED);
	r->updated_usec = sqlite.column_int64(st, COL_UPDATED);
	r->changed_usec = sqlite.column_int64(st, COL_CHANGED);
	if (!image_status_by_name(index_text(st, COL_STATUS), &r->status) ||
	    !image_visibility_by_name(index_text(st, COL_VISIBILITY),
				      &r->visibility))
		return error_set(err, -EUCLEAN, 0,
				 "the index: image %s has status \"%s\" and "
				 "visibility \"%s\"",
				 r->id, index_text(st, COL_STATUS),
				 index_text(st, COL_VISIBILITY));
	return 0;
}

/* Calls @each for every row of @sql with image @n bound. */
static int for_rows(struct index_tx *tx, const char *sql, struct record *r,
		    int (*each)(sqlite3_stmt *st, struct record *r,
				struct error *err),
		    struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r2 = index_sql(tx, sql, &st, err);

	if (r2 < 0)
		return r2;
	sqlite.bind_int64(st, 1, r->n);
	while ((r2 = index_step(st, err)) > 0) {
		r2 = each(st, r, err);
		if (r2 < 0)
			break;
	}
	return r2;
}

static int read_property(sqlite3_stmt *st, struct record *r, struct error *err)
{
	return record_append_property(r, index_text(st, 0), index_text(st, 1),
				      err);
}

static int read_tag(sqlite3_stmt *st, struct record *r, struct error *err)
{
	return record_append_tag(r, index_text(st, 0), err);
}

static int read_location(sqlite3_stmt *st, struct record *r, struct error *err)
{
	struct location l = { .own = sqlite.column_int(st, 3) };

	if (read_text(st, 0, &l.url, err) < 0 ||
	    read_text(st, 1, &l.store, err) < 0 ||
	    read_text(st, 2, &l.metadata, err) < 0) {
		location_done(&l);
		return err->code;
	}
	return record_insert_location(r, r->n_locations, &l, err);
}

/* The row that @st is about to give, and what hangs on it. */
static int load(struct index_tx *tx, sqlite3_stmt *st, struct record *ret,
		struct error *err)
{
	struct record r = { 0 };
	int r2 = index_step(st, err);

	if (!r2)
		return error_set(err, -ENOENT, 0, "there is no such image");
	if (r2 > 0)
		r2 = read_row(st, &r, err);
	if (r2 >= 0)
		r2 = for_rows(tx,
			      "SELECT name, value FROM properties"
			      " WHERE image = ? ORDER BY name",
			      &r, read_property, err);
	if (r2 >= 0)
		r2 = for_rows(tx,
			      "SELECT tag FROM tags WHERE image = ?"
			      " ORDER BY tag",
			      &r, read_tag, err);
	if (r2 >= 0)
		r2 = for_rows(tx,
			      "SELECT url, store, metadata, own FROM locations"
			      " WHERE image = ? ORDER BY at",
			      &r, read_location, err);
	if (r2 < 0) {
		record_done(&r);
		return r2;
	}
	*ret = r;
	return 0;
}

int record_load(struct index_tx *tx, const char *id, struct record *ret,
		struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT " COLUMNS " FROM images WHERE id = ?",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	return load(tx, st, ret, err);
}

int record_load_n(struct index_tx *tx, int64_t n, struct record *ret,
		  struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT " COLUMNS " FROM images WHERE n = ?", &st,
			  err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	return load(tx, st, ret, err);
}

int record_is_member(struct index_tx *tx, int64_t n, const char *project,
		     const char *status, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r;

	if (!project)
		return 0;
	r = index_sql(tx,
		      "SELECT 1 FROM members WHERE image = ? AND member = ?"
		      " AND (?3 IS NULL OR status = ?3)",
		      &st, err);
	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, project);
	index_bind_text(st, 3, status);
	return index_step(st, err);
}

/* ---- writing ---- */

static void bind_or_null(sqlite3_stmt *st, int at, bool has, uint64_t v)
{
	if (has)
		index_bind_u64(st, at, v);
}

/* Parameters 1 to 19: the columns from name to changed_at. */
static void bind_row(sqlite3_stmt *st, const struct record *r)
{
	index_bind_text(st, 1, r->name);
	index_bind_text(st, 2, image_status_name(r->status));
	index_bind_text(st, 3, image_visibility_name(r->visibility));
	index_bind_text(st, 4, r->owner);
	index_bind_text(st, 5, r->disk_format);
	index_bind_text(st, 6, r->container_format);
	bind_or_null(st, 7, r->has_size, r->size);
	bind_or_null(st, 8, r->has_virtual_size, r->virtual_size);
	index_bind_u64(st, 9, r->min_disk);
	index_bind_u64(st, 10, r->min_ram);
	sqlite.bind_int(st, 11, r->protected_);
	sqlite.bind_int(st, 12, r->hidden);
	index_bind_text(st, 13, r->checksum);
	index_bind_text(st, 14, r->hash_algo);
	index_bind_text(st, 15, r->hash_value);
	sqlite.bind_int64(st, 16, r->created_usec);
	sqlite.bind_int64(st, 17, r->updated_usec);
	index_bind_text(st, 18, r->dialect ? r->dialect : "v2");
	sqlite.bind_int64(st, 19, r->changed_usec);
}

/* A property or, with @value NULL, a tag. */
static int insert_link(struct index_tx *tx, const struct record *r,
		       const char *name, const char *value, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r2 = index_sql(tx,
			   value ? "INSERT INTO properties"
				   " (image, image_created, name, value)"
				   " VALUES (?, ?, ?, ?)"
				 : "INSERT INTO tags"
				   " (image, image_created, tag)"
				   " VALUES (?, ?, ?)",
			   &st, err);

	if (r2 < 0)
		return r2;
	sqlite.bind_int64(st, 1, r->n);
	sqlite.bind_int64(st, 2, r->created_usec);
	index_bind_text(st, 3, name);
	if (value)
		index_bind_text(st, 4, value);
	return index_run(st, err);
}

static int insert_location(struct index_tx *tx, int64_t n, size_t at,
			   const struct location *l, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO locations"
			  " (image, at, url, store, metadata, own)"
			  " VALUES (?, ?, ?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	sqlite.bind_int64(st, 2, (sqlite3_int64)at);
	index_bind_text(st, 3, l->url);
	index_bind_text(st, 4, l->store);
	index_bind_text(st, 5, l->metadata);
	sqlite.bind_int(st, 6, l->own);
	return index_run(st, err);
}

static int insert_hangers(struct index_tx *tx, const struct record *r,
			  struct error *err)
{
	size_t i;
	int r2 = 0;

	for (i = 0; r2 >= 0 && i < r->n_properties; i++)
		r2 = insert_link(tx, r, r->properties[i].name,
				 r->properties[i].value, err);
	for (i = 0; r2 >= 0 && i < r->n_tags; i++)
		r2 = insert_link(tx, r, r->tags[i], NULL, err);
	for (i = 0; r2 >= 0 && i < r->n_locations; i++)
		r2 = insert_location(tx, r->n, i, &r->locations[i], err);
	if (r2 >= 0 && r->findings)
		r2 = findings_save(tx, r->n, r->findings, err);
	return r2;
}

int record_is_gone(struct index_tx *tx, const char *id, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT 1 FROM gone WHERE id = ?", &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	return index_step(st, err);
}

static int check_not_gone(struct index_tx *tx, const char *id,
			  struct error *err)
{
	int r = record_is_gone(tx, id, err);

	if (r > 0)
		return error_set(err, -EEXIST, 0, "Image ID %s already exists!",
				 id);
	return r;
}

static int insert_row(struct index_tx *tx, struct record *r, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	struct error local = { 0 };
	int r2 = index_sql(tx,
			   "INSERT INTO images"
			   " (name, status, visibility, owner, disk_format,"
			   " container_format, size, virtual_size, min_disk,"
			   " min_ram, protected, os_hidden, checksum,"
			   " hash_algo, hash_value, created_at, updated_at,"
			   " dialect, changed_at, id) VALUES (?, ?, ?, ?, ?,"
			   " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			   &st, err);

	if (r2 < 0)
		return r2;
	bind_row(st, r);
	index_bind_text(st, 20, r->id);
	r2 = index_run(st, &local);
	if (r2 == -EEXIST)
		return error_set(err, -EEXIST, 0, "Image ID %s already exists!",
				 r->id);
	if (r2 < 0)
		return error_set(err, r2, 0, "%s", local.msg);
	r->n = index_last_rowid(tx);
	return 0;
}

int record_insert_as_is(struct index_tx *tx, struct record *r,
			struct error *err)
{
	int r2 = insert_row(tx, r, err);

	if (r2 >= 0)
		r2 = insert_hangers(tx, r, err);
	/* One that is new, and without data, has nothing beside the index. */
	return r2 < 0 || r->status == IMAGE_QUEUED
		       ? r2
		       : index_touch(tx, r->id, err);
}

int record_insert(struct index_tx *tx, struct record *r, struct error *err)
{
	int r2 = check_not_gone(tx, r->id, err);

	if (r2 >= 0)
		r2 = admit_change(NULL, r, err);
	if (r2 < 0)
		return r2;
	r->created_usec = r->updated_usec = r->changed_usec = time_now_usec();
	return record_insert_as_is(tx, r, err);
}

static int run_with(struct index_tx *tx, const char *sql, int64_t n,
		    struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, sql, &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	return index_run(st, err);
}

static int update_row(struct index_tx *tx, const struct record *r,
		      struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r2 = index_sql(tx,
			   "UPDATE images SET name = ?, status = ?,"
			   " visibility = ?, owner = ?, disk_format = ?,"
			   " container_format = ?, size = ?, virtual_size = ?,"
			   " min_disk = ?, min_ram = ?, protected = ?,"
			   " os_hidden = ?, checksum = ?, hash_algo = ?,"
			   " hash_value = ?, created_at = ?, updated_at = ?,"
			   " dialect = ?, changed_at = ? WHERE n = ?",
			   &st, err);

	if (r2 < 0)
		return r2;
	bind_row(st, r);
	sqlite.bind_int64(st, 20, r->n);
	r2 = index_run(st, err);
	if (r2 >= 0 && !index_changes(tx))
		return error_set(err, -ENOENT, 0, "the image %s is gone",
				 r->id);
	return r2;
}

static int check_update(struct index_tx *tx, const struct record *r,
			struct error *err)
{
	CLEANUP(record_done) struct record was = { 0 };
	int r2 = record_load_n(tx, r->n, &was, err);

	return r2 < 0 ? r2 : admit_change(&was, r, err);
}

int record_update(struct index_tx *tx, struct record *r, struct error *err)
{
	int r2 = check_update(tx, r, err);

	if (r2 < 0)
		return r2;
	r->updated_usec = time_now_usec();
	/* It was loaded in the same change: nobody else has written since. */
	r->changed_usec = r->updated_usec > r->changed_usec
				  ? r->updated_usec
				  : r->changed_usec + 1;
	return record_update_as_is(tx, r, err);
}

int record_update_as_is(struct index_tx *tx, struct record *r,
			struct error *err)
{
	int r2 = update_row(tx, r, err);

	if (r2 >= 0)
		r2 = run_with(tx, "DELETE FROM properties WHERE image = ?",
			      r->n, err);
	if (r2 >= 0)
		r2 = run_with(tx, "DELETE FROM tags WHERE image = ?", r->n,
			      err);
	if (r2 >= 0)
		r2 = run_with(tx, "DELETE FROM locations WHERE image = ?", r->n,
			      err);
	if (r2 >= 0)
		r2 = insert_hangers(tx, r, err);
	return r2 < 0 ? r2 : index_touch(tx, r->id, err);
}

int record_touch(struct index_tx *tx, int64_t n, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "UPDATE images SET changed_at = max(changed_at + 1, "
			  "?) WHERE n = ? RETURNING id",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, time_now_usec());
	sqlite.bind_int64(st, 2, n);
	r = index_step(st, err);
	if (r > 0)
		r = index_touch(tx, index_text(st, 0), err);
	return r < 0 ? r : index_run(st, err);
}

int record_delete(struct index_tx *tx, const struct record *r,
		  struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r2 = run_with(tx, "DELETE FROM images WHERE n = ?", r->n, err);

	if (r2 >= 0 && !index_changes(tx))
		return error_set(err, -ENOENT, 0, "the image %s is gone",
				 r->id);
	if (r2 >= 0)
		r2 = index_sql(tx,
			       "INSERT OR REPLACE INTO gone (id, deleted_at)"
			       " VALUES (?, ?)",
			       &st, err);
	if (r2 < 0)
		return r2;
	index_bind_text(st, 1, r->id);
	sqlite.bind_int64(st, 2, time_now_usec());
	r2 = index_run(st, err);
	if (r2 >= 0)
		r2 = tombstone_add(tx, TOMBSTONE_GONE, r->id, err);
	return r2 < 0 ? r2 : index_touch(tx, r->id, err);
}
