/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The index: one SQLite file in the store, the catalogue of its images.
 *
 * Readers: a pool of connections; each read is a transaction, a view of one
 * moment that waits for nobody. Writers: one connection, one transaction at a
 * time. Those who wait for it are served together: whoever finds it free runs
 * everybody's changes, each in a savepoint of its own, and commits once. A
 * change is on the disk (synchronous=FULL) when index_write() returns 0.
 *
 * SQL is text in the source and goes through index_sql(), values through
 * bind: nothing out of a request becomes part of a statement.
 */
#ifndef GLANCE_INDEX_H
#define GLANCE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "glance/sqlite-lib.h"
#include "iouring/error.h"

struct index;

/* One transaction, on one connection: one thread at a time. */
struct index_tx;

/*
 * Opens or makes @path, and brings an older scheme up to date. A newer one is
 * -ENOTSUP. Connections do not survive a fork.
 */
int index_open(const char *path, struct index **ret, struct error *err);
/*
 * Opens what is there to be read, as it is: -ENOENT where there is none, and
 * an older scheme stays. index_write() is not for it.
 */
int index_open_look(const char *path, struct index **ret, struct error *err);
void index_close(struct index *ix); /* NULL is fine */

/* A view of one moment. index_read_end() takes NULL. */
int index_read(struct index *ix, struct index_tx **ret, struct error *err);
void index_read_end(struct index_tx *tx);
void index_read_endp(struct index_tx **tx);

/*
 * Runs @change, perhaps on another thread, perhaps together with others, and
 * returns what it returns once that is durable (>= 0), or was undone (< 0).
 * @change may look at what it is about to change: nobody else writes.
 */
int index_write(struct index *ix,
		int (*change)(struct index_tx *tx, void *opaque,
			      struct error *err),
		void *opaque, struct error *err);

/*
 * What is kept beside the index, in step with it, by who makes the commits:
 * sidecars.h. Images are those that index_touch() named.
 */
struct index_follower {
	/* At the end of a change, which fails with it. */
	int (*prepare)(void *opaque, struct index_tx *tx, const char *image,
		       struct error *err);
	/* Before the commit of all changes, which fail with it. */
	int (*publish)(void *opaque, struct error *err);
	/* After it, or after all were undone. */
	void (*settle)(void *opaque, bool committed);
	void *opaque;
};

/* Before the first change that is to be followed. @f stays the caller's. */
void index_follow(struct index *ix, const struct index_follower *f);
/* In a change: what is said of image @id is another now. */
int index_touch(struct index_tx *tx, const char *id, struct error *err);

/*
 * The statement of @sql, prepared once for each connection, with nothing
 * bound. Must be given back by index_reset() before it is asked for again.
 */
int index_sql(struct index_tx *tx, const char *sql, sqlite3_stmt **ret,
	      struct error *err);
void index_reset(sqlite3_stmt **st); /* for CLEANUP(); NULL inside is fine */

/* 1: a row, 0: no more, or a negative errno: -EEXIST a UNIQUE or primary key. */
int index_step(sqlite3_stmt *st, struct error *err);
/* Steps a statement that has no rows, to its end. */
int index_run(sqlite3_stmt *st, struct error *err);

void index_bind_text(sqlite3_stmt *st, int at, const char *text); /* or NULL */
void index_bind_u64(sqlite3_stmt *st, int at, uint64_t v);
/* Rows that the last statement of @tx changed. */
int index_changes(struct index_tx *tx);
int64_t index_last_rowid(struct index_tx *tx);
/* A copy, NULL where the column is. */
const char *index_text(sqlite3_stmt *st, int col);

/* An error of SQLite's on @tx as ours. */
int index_error(struct index_tx *tx, const char *what, struct error *err);

/* A consistent copy, while running. */
int index_backup(struct index *ix, const char *path, struct error *err);

/*
 * For who makes an index that is of use when it is whole: a change need not be
 * on the disk when index_write() returns.
 */
int index_hurry(struct index *ix, struct error *err);

/* Steps of the scheme that the index at hand has taken. */
int index_scheme(struct index *ix, unsigned int *ret, struct error *err);
unsigned int index_scheme_known(void);

/*
 * Goes through all pages; calls @each with what is wrong, at most @max lines.
 * Returns how many there were.
 */
int index_integrity(struct index *ix, unsigned int max,
		    void (*each)(void *opaque, const char *text), void *opaque,
		    struct error *err);

/*
 * The last user of @path takes what stands in its log into it, and leaves one
 * file alone. -EBUSY: somebody else has it open.
 */
int index_fold(const char *path, struct error *err);

#endif
