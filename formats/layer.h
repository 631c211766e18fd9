/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A layer: one opened image file (or set of files) of one format.
 *
 * Immutable once open, and counted: chains share layers. Every function below
 * the first may be called from any thread.
 */
#ifndef FORMATS_LAYER_H
#define FORMATS_LAYER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/extent.h"
#include "formats/format.h"
#include "formats/reference.h"
#include "iouring/error.h"
#include "iouring/source.h"

/* Of layers in one chain, the top included. */
#define CHAIN_DEPTH_MAX 256

/* How an image is to be opened. All strings are the caller's. */
struct open_options {
	const char *format; /* declared format of the top; NULL: guess */
	const char *member; /* of the container that the top's file is; NULL:
			       its one disk, or it is none */
	bool contained; /* the top's file is a container, whatever format its
			   disk is declared to have */
	const char *snapshot; /* id or name; NULL: the live state */
	const uint8_t *key; /* passphrase; NULL: none was given */
	size_t key_bytes;
	struct allow allow;
	/* The top's file, open already, the caller's; NULL: it is opened by
	   its path, which serves messages alone otherwise. */
	struct source *src;
	/* What is in a compressed file may be served before all of it was decoded
	   once. */
	bool while_decoded;
	/* How large the top's disk is, where that is for the user to say: raw in a
	   compressed file, or made at opening; 0: nobody said. */
	uint64_t said_bytes;
	bool alone; /* no other file that the top refers to is opened */
	bool direct; /* O_DIRECT */
	bool force_parent; /* take a parent whose ids do not match */
	bool lock; /* layer_hold() each layer before it is read */
	bool share; /* read what somebody may be writing, or was when he
		       died: what is found may be half of it */
	bool writer; /* by who writes the top himself, and has it locked */
};

/* A parent as the image names it; the strings are the layer's. */
struct parent_ref {
	bool wanted; /* false: this is the lowest layer */
	char *name; /* as in the file; NULL: known by content only */
	char *format; /* declared; NULL: to be guessed */
	uint64_t name_at; /* where in the file, for messages */
	bool stale_ok; /* a name of another place or system: the file of
			     its base name in the child's folder will do, as
			     ops->check_parent tells whether it is the one */
};

/* A file that holds data of a layer: an extent, a delta, an external file. */
struct data_file {
	struct source *src;
	char *name; /* as in the image */
};

struct layer {
	atomic_uint refs;
	const struct format_ops *ops;
	void *state;
	const struct open_options *options; /* valid during open() only */
	struct source *src; /* the image file itself */
	struct place *place; /* where it lies: references start here */
	char *path; /* as it was opened, for messages */
	struct source_identity identity; /* of its file, whatever is packed in
					    it: by which loops are found */
	bool guessed; /* the format was not declared */
	const char *remark; /* what a user should know who named it: what is
			       said of it behind its name; static; NULL:
			       nothing */
	bool top; /* named by the user, not by another image */
	bool encrypted;
	bool held; /* by layer_hold() */
	bool locked; /* encrypted, and no key was given: headers can
				   be looked at, data cannot be read */

	uint64_t bytes; /* virtual size; may be 0 */
	uint64_t unit_bytes; /* cluster, block, grain; a power of two or,
				   where the format has none, 0 */
	struct parent_ref parent;
	struct data_file *files;
	unsigned int n_files;
};

/*
 * Opens @src (one reference of which the layer takes over, also on failure)
 * as a layer. @path and @place say where it came from; @place is counted, and
 * may be NULL: nothing that the image names is there.
 * @format: NULL: guess. The count is one.
 */
int layer_open(struct source *src, const char *path, struct place *place,
	       const char *format, bool top, const struct open_options *options,
	       struct layer **ret, struct error *err);
struct layer *layer_ref(struct layer *l);
void layer_unref(struct layer *l); /* NULL is fine */
void layer_unrefp(struct layer **l);

/*
 * What a file with @l below it declares its format to be, as qemu-img calls it. Of
 * a disk that is made at opening NAME:BYTES:PRINT: layer_open() with that makes
 * one of so many bytes, or says that it has become another (-ESTALE).
 */
#define LAYER_FORMAT_BYTES 65U
int layer_declare(const struct layer *l, char ret[LAYER_FORMAT_BYTES],
		  struct error *err);

/* Is @l, opened already, what @format, or NULL, declares? -ESTALE: it is not. */
int layer_check_declared(const struct layer *l, const char *format,
			 struct error *err);

/*
 * Locks the image file, and the others that its data lie in, against who would
 * write them, as long as the layer lives. -EBUSY: somebody may. Any number of
 * times; any thread.
 */
int layer_hold(struct layer *l, struct error *err);
/* Ends that, so that the caller himself can write the file. */
void layer_release(struct layer *l);

/*
 * For drivers, in open(): names the parent. @format may be NULL. Strings are
 * copied; @name_at: see parent_ref. Names are read as QEMU does ("json:" and
 * "file:" are pseudo-names).
 */
int layer_set_parent(struct layer *l, const char *name, const char *format,
		     uint64_t name_at, struct error *err);

/*
 * For drivers with ops->check_parent, in open(): a parent whose name may be
 * stale, a path of another system even; parent_ref.stale_ok. @name NULL: it is
 * known by its content, and ops->is_parent tells which file of the folder it
 * is.
 */
int layer_set_parent_by_id(struct layer *l, const char *name,
			   const char *format, uint64_t name_at,
			   struct error *err);

/*
 * For drivers, in open(): opens the file @name that this image refers to, as
 * reference.h permits, and keeps it open for the layer's life. @what: for
 * messages ("external data file", "extent"). Never probed.
 */
int layer_open_file(struct layer *l, const char *name, const char *what,
		    uint64_t name_at, struct source **ret, struct error *err);

/*
 * -EPERM: @o->alone, so that a @what, named at @at in an image of @place, is not
 * opened, unless it lies in the same file.
 */
int options_check_alone(const struct open_options *o, const struct place *place,
			const char *what, uint64_t at, struct error *err);

/*
 * For drivers: reads @len bytes of metadata at @off of @src (l->src or one of
 * the layer's files) through the metadata cache. A range that does not lie
 * inside the file is -EBADMSG.
 */
int layer_read_meta(struct layer *l, struct source *src, void *buf, size_t len,
		    uint64_t off, struct error *err);

/*
 * For drivers: makes @e the DATA extent of @len guest bytes that lie @in_unit
 * bytes into the unit (cluster, block, grain) that begins at @unit_off of
 * @src. The one place of the rule for a file that ends early: of a unit that
 * runs past the end, what is before it is there, what is behind is lost:
 * -EBADMSG. What nobody asks for, bytes behind the disk's end, need not be in
 * the file.
 */
int extent_set_data(struct extent *e, struct source *src, uint64_t unit_off,
		    uint64_t in_unit, uint64_t len, struct error *err);

/*
 * The same for formats whose writers let the file end inside its last unit
 * (qcow2): a unit that begins before the end reads as zeroes behind it.
 */
int extent_set_ragged_data(struct extent *e, struct source *src,
			   uint64_t unit_off, uint64_t in_unit, uint64_t len,
			   struct error *err);

/*
 * Puts in front of @err's message where it happened: the layer's file, or which
 * of the files beside it @src is (NULL: none is meant), and the guest offset.
 */
void layer_blame(const struct layer *l, const struct source *src,
		 uint64_t guest_off, struct error *err);

/*
 * ops->map with its promises kept: the answer is inside the range, its data
 * inside the source, damage has become EXTENT_DAMAGED (and @err tells which).
 */
int layer_map(struct layer *l, uint64_t guest_off, uint64_t len,
	      struct extent *ret, struct error *err);

/* Is it a member of a container, or what a stream decodes to? Then no name in a
 * file leads to it that others would follow. */
bool layer_is_member(const struct layer *l);

/* What the layer's file takes on disk; false: it cannot be told. */
bool layer_disk_bytes(const struct layer *l, uint64_t *ret);

/* As format_ops.bitmaps, with the layer's name in @err; 0 without any. */
int layer_bitmaps(struct layer *l,
		  int (*each)(void *opaque, const struct bitmap *b),
		  void *opaque, struct error *err);

/* As format_ops.map_bitmap, with the layer's name in @err. */
int layer_map_bitmap(struct layer *l, const struct bitmap *b,
		     uint64_t guest_off, uint64_t len, bool *ret_set,
		     uint64_t *ret_len, struct error *err);

/* As format_ops.snapshots, with the layer's name in @err; 0 without any. */
int layer_snapshots(struct layer *l,
		    int (*each)(void *opaque, const struct snapshot *s),
		    void *opaque, struct error *err);

#endif
