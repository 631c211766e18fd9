/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/findings.h"
#include "iouring/util.h"

void findings_free(struct findings *f)
{
	size_t i;

	if (!f)
		return;
	for (i = 0; i < f->n_snapshots; i++) {
		free(f->snapshots[i].id);
		free(f->snapshots[i].name);
	}
	for (i = 0; i < f->n_layers; i++) {
		free(f->layers[i].format);
		free(f->layers[i].file);
	}
	free(f->snapshots);
	free(f->layers);
	free(f->format);
	free(f->report);
	free(f);
}

void file_looks(int fd, struct file_looks *ret)
{
	struct stat st;

	*ret = (struct file_looks){ "" };
	if (!fstat(fd, &st))
		snprintf(ret->text, sizeof(ret->text),
			 "%" PRIu64 " %" PRId64 " %" PRId64 ".%09ld",
			 (uint64_t)st.st_ino, (int64_t)st.st_size,
			 (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static int forget(struct index_tx *tx, int64_t n, struct error *err)
{
	static const char *const sql[] = {
		"DELETE FROM inspections WHERE image = ?",
		"DELETE FROM snapshots WHERE image = ?",
		"DELETE FROM layers WHERE image = ?",
	};
	size_t i;
	int r = 0;

	for (i = 0; i < ARRAY_SIZE(sql) && r >= 0; i++) {
		CLEANUP(index_reset) sqlite3_stmt *st = NULL;

		r = index_sql(tx, sql[i], &st, err);
		if (r < 0)
			return r;
		sqlite.bind_int64(st, 1, n);
		r = index_run(st, err);
	}
	return r;
}

static int save_report(struct index_tx *tx, int64_t n, const struct findings *f,
		       struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO inspections"
			  " (image, format, report, looks) VALUES (?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, f->format);
	index_bind_text(st, 3, f->report);
	index_bind_text(st, 4, f->looks.text);
	return index_run(st, err);
}

static int save_snapshot(struct index_tx *tx, int64_t n, size_t at,
			 const struct found_snapshot *s, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO snapshots"
			  " (image, at, id, name, bytes, date_sec)"
			  " VALUES (?, ?, ?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_u64(st, 2, at);
	index_bind_text(st, 3, s->id);
	index_bind_text(st, 4, s->name);
	index_bind_u64(st, 5, s->bytes);
	index_bind_u64(st, 6, s->date_sec);
	return index_run(st, err);
}

static int save_layer(struct index_tx *tx, int64_t n, size_t depth,
		      const struct found_layer *l, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT INTO layers"
			  " (image, depth, format, bytes, file)"
			  " VALUES (?, ?, ?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_u64(st, 2, depth);
	index_bind_text(st, 3, l->format);
	index_bind_u64(st, 4, l->bytes);
	index_bind_text(st, 5, l->file);
	return index_run(st, err);
}

int findings_save(struct index_tx *tx, int64_t n, const struct findings *f,
		  struct error *err)
{
	size_t i;
	int r = forget(tx, n, err);

	if (r < 0 || !f->format)
		return r;
	r = save_report(tx, n, f, err);
	for (i = 0; r >= 0 && i < f->n_snapshots; i++)
		r = save_snapshot(tx, n, i, &f->snapshots[i], err);
	for (i = 0; r >= 0 && i < f->n_layers; i++)
		r = save_layer(tx, n, i, &f->layers[i], err);
	return r;
}

int findings_report(struct index_tx *tx, int64_t n,
		    const struct file_looks *looks, json_t **ret,
		    struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT report FROM inspections"
			  " WHERE image = ? AND looks = ?",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	index_bind_text(st, 2, looks->text);
	r = index_step(st, err);
	if (r <= 0)
		return r;
	*ret = json_loads(index_text(st, 0), 0, NULL);
	return *ret ? 1
		    : error_set(err, -EIO, 0, "the index: a report is damaged");
}
