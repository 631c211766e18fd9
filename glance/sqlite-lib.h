/* SPDX-License-Identifier: BSD-3-Clause */
/* SQLite, loaded with the first index: a server of one image has none. */
#ifndef GLANCE_SQLITE_LIB_H
#define GLANCE_SQLITE_LIB_H

#include <sqlite3.h>

#include "iouring/error.h"

/* The functions that are used, without their prefix; after sqlite_load(). */
struct sqlite_api {
	__typeof__(sqlite3_backup_finish) *backup_finish;
	__typeof__(sqlite3_backup_init) *backup_init;
	__typeof__(sqlite3_backup_step) *backup_step;
	__typeof__(sqlite3_bind_int) *bind_int;
	__typeof__(sqlite3_bind_int64) *bind_int64;
	__typeof__(sqlite3_bind_null) *bind_null;
	__typeof__(sqlite3_bind_text) *bind_text;
	__typeof__(sqlite3_busy_timeout) *busy_timeout;
	__typeof__(sqlite3_changes) *changes;
	__typeof__(sqlite3_clear_bindings) *clear_bindings;
	__typeof__(sqlite3_close) *close;
	__typeof__(sqlite3_column_int) *column_int;
	__typeof__(sqlite3_column_int64) *column_int64;
	__typeof__(sqlite3_column_text) *column_text;
	__typeof__(sqlite3_column_type) *column_type;
	__typeof__(sqlite3_db_config) *db_config;
	__typeof__(sqlite3_db_handle) *db_handle;
	__typeof__(sqlite3_errcode) *errcode;
	__typeof__(sqlite3_errmsg) *errmsg;
	__typeof__(sqlite3_exec) *exec;
	__typeof__(sqlite3_extended_errcode) *extended_errcode;
	__typeof__(sqlite3_finalize) *finalize;
	__typeof__(sqlite3_last_insert_rowid) *last_insert_rowid;
	__typeof__(sqlite3_open_v2) *open_v2;
	__typeof__(sqlite3_prepare_v3) *prepare_v3;
	__typeof__(sqlite3_reset) *reset;
	__typeof__(sqlite3_step) *step;
	__typeof__(sqlite3_stmt_busy) *stmt_busy;
};

extern struct sqlite_api sqlite;

/* Returns 0, or -ENOTSUP when it is not installed. Any thread. */
int sqlite_load(struct error *err);

#endif
