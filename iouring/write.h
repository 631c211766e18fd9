/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing files. Everything that changes a file's bytes, size or holes goes
 * through batch_run() or through here, and past the watcher of the tests.
 *
 * Sources are those of file_source_open_rw(). Returns are 0 or a negative
 * errno; any thread.
 */
#ifndef IOURING_WRITE_H
#define IOURING_WRITE_H

#include "iouring/source.h"

/* Writes all of it, through the engine. */
int source_write(struct source *s, const void *buf, size_t len, uint64_t off,
		 struct error *err);

/* fdatasync(): what was written before this is on disk when it returns 0. */
int source_sync(struct source *s, struct error *err);

/*
 * The range reads as zeroes and takes no room; the size stays. -EOPNOTSUPP
 * where the file system cannot.
 */
int source_punch(struct source *s, uint64_t off, uint64_t len,
		 struct error *err);

/*
 * The range, of a block device, reads as zeroes; -EOPNOTSUPP: they must be
 * written.
 */
int source_zero(struct source *s, uint64_t off, uint64_t len,
		struct error *err);

/*
 * The file system sets room for the range aside, which the file then has.
 * -EOPNOTSUPP where it cannot.
 */
int source_allocate(struct source *s, uint64_t off, uint64_t len,
		    struct error *err);

/* Sets the file's size; what is added reads as zeroes. */
int source_truncate(struct source *s, uint64_t bytes, struct error *err);

/* The size and the room that it takes, now. Either pointer may be NULL. */
int source_measure(const struct source *s, uint64_t *ret_bytes,
		   uint64_t *ret_room, struct error *err);

/* Makes the names in the folder of @path durable. */
int sync_folder_of(const char *path, struct error *err);

/*
 * For tests: sees every change that is about to reach a file, can make it
 * fail, and sees how it ended. A write was durable when a WRITE_SYNC of its
 * source began after its after() and ended with 0; until then any subset of
 * its 512-byte sectors may have reached the disk. Called from any thread, at
 * the same time. Without one, a write costs one load and a branch more.
 */
enum write_op {
	WRITE_DATA,
	WRITE_SYNC,
	WRITE_PUNCH,
	WRITE_ZERO,
	WRITE_ALLOCATE,
	WRITE_TRUNCATE
};

struct write_event {
	enum write_op op;
	struct source *src;
	uint64_t off; /* TRUNCATE: the new size */
	uint64_t len; /* DATA, PUNCH, ZERO, ALLOCATE */
	const void *buf; /* DATA: @len bytes */
};

struct write_watcher {
	/* Non-zero, a negative errno: it is not done, and fails with that. */
	int (*before)(struct write_watcher *w, const struct write_event *e);
	/* @code: 0, or the negative errno that it ended with. */
	void (*after)(struct write_watcher *w, const struct write_event *e,
		      int code);
};

/* Nothing may be under way. NULL: none any more. */
void write_watch(struct write_watcher *w);

#endif
