/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/record.h"
#include "glance/time-text.h"
#include "glance/tombstone.h"

static const char *const names[TOMBSTONE_KINDS] = {
	[TOMBSTONE_GONE] = "gone",     [TOMBSTONE_COMING] = "coming",
	[TOMBSTONE_MOVING] = "moving", [TOMBSTONE_STAGED] = "staged",
	[TOMBSTONE_COPY] = "copy",
};

const char *tombstone_kind_name(enum tombstone_kind k)
{
	return names[k];
}

int tombstone_add(struct index_tx *tx, enum tombstone_kind k, const char *id,
		  struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "INSERT OR REPLACE INTO tombstones (id, kind, "
			  "made_at) VALUES (?, ?, ?)",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	index_bind_text(st, 2, names[k]);
	sqlite.bind_int64(st, 3, time_now_usec());
	return index_run(st, err);
}

int tombstone_drop(struct index_tx *tx, enum tombstone_kind k, const char *id,
		   struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "DELETE FROM tombstones WHERE id = ? AND kind = ?",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	index_bind_text(st, 2, names[k]);
	return index_run(st, err);
}

int tombstones_clear(struct index_tx *tx, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "DELETE FROM tombstones", &st, err);

	return r < 0 ? r : index_run(st, err);
}

int tombstone_is(struct index_tx *tx, const char *id, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT 1 FROM tombstones WHERE id = ? LIMIT 1",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	return index_step(st, err);
}

static bool kind_by_name(const char *name, enum tombstone_kind *ret)
{
	size_t i;

	for (i = 0; i < TOMBSTONE_KINDS; i++) {
		if (!strcmp(names[i], name)) {
			*ret = (enum tombstone_kind)i;
			return true;
		}
	}
	return false;
}

int tombstones_each(struct index_tx *tx,
		    int (*each)(void *opaque, enum tombstone_kind k,
				const char *id),
		    void *opaque, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	enum tombstone_kind k;
	int r = index_sql(tx, "SELECT kind, id FROM tombstones ORDER BY id",
			  &st, err);

	if (r < 0)
		return r;
	while ((r = index_step(st, err)) == 1) {
		/* No id is no name of a file of ours. */
		if (!kind_by_name(index_text(st, 0), &k) ||
		    !record_id_ok(index_text(st, 1)))
			continue;
		r = each(opaque, k, index_text(st, 1));
		if (r)
			return r;
	}
	return r;
}
