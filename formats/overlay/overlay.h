/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An overlay: a qcow2 file that takes writes, over an image that is never
 * written.
 *
 * Offsets and lengths are bytes, of any alignment, inside the overlay; any
 * number of threads at once. Returns are 0 or a negative errno.
 *
 * What was written before a flush began that ended with 0 survives a crash of
 * the process and of the machine. What was not is there as it was before or as
 * it was written, by pieces of 512 bytes; never else. With options.log, all that
 * was answered survives a crash of the process. After a crash the file has
 * leaks at most, until it is opened here again, and is marked as dirty; after
 * overlay_unref() it has none.
 */
#ifndef FORMATS_OVERLAY_OVERLAY_H
#define FORMATS_OVERLAY_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/difference.h"
#include "formats/image.h"
#include "formats/layer.h"

struct overlay;

/* Of a file that we make: what costs no copy. */
#define OVERLAY_UNIT_BYTES 4096U

enum {
	OVERLAY_DETECT_ZEROES = 1 << 0, /* zeroes take no room */
	OVERLAY_DETECT_BASE = 1 << 1, /* nor does what the base has, too */
};

struct overlay_options {
	struct open_options open; /* of the layers below */
	unsigned int detect;
	uint64_t bytes_max; /* of the file; 0: no limit. Beyond: -ENOSPC */
	uint64_t free_min; /* bytes of its file system that stay free */
	bool alone; /* what it names is not opened: for its header's sake */
	/*
	 * What is answered outlives this process: a log beside the file keeps
	 * it for the next who opens it, until a power cut. Without it, as for
	 * commands whose user is told how they ended, what was not flushed is
	 * lost with the process.
	 */
	bool log;
	bool discard_log; /* of a process that died: go on without */
	/*
	 * A temporary one, with log: in files that outlive this process, empty
	 * or from the one before it. NULL: in one of its own.
	 */
	const struct overlay_kept *kept;
};

/* Descriptors, to read and write; who opens the overlay keeps none of them. */
struct overlay_kept {
	int fd; /* the disk */
	int log_fd;
};

/* What is set aside when a file is made. */
enum overlay_preallocation {
	OVERLAY_PREALLOCATE_OFF,
	OVERLAY_PREALLOCATE_METADATA, /* tables, so that a place is known */
	OVERLAY_PREALLOCATE_FALLOC, /* and the file system's room */
	OVERLAY_PREALLOCATE_FULL, /* and zeroes written there */
};

/* What a new overlay is. Strings go into its header. */
struct overlay_new {
	enum overlay_preallocation preallocation;
	uint64_t bytes; /* virtual size */
	const char *base_name; /* NULL: nothing below */
	const char *base_format; /* with a base_name */
	bool pulling, pull_held; /* see overlay_pull() */
};

/* Makes the file @path, whole or not at all; -EEXIST where there is one. */
int overlay_create(const char *path, const struct overlay_new *n,
		   struct error *err);

/* Sets [@off, @off + @len) of a new file aside, as FALLOC or FULL. */
struct source;
int overlay_preallocate(struct source *src, uint64_t off, uint64_t len,
			enum overlay_preallocation how, struct error *err);

/*
 * Opens the qcow2 file @path, ours or QEMU's, locked against others who write
 * it (-EBUSY). @base: what lies below it, held from then on; NULL: what the
 * file names. With @base, @base_name is what the file must name: -EEXIST.
 * Encrypted ones, external data files and corrupt ones are -ENOTSUP.
 */
int overlay_open(const char *path, struct image *base, const char *base_name,
		 const struct overlay_options *options, struct overlay **ret,
		 struct error *err);

/*
 * The same of a file that is not there: it is made, as @n says, before the
 * first change. Until then the disk is @base, and nothing is in the file's
 * folder. What @options point to outlives the overlay. Who is there first by
 * then makes the change fail, -EBUSY.
 */
int overlay_open_unmade(const char *path, struct image *base,
			const struct overlay_new *n,
			const struct overlay_options *options,
			struct overlay **ret, struct error *err);
/*
 * The file @path, which another process has: it is taken when that lets go of it,
 * by who reads, changes or fences it or by overlay_make(); until then these are
 * -EBUSY. As long and of the epoch that its header tells now. Else as
 * overlay_open(); what @options point to outlives the overlay.
 */
int overlay_open_standby(const char *path, struct image *base,
			 const char *base_name,
			 const struct overlay_options *options,
			 struct overlay **ret, struct error *err);
/* Makes it now, or takes it; 0 where it is there already. */
int overlay_make(struct overlay *o, struct error *err);
bool overlay_is_made(struct overlay *o);

/*
 * Are there snapshots of a file @path that is not there? *ret: the name of one,
 * to be freed; NULL: none.
 */
int overlay_find_orphan(const char *path, char **ret, struct error *err);

/* One in @folder that has no name and is gone with the last reference. */
int overlay_open_temp(const char *folder, struct image *base,
		      const struct overlay_options *options,
		      struct overlay **ret, struct error *err);

struct overlay *overlay_ref(struct overlay *o);
/*
 * The last one flushes, gives back what was allocated ahead, and closes. NULL
 * is fine.
 */
void overlay_unref(struct overlay *o);
void overlay_unrefp(struct overlay **o);

uint64_t overlay_bytes(const struct overlay *o); /* virtual size */
uint64_t overlay_unit_bytes(const struct overlay *o); /* what costs no copy */

int overlay_read(struct overlay *o, void *buf, size_t len, uint64_t off,
		 struct error *err);

/* See image_read_sparse(). */
int overlay_read_sparse(struct overlay *o, void *buf, size_t len, uint64_t off,
			struct zero_runs *zeroes, struct error *err);

/* @durable: as if a flush followed. */
int overlay_write(struct overlay *o, const void *buf, size_t len, uint64_t off,
		  bool durable, struct error *err);

enum {
	OVERLAY_MAY_TRIM = 1 << 0, /* the room need not be kept */
	OVERLAY_DURABLE = 1 << 1,
	OVERLAY_FAST = 1 << 2, /* -EOPNOTSUPP where it means writing zeroes */
};

/* Reads as zeroes from then on. @flags: or'ed. */
int overlay_zero(struct overlay *o, uint64_t off, uint64_t len,
		 unsigned int flags, struct error *err);

/*
 * The guest needs it no more. Whole units read as zeroes and their room goes
 * back to the file system; what is less than a unit stays as it is.
 */
int overlay_trim(struct overlay *o, uint64_t off, uint64_t len, bool durable,
		 struct error *err);

/* Those who come while one is under way share the next. */
int overlay_flush(struct overlay *o, struct error *err);

/* See image_walk(). Depth 0 is the overlay itself. */
int overlay_walk(struct overlay *o, uint64_t off, uint64_t len,
		 int (*each)(void *opaque, uint64_t off,
			     const struct extent *e),
		 void *opaque, uint64_t *ret_end, struct error *err);

/*
 * What is not as in @from, a snapshot of this overlay (overlay_open_snapshot())
 * or what lies below, as far as tables tell, while requests go on: see difference_walk(), without
 * compare. It stays true when that snapshot, or others, are deleted or made
 * meanwhile: what was moved by it is told as changed.
 */
int overlay_walk_changes(struct overlay *o, struct image *from, uint64_t off,
			 uint64_t len,
			 int (*each)(void *opaque, uint64_t off, uint64_t len,
				     enum change change),
			 void *opaque, uint64_t *ret_end, struct error *err);

/*
 * Keeps the disk as it is at one moment, while requests go on: what is under
 * way ends first, and all is flushed. The file becomes "STEM@NAME.qcow2", a
 * standard file that is never written again, beside a new "STEM.qcow2" over it.
 * @name: may be part of a file's name. -EEXIST: there is one. -ENOTSUP: of a
 * temporary overlay. -EBUSY: the chain is being changed. A failure leaves all as it was, but for one to make the new
 * names durable, after which flushes go on failing or not as the disk does.
 */
int overlay_snapshot(struct overlay *o, const char *name, struct error *err);

/*
 * The disk is again as it was at the snapshot @name, which stays: what was
 * written since is gone, and so are, with @discard, the snapshots made since.
 * Nobody may use the overlay meanwhile, for it may become shorter. -ENOENT:
 * there is none; -EINVAL: it is not the latest, and @discard not set; -EBUSY:
 * somebody relies on a later one's file. A failure leaves all as it was, but for
 * one to make it durable or to remove a file.
 */
int overlay_revert(struct overlay *o, const char *name, bool discard,
		   struct error *err);

/*
 * The snapshot @name is no more; the disk, and what was kept after it, stay as
 * they are: what they have of its data is copied to where they can have it,
 * while requests go on. @progress: now and then, with how far of the disk it
 * has come; what it returns, if not 0, ends it and is returned. Neither that
 * nor a crash harms anything, and the next attempt goes on. -ENOENT: there is
 * none. -EBUSY: somebody relies on its file, or changes the chain.
 */
int overlay_delete(struct overlay *o, const char *name,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err);

/*
 * The disk has @bytes from now on, which are not fewer; what is new reads as
 * zeroes. Durable when it returns 0.
 */
int overlay_resize(struct overlay *o, uint64_t bytes, struct error *err);

/*
 * What the overlay holds is written to the image right below it, a raw or
 * qcow2 file that grows if need be, and durable there when this returns 0; the
 * overlay stays as it is. @options: how that image's own chain is opened.
 * Nobody may use the overlay meanwhile. -EBUSY: somebody has the image open.
 * -ENOTSUP: there is none, or of a format that cannot be written. A failure
 * leaves it written in part, under the overlay, which hides that.
 */
int overlay_commit(struct overlay *o, const struct open_options *options,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err);

/* It holds nothing any more: a new file, of what it is below, takes its place. */
int overlay_empty(struct overlay *o, struct error *err);

/*
 * The overlay lies over @base from now on, which it names @name, of @format;
 * all NULL: over nothing. @unsafe: whatever it holds; else what differs is
 * copied first, so that the disk stays as it is. Nobody may use the overlay
 * meanwhile, and @base must not have it in its chain. A failure leaves the disk
 * as it was.
 */
int overlay_rebase(struct overlay *o, struct image *base, const char *name,
		   const char *format, bool unsafe,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err);

/*
 * Who may write. Writers come with an epoch, a number; that of the overlay is kept
 * in its file, only rises, and stays with it through snapshots and reverts. Those
 * of lower ones are told nothing here: the caller refuses their changes, by
 * overlay_epoch() after they have been counted where @drain looks.
 */
uint64_t overlay_epoch(const struct overlay *o); /* lower ones are fenced off */
/* Is it at @epoch, or a later one, as far as its file is ours? */
bool overlay_has_epoch(const struct overlay *o, uint64_t epoch);

/*
 * Those below @epoch write no more from now on: new requests of theirs are
 * refused while @drain waits for what is under way, and what they wrote is flushed.
 * Durable when it returns 0, and not done at all when it fails. -ESTALE: there is
 * a later one. May wait for another fence, and for disks.
 */
int overlay_fence(struct overlay *o, uint64_t epoch,
		  void (*drain)(void *opaque, uint64_t epoch), void *opaque,
		  struct error *err);

/*
 * Makes the file of an overlay that has none yet, over what is at the URL @from,
 * raw and as long as that, which allow= must have: until overlay_pull() is done the
 * disk is that, with what is written. 0 where it was made so before. Nobody
 * may use the overlay meanwhile. -EEXIST: there is a file that was not. @held: what
 * is at @from is written still; neither that nor the overlay is to be read before
 * overlay_pull() begins, also after a restart: -EBUSY.
 */
int overlay_make_pulled(struct overlay *o, const char *from, bool held,
			struct error *err);

/* Is it that still? */
bool overlay_is_pulled(struct overlay *o);

/*
 * Fetches what it has not of that, all of the disk, while requests go on, and puts
 * @to->base below it then: what is afar is needed no more. @progress as in
 * overlay_delete(), as is what ends it. -EINVAL: it was not made so.
 */
struct overlay_pull_to {
	struct image *base;
	const char *name, *format; /* what the file calls it */
	/*
	 * @base lies below the disk afar as well: what that server tells as not
	 * its own (source_find_below()) is not fetched, but for samples that
	 * are compared. -EINVAL: they are not the same.
	 */
	bool same;
};
int overlay_pull(struct overlay *o, const struct overlay_pull_to *to,
		 int (*progress)(void *opaque, uint64_t done_bytes),
		 void *opaque, struct error *err);

/* Where its file is, or would be; NULL: it is temporary. */
const char *overlay_path(const struct overlay *o);

/* What lies below; NULL: nothing. The overlay's. */
const struct image *overlay_base(const struct overlay *o);

/* The disk at that snapshot, to be read while the overlay goes on. -ENOENT */
int overlay_open_snapshot(struct overlay *o, const char *name,
			  struct image **ret, struct error *err);

/* Calls @each for every one, the latest first; see history_each(). */
int overlay_each_snapshot(struct overlay *o,
			  int (*each)(void *opaque, const char *name,
				      uint64_t bytes),
			  void *opaque);

struct overlay_stats {
	uint64_t file_bytes; /* size */
	uint64_t room_bytes; /* that it takes */
	uint64_t flushes; /* asked for */
	uint64_t syncs; /* of the file */
};
void overlay_get_stats(struct overlay *o, struct overlay_stats *ret);

#endif
