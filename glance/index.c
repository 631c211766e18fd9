/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glance/index-schema.h"
#include "glance/index.h"
#include "iouring/util.h"

/* Connections that read; whoever finds none waits. */
#define READERS_MAX    8
/* Statements that a connection keeps; the oldest makes room. */
#define STATEMENTS_MAX 96
/* Changes in one commit: the first waits for the last. */
#define BATCH_MAX      64
/* Of each connection. */
#define PAGE_CACHE_KIB 1024
#define BUSY_MSEC      10000

struct statement {
	char *sql;
	uint32_t hash; /* of sql: most comparisons end here */
	sqlite3_stmt *st;
	uint64_t used;
};

struct index_tx {
	struct index *ix;
	sqlite3 *db;
	struct index_tx *next; /* among the idle readers */
	struct statement statements[STATEMENTS_MAX];
	size_t n_statements;
	uint64_t clock;
	char (*touched)[37]; /* ids, of the change that runs */
	size_t n_touched;
};

/* A change that waits for its turn; on its caller's stack. */
struct change {
	int (*run)(struct index_tx *tx, void *opaque, struct error *err);
	void *opaque;
	struct error *err;
	int result;
	bool done;
	struct change *next;
};

struct index {
	char *path;
	bool look; /* as it is, to be read */
	const struct index_follower *follower; /* NULL: none */

	/* Guards the idle readers and how many there are. */
	pthread_mutex_t readers_lock;
	pthread_cond_t reader_idle;
	struct index_tx *idle;
	unsigned int n_readers;

	/* Guards the queue; leading: somebody is at the writer. */
	pthread_mutex_t queue_lock;
	pthread_cond_t turn;
	struct change *queue, **queue_end;
	bool leading;
	struct index_tx *writer; /* the leader's */
};

static int sqlite_code(sqlite3 *db)
{
	switch (sqlite.errcode(db)) {
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_CONSTRAINT:
		return sqlite.extended_errcode(db) ==
					       SQLITE_CONSTRAINT_UNIQUE ||
				       sqlite.extended_errcode(db) ==
					       SQLITE_CONSTRAINT_PRIMARYKEY
			       ? -EEXIST
			       : -EINVAL;
	case SQLITE_BUSY:
		return -EAGAIN;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	default:
		return -EIO;
	}
}

static int db_error(sqlite3 *db, const char *what, struct error *err)
{
	return error_set(err, sqlite_code(db), 0, "the index: %s: %s", what,
			 sqlite.errmsg(db));
}

int index_error(struct index_tx *tx, const char *what, struct error *err)
{
	return db_error(tx->db, what, err);
}

/* ---- connections ---- */

static void tx_free(struct index_tx *tx)
{
	size_t i;

	if (!tx)
		return;
	for (i = 0; i < tx->n_statements; i++) {
		sqlite.finalize(tx->statements[i].st);
		free(tx->statements[i].sql);
	}
	sqlite.close(tx->db);
	free(tx->touched);
	free(tx);
}

static int exec(struct index_tx *tx, const char *sql, struct error *err)
{
	if (sqlite.exec(tx->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return index_error(tx, "a statement failed", err);
	return 0;
}

/*
 * SQLite makes its files for all to read; -wal, -shm and -journal become like
 * the one beside which they lie.
 */
static int make_file(const char *path, struct error *err)
{
	/* Not one that there is: to close it would end SQLite's locks on it. */
	int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0
				       : error_set(err, -errno, 0, "%s: %s",
						   path, errno_text(errno));
	close(fd);
	return 0;
}

static int tx_new(struct index *ix, bool writes, struct index_tx **ret,
		  struct error *err)
{
	struct index_tx *tx = calloc(1, sizeof(*tx));
	char pragmas[256];
	int r;

	if (!tx)
		return error_set(err, -ENOMEM, 0, "out of memory");
	tx->ix = ix;
	r = sqlite.open_v2(ix->path, &tx->db,
			   SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
				   (writes ? SQLITE_OPEN_CREATE : 0),
			   NULL);
	if (r != SQLITE_OK) {
		r = tx->db ? db_error(tx->db, ix->path, err)
			   : error_set(err, -ENOMEM, 0, "out of memory");
		tx_free(tx);
		return r;
	}
	sqlite.busy_timeout(tx->db, BUSY_MSEC);
	sqlite.db_config(tx->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite.db_config(tx->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	snprintf(pragmas, sizeof(pragmas),
		 "PRAGMA cache_size = -%d; PRAGMA foreign_keys = ON;"
		 "%s",
		 PAGE_CACHE_KIB,
		 writes ? "PRAGMA journal_mode = WAL;"
			  "PRAGMA synchronous = FULL;"
			: "PRAGMA query_only = ON;");
	r = exec(tx, pragmas, err);
	if (r < 0) {
		tx_free(tx);
		return r;
	}
	*ret = tx;
	return 0;
}

static int get_version(struct index_tx *tx, unsigned int *ret,
		       struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "PRAGMA user_version", &st, err);

	if (r >= 0)
		r = index_step(st, err);
	if (r < 0)
		return r;
	*ret = (unsigned int)sqlite.column_int(st, 0);
	return 0;
}

static int take_step(struct index_tx *tx, unsigned int version,
		     struct error *err)
{
	char sql[64];
	int r = exec(tx, "BEGIN EXCLUSIVE", err);

	if (r < 0)
		return r;
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %u", version + 1);
	r = exec(tx, index_steps[version], err);
	if (r >= 0)
		r = exec(tx, sql, err);
	if (r >= 0)
		r = exec(tx, "COMMIT", err);
	if (r < 0)
		exec(tx, "ROLLBACK", NULL);
	return r;
}

static int migrate(struct index_tx *tx, struct error *err)
{
	unsigned int version = 0, n = index_scheme_known();
	int r = get_version(tx, &version, err);

	if (r >= 0 && version > n)
		return error_set(err, -ENOTSUP, 0,
				 "the index: %s has scheme %u, this program "
				 "knows up to %u; a newer one is needed",
				 tx->ix->path, version, n);
	for (; r >= 0 && version < n; version++)
		r = take_step(tx, version, err);
	return r;
}

static int new_index(const char *path, struct index **ret, struct error *err)
{
	struct index *ix;
	int r = sqlite_load(err);

	if (r < 0)
		return r;
	ix = calloc(1, sizeof(*ix));
	if (!ix)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&ix->readers_lock, NULL);
	pthread_cond_init(&ix->reader_idle, NULL);
	pthread_mutex_init(&ix->queue_lock, NULL);
	pthread_cond_init(&ix->turn, NULL);
	ix->queue_end = &ix->queue;
	ix->path = strdup(path);
	if (!ix->path) {
		index_close(ix);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	*ret = ix;
	return 0;
}

int index_open(const char *path, struct index **ret, struct error *err)
{
	struct index *ix = NULL;
	int r = new_index(path, &ix, err);

	if (r >= 0)
		r = make_file(path, err);
	if (r >= 0)
		r = tx_new(ix, true, &ix->writer, err);
	if (r >= 0)
		r = migrate(ix->writer, err);
	if (r < 0) {
		index_close(ix);
		return r;
	}
	*ret = ix;
	return 0;
}

int index_scheme(struct index *ix, unsigned int *ret, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(ix, &tx, err);

	return r < 0 ? r : get_version(tx, ret, err);
}

unsigned int index_scheme_known(void)
{
	unsigned int n = 0;

	while (index_steps[n])
		n++;
	return n;
}

int index_open_look(const char *path, struct index **ret, struct error *err)
{
	struct index *ix = NULL;
	unsigned int version = 0;
	int r = access(path, F_OK) < 0 ? error_set(err, -errno, 0, "%s: %s",
						   path, errno_text(errno))
				       : new_index(path, &ix, err);

	if (r >= 0) {
		ix->look = true;
		r = index_scheme(ix, &version, err);
	}
	if (r >= 0 && !version)
		r = error_set(err, -EUCLEAN, 0, "%s: is no index of platter's",
			      path);
	if (r >= 0 && version > index_scheme_known())
		r = error_set(err, -ENOTSUP, 0,
			      "%s: has scheme %u, this program knows up to %u; "
			      "a newer one is needed",
			      path, version, index_scheme_known());
	if (r < 0) {
		index_close(ix);
		return r;
	}
	*ret = ix;
	return 0;
}

void index_close(struct index *ix)
{
	struct index_tx *tx;

	if (!ix)
		return;
	while ((tx = ix->idle)) {
		ix->idle = tx->next;
		tx_free(tx);
	}
	tx_free(ix->writer);
	pthread_cond_destroy(&ix->turn);
	pthread_mutex_destroy(&ix->queue_lock);
	pthread_cond_destroy(&ix->reader_idle);
	pthread_mutex_destroy(&ix->readers_lock);
	free(ix->path);
	free(ix);
}

/* ---- statements ---- */

/* FNV-1a */
static uint32_t hash_text(const char *text)
{
	uint32_t h = 2166136261U;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 16777619U;
	return h;
}

static struct statement *find_statement(struct index_tx *tx, const char *sql,
					uint32_t hash)
{
	size_t i;

	for (i = 0; i < tx->n_statements; i++)
		if (tx->statements[i].hash == hash &&
		    !strcmp(tx->statements[i].sql, sql))
			return &tx->statements[i];
	return NULL;
}

/* A free place, if need be that of the statement not used for longest. */
static struct statement *new_statement(struct index_tx *tx)
{
	struct statement *oldest = NULL;
	size_t i;

	if (tx->n_statements < STATEMENTS_MAX)
		return &tx->statements[tx->n_statements++];
	for (i = 0; i < tx->n_statements; i++) {
		struct statement *s = &tx->statements[i];

		if (!sqlite.stmt_busy(s->st) &&
		    (!oldest || s->used < oldest->used))
			oldest = s;
	}
	if (!oldest)
		return NULL;
	sqlite.finalize(oldest->st);
	free(oldest->sql);
	return oldest;
}

static int prepare(struct index_tx *tx, const char *sql, uint32_t hash,
		   struct statement **ret, struct error *err)
{
	struct statement *s;
	sqlite3_stmt *st;
	char *copy;

	if (sqlite.prepare_v3(tx->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st,
			      NULL) != SQLITE_OK)
		return index_error(tx, "preparing a statement", err);
	copy = strdup(sql);
	if (!copy) {
		sqlite.finalize(st);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	s = new_statement(tx);
	if (!s) {
		sqlite.finalize(st);
		free(copy);
		return error_set(err, -EIO, 0,
				 "the index: %d statements are in use",
				 STATEMENTS_MAX);
	}
	*s = (struct statement){ .sql = copy, .hash = hash, .st = st };
	*ret = s;
	return 0;
}

int index_sql(struct index_tx *tx, const char *sql, sqlite3_stmt **ret,
	      struct error *err)
{
	uint32_t hash = hash_text(sql);
	struct statement *s = find_statement(tx, sql, hash);
	int r;

	if (!s) {
		r = prepare(tx, sql, hash, &s, err);
		if (r < 0)
			return r;
	}
	ANALYSER_ASSUME(s);
	s->used = ++tx->clock;
	*ret = s->st;
	return 0;
}

void index_reset(sqlite3_stmt **st)
{
	if (!*st)
		return;
	sqlite.reset(*st);
	sqlite.clear_bindings(*st);
	*st = NULL;
}

int index_step(sqlite3_stmt *st, struct error *err)
{
	switch (sqlite.step(st)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return db_error(sqlite.db_handle(st), "a statement failed",
				err);
	}
}

int index_run(sqlite3_stmt *st, struct error *err)
{
	int r;

	do
		r = index_step(st, err);
	while (r > 0);
	return r;
}

void index_bind_text(sqlite3_stmt *st, int at, const char *text)
{
	if (text)
		sqlite.bind_text(st, at, text, -1, SQLITE_TRANSIENT);
	else
		sqlite.bind_null(st, at);
}

void index_bind_u64(sqlite3_stmt *st, int at, uint64_t v)
{
	sqlite.bind_int64(st, at, (sqlite3_int64)min_u64(v, INT64_MAX));
}

int index_changes(struct index_tx *tx)
{
	return sqlite.changes(tx->db);
}

int64_t index_last_rowid(struct index_tx *tx)
{
	return sqlite.last_insert_rowid(tx->db);
}

const char *index_text(sqlite3_stmt *st, int col)
{
	return (const char *)sqlite.column_text(st, col);
}

/* Runs a statement of transaction control. */
static int control(struct index_tx *tx, const char *sql, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, sql, &st, err);

	return r < 0 ? r : index_run(st, err);
}

/* ---- reading ---- */

static int get_reader(struct index *ix, struct index_tx **ret,
		      struct error *err)
{
	struct index_tx *tx = NULL;
	bool make = false;
	int r = 0;

	pthread_mutex_lock(&ix->readers_lock);
	while (!ix->idle && ix->n_readers == READERS_MAX)
		pthread_cond_wait(&ix->reader_idle, &ix->readers_lock);
	if (ix->idle) {
		tx = ix->idle;
		ix->idle = tx->next;
	} else {
		ix->n_readers++;
		make = true;
	}
	pthread_mutex_unlock(&ix->readers_lock);
	if (make)
		r = tx_new(ix, false, &tx, err);
	if (r < 0) {
		pthread_mutex_lock(&ix->readers_lock);
		ix->n_readers--;
		pthread_cond_signal(&ix->reader_idle);
		pthread_mutex_unlock(&ix->readers_lock);
		return r;
	}
	*ret = tx;
	return 0;
}

static void put_reader(struct index_tx *tx)
{
	struct index *ix = tx->ix;

	pthread_mutex_lock(&ix->readers_lock);
	tx->next = ix->idle;
	ix->idle = tx;
	pthread_cond_signal(&ix->reader_idle);
	pthread_mutex_unlock(&ix->readers_lock);
}

int index_read(struct index *ix, struct index_tx **ret, struct error *err)
{
	struct index_tx *tx;
	int r = get_reader(ix, &tx, err);

	if (r < 0)
		return r;
	r = control(tx, "BEGIN", err);
	if (r < 0) {
		put_reader(tx);
		return r;
	}
	*ret = tx;
	return 0;
}

void index_read_end(struct index_tx *tx)
{
	if (!tx)
		return;
	control(tx, "COMMIT", NULL);
	put_reader(tx);
}

void index_read_endp(struct index_tx **tx)
{
	index_read_end(*tx);
}

/* ---- writing ---- */

void index_follow(struct index *ix, const struct index_follower *f)
{
	ix->follower = f;
}

int index_touch(struct index_tx *tx, const char *id, struct error *err)
{
	size_t i;
	void *more;

	if (!tx->ix->follower)
		return 0;
	for (i = 0; i < tx->n_touched; i++)
		if (!strcmp(tx->touched[i], id))
			return 0;
	more = reallocarray(tx->touched, tx->n_touched + 1,
			    sizeof(*tx->touched));
	if (!more)
		return error_set(err, -ENOMEM, 0, "out of memory");
	tx->touched = more;
	snprintf(tx->touched[tx->n_touched++], sizeof(*tx->touched), "%s", id);
	return 0;
}

static int prepare_touched(struct index_tx *tx, struct error *err)
{
	const struct index_follower *f = tx->ix->follower;
	int r = 0;
	size_t i;

	for (i = 0; i < tx->n_touched && r >= 0; i++)
		r = f->prepare(f->opaque, tx, tx->touched[i], err);
	return r;
}

/*
 * In a savepoint, so that its failure is its own. Returns < 0 where the whole
 * batch has to fail with it.
 */
static int run_change(struct index_tx *tx, struct change *c, struct error *err)
{
	bool followed = false;
	int r = 0;

	tx->n_touched = 0;
	c->result = control(tx, "SAVEPOINT change", c->err);
	if (c->result < 0)
		return 0;
	c->result = c->run(tx, c->opaque, c->err);
	if (c->result >= 0 && tx->n_touched) {
		followed = true;
		r = prepare_touched(tx, c->err);
		if (r < 0)
			c->result = r;
	}
	if (c->result < 0)
		control(tx, "ROLLBACK TO change", NULL);
	/* What was prepared is again what those before have made of it. */
	r = c->result < 0 && followed ? prepare_touched(tx, err) : 0;
	control(tx, "RELEASE change", NULL);
	return r;
}

/* Everybody's result is the commit's when that fails. */
static void run_batch(struct index_tx *tx, struct change *batch)
{
	const struct index_follower *f = tx->ix->follower;
	struct error err = { 0 };
	struct change *c;
	int r = control(tx, "BEGIN IMMEDIATE", &err);
	bool begun = r >= 0;

	for (c = batch; c && r >= 0; c = c->next)
		r = run_change(tx, c, &err);
	if (r >= 0 && f)
		r = f->publish(f->opaque, &err);
	if (r >= 0)
		r = control(tx, "COMMIT", &err);
	if (r < 0 && begun)
		control(tx, "ROLLBACK", NULL);
	if (f)
		f->settle(f->opaque, r >= 0);
	if (r >= 0)
		return;
	for (c = batch; c; c = c->next) {
		if (c->result < 0)
			continue;
		c->result = r;
		error_set(c->err, r, 0, "%s", err.msg);
	}
}

/* Takes up to BATCH_MAX changes off the queue. The lock is held. */
static struct change *take_batch(struct index *ix)
{
	struct change *batch = ix->queue, *last = batch;
	unsigned int n;

	for (n = 1; n < BATCH_MAX && last->next; n++)
		last = last->next;
	ix->queue = TAKE_PTR(last->next);
	if (!ix->queue)
		ix->queue_end = &ix->queue;
	return batch;
}

/* The lock is held, before and after; not while the batch runs. */
static void lead(struct index *ix)
{
	struct change *batch = take_batch(ix), *c, *next;

	ix->leading = true;
	pthread_mutex_unlock(&ix->queue_lock);
	run_batch(ix->writer, batch);
	pthread_mutex_lock(&ix->queue_lock);
	ix->leading = false;
	for (c = batch; c; c = next) {
		next = c->next; /* its owner may be gone once it is done */
		c->done = true;
	}
	pthread_cond_broadcast(&ix->turn);
}

int index_write(struct index *ix,
		int (*change)(struct index_tx *tx, void *opaque,
			      struct error *err),
		void *opaque, struct error *err)
{
	struct error local = { 0 };
	struct change c = { .run = change, .opaque = opaque, .err = &local };

	pthread_mutex_lock(&ix->queue_lock);
	*ix->queue_end = &c;
	/* cppcheck-suppress autoVariables; waited for below */
	ix->queue_end = &c.next;
	while (!c.done) {
		if (ix->leading)
			pthread_cond_wait(&ix->turn, &ix->queue_lock);
		else
			lead(ix);
	}
	pthread_mutex_unlock(&ix->queue_lock);
	if (c.result < 0)
		error_set(err, c.result, 0, "%s", local.msg);
	return c.result;
}

/* ---- backup ---- */

int index_backup(struct index *ix, const char *path, struct error *err)
{
	struct index_tx *tx;
	sqlite3 *to = NULL;
	sqlite3_backup *b;
	int r = make_file(path, err);

	if (r >= 0)
		r = get_reader(ix, &tx, err);
	if (r < 0)
		return r;
	if (sqlite.open_v2(path, &to,
			   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			   NULL) != SQLITE_OK ||
	    !(b = sqlite.backup_init(to, "main", tx->db, "main"))) {
		r = to ? db_error(to, path, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");
	} else {
		sqlite.backup_step(b, -1);
		/* One file alone: it needs no log to be read. */
		if (sqlite.backup_finish(b) != SQLITE_OK ||
		    sqlite.exec(to, "PRAGMA journal_mode = DELETE", NULL, NULL,
				NULL) != SQLITE_OK)
			r = db_error(to, path, err);
	}
	sqlite.close(to);
	put_reader(tx);
	return r;
}

/* ---- care ---- */

int index_hurry(struct index *ix, struct error *err)
{
	return exec(ix->writer, "PRAGMA synchronous = OFF", err);
}

int index_integrity(struct index *ix, unsigned int max,
		    void (*each)(void *opaque, const char *text), void *opaque,
		    struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int n = 0, r = index_read(ix, &tx, err);

	if (r >= 0)
		r = index_sql(tx, "PRAGMA integrity_check", &st, err);
	while (r >= 0 && (r = index_step(st, err)) == 1) {
		if (!strcmp(index_text(st, 0), "ok"))
			continue;
		if ((unsigned int)n++ < max)
			each(opaque, index_text(st, 0));
	}
	return r < 0 ? r : n;
}

/* One row of one text, which must be @wanted. */
static int expect(sqlite3 *db, const char *path, const char *sql,
		  const char *wanted, struct error *err)
{
	sqlite3_stmt *st = NULL;
	const char *text;
	int r;

	if (sqlite.prepare_v3(db, sql, -1, 0, &st, NULL) != SQLITE_OK)
		return db_error(db, path, err);
	r = sqlite.step(st);
	if (r != SQLITE_ROW) {
		r = db_error(db, path, err);
	} else {
		text = (const char *)sqlite.column_text(st, 0);
		r = text && !strcmp(text, wanted)
			    ? 0
			    : error_set(err, -EBUSY, 0,
					"%s: another process has it open",
					path);
	}
	sqlite.finalize(st);
	return r;
}

int index_fold(const char *path, struct error *err)
{
	sqlite3 *db = NULL;
	int r = sqlite_load(err);

	if (r < 0)
		return r;
	if (sqlite.open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		r = db ? db_error(db, path, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");
	else
		r = expect(db, path, "PRAGMA journal_mode = DELETE", "delete",
			   err);
	sqlite.close(db);
	return r;
}
