/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A source is something that can be read at byte offsets: a file, a window
 * into another source, a piece of memory.
 *
 * Its size is taken when it is opened and does not change. Sources are
 * counted; every function here may be called from any thread.
 */
#ifndef IOURING_SOURCE_H
#define IOURING_SOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "iouring/error.h"

struct source;
struct batch_io;

enum source_kind {
	SOURCE_NAMELESS, /* memory, what is put together: only itself */
	SOURCE_FILE,
	SOURCE_OBJECT, /* of an object store, or of a web server */
	SOURCE_EXPORT, /* of an NBD server */
};

/* What a source is, however often and by whatever name it is opened. */
struct source_identity {
	uint8_t kind; /* enum source_kind */
	dev_t dev; /* FILE: these two are it ... */
	ino_t ino; /* 0: dev is a block device's own */
	struct timespec mtime; /* ... and this is its state */
	uint64_t bytes; /* size, now */
	/* Strings are the source's own and live as long. */
	const char *name; /* OBJECT, EXPORT: its URI */
	const char *version; /* OBJECT: its ETag; NULL: it has none */
};

/*
 * A source is read in one of three ways: a file by the engine itself, which
 * asks nobody (source_file()); what takes long, because somebody else answers,
 * by start() and finish(); all else by pread(). All three are called by the
 * thread whose batch it is, and by any number of threads at a time.
 */
struct source_ops {
	const char *name;

	/*
	 * Reads up to @len bytes at @off, which lie inside the source.
	 * Returns how many were read, 0 at an end that should not be there,
	 * or a negative errno. Must not read any other source, unless it is
	 * nested: others of the batch may be in flight.
	 */
	ssize_t (*pread)(struct source *s, void *buf, size_t len, uint64_t off);

	/*
	 * pread() reads other sources: what decodes a stream, what keeps
	 * copies of another source. Read last, when nothing of the batch is
	 * in flight, so it may run batches of its own, and wait. It may claim
	 * units of the cache, too; see cache_get() for in which order.
	 */
	bool nested;

	/*
	 * Optional, of what is nested, in place of pread(): reads those of
	 * @ios whose src->root is @s, at src->root_off + off, all together,
	 * and sets their ret.
	 */
	void (*read_all)(struct source *s, struct batch_io *ios, size_t n);

	/*
	 * Optional, of what is nested: reads what needs no waiting, else it is
	 * -EAGAIN (nowait.h).
	 */
	int (*read_now)(struct source *s, void *buf, size_t len, uint64_t off);

	/*
	 * Begins reading those of @ios[0 .. @n) whose src->root is @s and
	 * whose ret is BATCH_NOT_STARTED: at src->root_off + off. What has
	 * begun gets ret 0; it may fill its buf from now on, in any thread.
	 * What fails at once gets the negative errno, which is its own. What
	 * there was no place for, or no connection, is left as it is: nothing
	 * is waited for here, others of the batch are in flight.
	 *
	 * With @may_wait nothing of this thread is, and whatever is in the
	 * way is waited for: the first of @ios at least has another ret then.
	 */
	void (*start)(struct source *s, struct batch_io *ios, size_t n,
		      bool may_wait);

	/*
	 * Comes after each start(), with the same @ios, in the same thread.
	 * Waits for all that have begun: their bufs are whole, or their ret
	 * is a negative errno, and what start() had taken is given back.
	 * Whatever else is among @ios is left alone.
	 */
	void (*finish)(struct source *s, struct batch_io *ios, size_t n);

	/*
	 * Optional: is there a hole at @off? Sets whether the bytes from
	 * @off on are one (they read as zeroes and take no room), and for
	 * how many of @len bytes the answer holds (> 0). Without it, all is
	 * data. Returns 0 or a negative errno; -EAGAIN where it would have to
	 * wait and may not (nowait.h).
	 */
	int (*find_hole)(struct source *s, uint64_t off, uint64_t len,
			 bool *ret_hole, uint64_t *ret_len);

	/*
	 * Optional: does who has the bytes from @off on say that they are not
	 * its own, but of an image below it, which others may have as well?
	 * As find_hole; without it, none are.
	 */
	int (*find_below)(struct source *s, uint64_t off, uint64_t len,
			  bool *ret_below, uint64_t *ret_len);

	/*
	 * Optional: why @len bytes at @off could not be read just now. Fills
	 * @err if it knows; may read, as pread() may of a nested source.
	 */
	void (*explain)(struct source *s, uint64_t off, uint64_t len,
			struct error *err);

	/* Optional: the bytes will be read soon. A hint, never fails. */
	void (*prefetch)(struct source *s, uint64_t off, uint64_t len);

	/*
	 * Optional: tells what the source is; without it, it is nameless.
	 * *ret is zeroed but for its bytes, which are those of @s.
	 */
	void (*identify)(const struct source *s, struct source_identity *ret);

	/* Optional: releases what embeds @s; without it, free(@s). */
	void (*free)(struct source *s);
};

/* What the engine needs to read and write a file by itself. */
struct file_source {
	int fd;
	uint32_t align; /* O_DIRECT demands this of offsets, lengths and memory;
			   a power of two, 1: nothing */
	uint64_t id; /* names it among the ring's registered files */
	bool writable; /* opened by file_source_open_rw() */
	bool in_memory; /* no read of it waits for a disk */
	bool knows_nowait; /* its file system can say that a read would wait:
			      then the ring needs no thread to wait in */
};

struct source {
	const struct source_ops *ops;
	atomic_uint refs;
	uint64_t id; /* of this source; never used again by another */
	uint64_t bytes; /* size */
	/* Its size is what something in it tells, or a bound: what its end has is
	   not known, and takes long to be read. Its maker sets it. */
	bool end_unknown;

	/*
	 * What is read in its place, at @root_off + an offset: itself, or what
	 * a window is a part of, and never a window.
	 */
	struct source *root;
	uint64_t root_off;
	const struct file_source *file; /* see source_file() */

	/*
	 * Who needs a few bytes of it does well to read so many about them,
	 * as it costs the same: a power of two, 0: there is nothing to say.
	 * Of the root; its maker sets it.
	 */
	uint32_t read_bytes;
};

/* The file that @s is, or is a window of: root_off counts in it. NULL: none. */
static inline const struct file_source *source_file(const struct source *s)
{
	return s->file;
}

/* A whole file of file_source_open_rw(), which alone can be written. */
static inline bool source_is_writable(const struct source *s)
{
	return s->file && s->file->writable && s->root == s;
}

/* A number that nothing else in the process has: for caches' keys. */
uint64_t source_new_id(void);

/* For the makers of sources: sets every field; the count is one. */
void source_init(struct source *s, const struct source_ops *ops,
		 uint64_t bytes);

struct source *source_ref(struct source *s);
/*
 * The same for who has no reference, and keeps ops->free() from ending
 * meanwhile. NULL: it is about to be freed.
 */
struct source *source_ref_unless_gone(struct source *s);
void source_unref(struct source *s); /* NULL is fine */
void source_unrefp(struct source **s);

/* See ops->find_hole. @len > 0 and the range lies inside @s. */
int source_find_hole(struct source *s, uint64_t off, uint64_t len,
		     bool *ret_hole, uint64_t *ret_len);

/* See ops->find_below. @len > 0 and the range lies inside @s. */
int source_find_below(struct source *s, uint64_t off, uint64_t len,
		      bool *ret_below, uint64_t *ret_len);

/*
 * What @s is now; of a window, what it is a part of. Writes all of *ret, and
 * never fails: what cannot be found out is nameless.
 */
void source_identity(const struct source *s, struct source_identity *ret);

/* One thing, whatever was written to it meanwhile? Of the nameless none is. */
bool identity_is_same(const struct source_identity *a,
		      const struct source_identity *b);

/* One thing, with what it had in it: as far as size, time and ETag tell. */
bool identity_is_unchanged(const struct source_identity *a,
			   const struct source_identity *b);

/* Makes *@ret the file that stat() told of; a device is one by all its nodes. */
void identity_set_file(struct source_identity *ret, const struct stat *st);

/* Is it the file that stat() told of? */
bool identity_is_file(const struct source_identity *i, const struct stat *st);

/* See ops->explain; of a part of @s that a batch has failed to read. */
void source_explain(struct source *s, uint64_t off, uint64_t len,
		    struct error *err);

/* See ops->prefetch. */
void source_prefetch(struct source *s, uint64_t off, uint64_t len);

/*
 * Reads [@off, @off + @len), whole, through the engine. A range that is not
 * inside @s is -EBADMSG. Returns 0 or a negative errno.
 */
int source_read(struct source *s, void *buf, size_t len, uint64_t off,
		struct error *err);

enum {
	FILE_DIRECT = 1 << 0, /* O_DIRECT */
	FILE_BLOCK_DEVICE = 1 << 1, /* a block device will do as well */
};

/*
 * Makes a source of an open descriptor, which it owns from then on, also on
 * failure. Anything but a regular file (with FILE_BLOCK_DEVICE: or a block
 * device) is -EPERM; a file system without O_DIRECT is -ENOTSUP.
 */
int file_source_adopt(int fd, unsigned int flags, struct source **ret,
		      struct error *err);

/* Opens @path read-only, links followed, without waiting on a FIFO. */
int file_source_open(const char *path, unsigned int flags, struct source **ret,
		     struct error *err);

/* What a source that can be written may grow to. */
#define SOURCE_WRITABLE_BYTES ((uint64_t)INT64_MAX)

/*
 * The same of a regular file for reading and writing; see iouring/write.h. It
 * may grow, so that its size as a source is SOURCE_WRITABLE_BYTES; what lies
 * behind the file's end reads as -EIO. With FILE_BLOCK_DEVICE also of a block
 * device, which keeps its size. Owns @fd, also on failure.
 */
int file_source_adopt_rw(int fd, unsigned int flags, struct source **ret,
			 struct error *err);
int file_source_open_rw(const char *path, unsigned int flags,
			struct source **ret, struct error *err);

/*
 * [@off, @off + @bytes) of @parent as a source of its own; holds a reference
 * to @parent. A range that is not inside @parent is -EBADMSG.
 */
int window_source_new(struct source *parent, uint64_t off, uint64_t bytes,
		      struct source **ret, struct error *err);

/* @bytes at @data, which must outlive the source. */
int memory_source_new(const void *data, size_t bytes, struct source **ret,
		      struct error *err);

#endif
