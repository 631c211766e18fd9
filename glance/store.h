/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the data of images lie.
 *
 *	DIR/index.sqlite	the index
 *	DIR/images/XX/ID	data, XX the first two digits of the image's id
 *	DIR/images/XX/ID.json	what the index says of them: sidecar.h
 *	DIR/images/XX/ID.json.new	what it is about to say
 *	DIR/incoming/ID		uploads that are not whole yet
 *	DIR/staging/ID		data that are whole and wait for their import
 *	DIR/lost+found/ID[.N]	data that nobody knew, and that were in the way
 *	DIR/lock		who has the store: store-lock.h
 *
 * No symbolic link inside is followed: what there were behind one would be
 * written, or removed, outside.
 *
 * No data are ever removed because the index does not know them: it may be
 * older than they are.
 */
#ifndef GLANCE_STORE_H
#define GLANCE_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "glance/store-lock.h"
#include "iouring/error.h"

struct store;

/* An index that is being made: with "-journal" and the like behind it. */
#define STORE_INDEX_NEW "index.sqlite.new"
/* One that was replaced: with a time behind it. */
#define STORE_INDEX_OLD "index.sqlite.replaced-"

/* Makes what is missing of the folder @path. */
int store_open(const char *path, struct store **ret, struct error *err);
/* The same, and makes nothing. */
int store_open_look(const char *path, struct store **ret, struct error *err);
void store_close(struct store *s); /* NULL is fine */

/*
 * The data of image @id, to be read: a regular file, for sure. *ret is the
 * caller's to close.
 */
int store_data_open(struct store *s, const char *id, int *ret,
		    struct error *err);
/* What that file is called, by who names it only; to be freed. NULL: no memory. */
char *store_image_path(const struct store *s, const char *id);

enum store_area { STORE_INCOMING, STORE_STAGING };

/*
 * Data that are coming. They lie in incoming/ until they are whole; *ret: a
 * descriptor to write them to.
 */
int store_incoming_open(struct store *s, const char *id, int *ret,
			struct error *err);
/* From there to staging/; they are durable when this returns 0. */
int store_stage(struct store *s, const char *id, int fd, struct error *err);
/* What was staged, to be read. */
int store_staging_open(struct store *s, const char *id, int *ret,
		       struct error *err);
bool store_has_staged(struct store *s, const char *id);
/*
 * They are whole, and durable when this returns 0: the image's data. To be
 * called before the index says so. Data that are there already, of which
 * nobody has told us, are put aside.
 */
int store_commit(struct store *s, enum store_area area, const char *id, int fd,
		 struct error *err);
void store_discard(struct store *s, enum store_area area, const char *id);

/* The data of image @from are @to's from now on, also when they were before. */
int store_rename(struct store *s, const char *from, const char *to,
		 struct error *err);

/*
 * The data of an image that is gone, with its sidecar. Only what a tombstone
 * names is removed: tombstone.h.
 */
void store_remove(struct store *s, const char *id);
/*
 * What was removed of @id, or renamed there, stays so; the first also where the
 * folder is new.
 */
int store_sync(struct store *s, const char *id, struct error *err);

int store_sync_folder(struct store *s, const char *id, struct error *err);

/* Data that wait for their image again, not its own yet. */
int store_stage_again(struct store *s, const char *id, struct error *err);

/* ---- what lies there ---- */

enum store_file {
	STORE_DATA,
	STORE_SIDECAR, /* sidecar.h */
	STORE_SIDECAR_NEW,
};

int store_file_open(struct store *s, const char *id, enum store_file file,
		    int flags, int *ret, struct error *err);
int store_file_stat(struct store *s, const char *id, enum store_file file,
		    struct stat *ret); /* 0 or a negative errno */
bool store_file_is(struct store *s, const char *id, enum store_file file);
void store_file_unlink(struct store *s, const char *id, enum store_file file);
/* -EEXIST: there is @to already, and it is not to be @replaced. */
int store_file_rename(struct store *s, const char *id, enum store_file from,
		      enum store_file to, bool replace);
/* To lost+found/, named in the log with @why; it may be gone. */
int store_put_aside(struct store *s, const char *id, enum store_file file,
		    const char *why, struct error *err);
/* The folder of an image's files is there afterwards. */
int store_make_folder(struct store *s, const char *id, struct error *err);
/* All that was written to the store. */
int store_sync_all(struct store *s, struct error *err);

struct store_entry {
	const char *path; /* seen from the store */
	const char *id; /* NULL: the name is none of the store's */
	bool staged;
	enum store_file file; /* not staged */
};

/*
 * Calls @each for every file in images/ and staging/, until it returns
 * non-zero, and returns that.
 */
int store_each(struct store *s,
	       int (*each)(void *opaque, const struct store_entry *e),
	       void *opaque, struct error *err);

/* How many files are in lost+found/. */
unsigned int store_lost_found(struct store *s);

/* ---- who has it ---- */

/* -EBUSY: another process; store-lock.h. */
int store_lock(struct store *s, struct error *err);
int store_lock_in_server(struct store *s, struct error *err);
/* Another process has taken it over, and nothing may be written any more. */
int store_check_lock(const struct store *s, struct error *err);
int store_holder(struct store *s, struct store_holder *ret, struct error *err);

/*
 * With the lock: what was coming comes no more, and half-made files of the
 * programs that had the store are nobody's.
 */
int store_clean(struct store *s, struct error *err);

/* The index's file, the store's. */
const char *store_index_path(const struct store *s);
const char *store_path(const struct store *s);
int store_fd(const struct store *s); /* the folder */

/* All of @data to @fd at @off. 0, or a negative errno. */
int store_write(int fd, const void *data, size_t len, uint64_t off);

#endif
