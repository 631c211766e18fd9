/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "iouring/library.h"
#include "glance/sqlite-lib.h"
#include "iouring/util.h"

struct sqlite_api sqlite;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

#define SYMBOL(name)                                    \
	{                                               \
		"sqlite3_" #name, (void **)&sqlite.name \
	}

static const struct library_symbol symbols[] = {
	SYMBOL(backup_finish),
	SYMBOL(backup_init),
	SYMBOL(backup_step),
	SYMBOL(bind_int),
	SYMBOL(bind_int64),
	SYMBOL(bind_null),
	SYMBOL(bind_text),
	SYMBOL(busy_timeout),
	SYMBOL(changes),
	SYMBOL(clear_bindings),
	SYMBOL(close),
	SYMBOL(column_int),
	SYMBOL(column_int64),
	SYMBOL(column_text),
	SYMBOL(column_type),
	SYMBOL(db_config),
	SYMBOL(db_handle),
	SYMBOL(errcode),
	SYMBOL(errmsg),
	SYMBOL(exec),
	SYMBOL(extended_errcode),
	SYMBOL(finalize),
	SYMBOL(last_insert_rowid),
	SYMBOL(open_v2),
	SYMBOL(prepare_v3),
	SYMBOL(reset),
	SYMBOL(step),
	SYMBOL(stmt_busy),
};

_Static_assert(sizeof(sqlite) == ARRAY_SIZE(symbols) * sizeof(void *),
	       "all are looked up");

static void load(void)
{
	loaded = library_load("libsqlite3.so.0", symbols, ARRAY_SIZE(symbols));
}

int sqlite_load(struct error *err)
{
	pthread_once(&once, load);
	if (!loaded)
		return error_set(err, -ENOTSUP, 0,
				 "libsqlite3 is needed, and not installed");
	return 0;
}
