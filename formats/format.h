/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a format driver is. Read this page first.
 *
 * A format is a function from a guest range to extents. A driver parses its
 * headers in open(), answers map(), and does nothing else: it never copies
 * guest data, never loops over a request, knows nothing of NBD. Reading,
 * block status, chains, caches and limits are written once above it.
 *
 *	nbd/plugin.c platter_pread -> formats/image.c image_read
 *	  -> formats/chain.c chain_map -> formats/drivers/<format>.c map
 *	  -> iouring/batch.c batch_run -> back
 *
 * A new format is one file in drivers/ with one const struct format_ops, and one
 * line in table.c.
 */
#ifndef FORMATS_FORMAT_H
#define FORMATS_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/extent.h"
#include "iouring/error.h"
#include "iouring/source.h"

struct layer;

/* One of several byte strings by which a format is recognised. */
struct magic {
	uint64_t at; /* bytes from the file's start */
	size_t len; /* 0: no magic, the end of the list */
	const char *bytes;
};

/* A snapshot that lies inside one file. Strings are valid in the callback. */
struct snapshot {
	const char *id;
	const char *name;
	uint64_t bytes; /* virtual size of the disk then */
	uint64_t vm_state_bytes; /* of a saved machine, 0: only the disk */
	uint64_t date_sec; /* since 1970, UTC */
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
};

/*
 * A bitmap inside the image, which tells what its writers changed since it was
 * begun. Where it lies is the driver's; the name is valid in the callback.
 */
struct bitmap {
	const char *name;
	uint64_t table_off;
	uint32_t table_entries;
	uint32_t granularity_bits; /* a bit is for 1 << so many guest bytes */
};

/* What `platter info` shows of a layer beside the common facts. */
struct info_sink {
	void (*text)(struct info_sink *s, const char *key, const char *value);
	void (*number)(struct info_sink *s, const char *key, uint64_t value);
	void (*flag)(struct info_sink *s, const char *key, bool value);
};

/* What check() finds. Counts as `qemu-img check --output=json` has them. */
struct check_report {
	uint64_t corruptions; /* reading or writing would go wrong */
	uint64_t leaks; /* units that nothing refers to */
	uint64_t check_errors; /* could not be looked at */
	uint64_t total_units; /* of the guest's disk */
	uint64_t allocated_units;
	uint64_t fragmented_units;
	uint64_t compressed_units;
	uint64_t image_end_off; /* end of the last unit in use, bytes */

	/* Told of each finding, one line without newline. */
	void (*say)(struct check_report *r, const char *line);
};

#define FORMAT_PRINT_DIGITS 32U

struct format_ops {
	/* Required. As our options and messages spell it. */
	const char *name;

	/* Optional: as others do (qemu-img: "vpc", "parallels"). */
	const char *alias;

	/* Required. What the Glance API calls it (disk_format); NULL: nothing. */
	const char *glance_name;

	/* Recognised when any magic matches ... */
	struct magic magic[6];

	/*
	 * ... or this says so. Optional. @head: the first @head_bytes of the
	 * file, at most 64 KiB. @src: for what lies elsewhere (a tail).
	 */
	bool (*probe)(struct source *src, const uint8_t *head,
		      size_t head_bytes);

	/* What tells of it lies behind the data with which its file begins:
	   these may look like a stream, and are none. */
	bool told_behind;

	/*
	 * Optional: can it be opened, and read, by who does not know where its
	 * file ends? @head: as for probe(). Only of what matches.
	 */
	bool (*open_ended)(const uint8_t *head, size_t head_bytes);

	/* Optional. A folder with a file of this name is one image, too. */
	const char *folder_file;

	/* The disk is made at opening. Its magic is that of an archive, and looked
	   at where it was declared. */
	bool made;

	/*
	 * Required of what is made: what tells the disk from any other that may be
	 * made of the same file, by another version of a library, say: as hex
	 * digits. What is the file's own, as where files' data lie, is in it, too.
	 */
	int (*print)(const struct layer *l, char ret[FORMAT_PRINT_DIGITS + 1],
		     struct error *err);

	/* Bytes of l->state, zeroed before open(). */
	size_t state_bytes;

	/*
	 * Required. Reads and checks the headers of l->src, opens the files
	 * that hold its data (layer_open_file()), names its parent
	 * (layer_set_parent()), and sets l->bytes and l->unit_bytes. Called
	 * once, by layer.c. On failure close() is called all the same.
	 */
	int (*open)(struct layer *l, struct error *err);

	/*
	 * Optional: once the parent is open. Are the two a pair (content ids,
	 * GUIDs, time stamps)? Called by chain.c.
	 */
	int (*check_parent)(struct layer *l, struct layer *parent,
			    struct error *err);

	/*
	 * Optional: is @candidate, a file in @l's folder or an allowed one,
	 * the parent of @l?
	 * For formats that know their parents by id alone. Called by chain.c.
	 */
	bool (*is_parent)(struct layer *l, struct source *candidate);

	/* Optional. Frees what l->state owns; it may be half built. */
	void (*close)(struct layer *l);

	/*
	 * Required. Where is [@guest_off, @guest_off + @len)? The range lies
	 * inside the layer and @len > 0. Answers for the first ret->len > 0
	 * bytes, the longer the better: neighbours that lie side by side in
	 * one source are one extent. @ret is zeroed before. Any number of
	 * threads at once. A wrong table entry is -EBADMSG, an unreadable one
	 * -EIO: layer.c makes that EXTENT_DAMAGED, to the end of the unit, or
	 * of the first ret->len bytes where these are set and are fewer.
	 */
	int (*map)(struct layer *l, uint64_t guest_off, uint64_t len,
		   struct extent *ret, struct error *err);

	/*
	 * Optional. Calls @each for every snapshot, in the file's order, until
	 * it returns non-zero, and returns that, or 0.
	 */
	int (*snapshots)(struct layer *l,
			 int (*each)(void *opaque, const struct snapshot *s),
			 void *opaque, struct error *err);

	/*
	 * Optional, where snapshots are layers of the chain: is @l the one
	 * that is called @name?
	 */
	bool (*is_snapshot)(struct layer *l, const char *name);

	/*
	 * Optional. Calls @each for every bitmap that tells the truth of the
	 * state that the layer was opened at, until it returns non-zero, and
	 * returns that, or 0. -EBADMSG: what comes behind those told is damaged.
	 */
	int (*bitmaps)(struct layer *l,
		       int (*each)(void *opaque, const struct bitmap *b),
		       void *opaque, struct error *err);

	/*
	 * With bitmaps(): has [@guest_off, @guest_off + @len), inside the layer
	 * and @len > 0, been changed? Answers for the first *ret_len > 0 bytes.
	 * @b: one that bitmaps() told of. Any number of threads at once. What
	 * cannot be read, or is damaged, is an error, never "no".
	 */
	int (*map_bitmap)(struct layer *l, const struct bitmap *b,
			  uint64_t guest_off, uint64_t len, bool *ret_set,
			  uint64_t *ret_len, struct error *err);

	/* Optional. */
	void (*info)(struct layer *l, struct info_sink *s);

	/*
	 * Optional. Walks the whole structure. Returns a negative errno when
	 * the walk itself could not be done; findings go into @r.
	 */
	int (*check)(struct layer *l, struct check_report *r,
		     struct error *err);
};

/* Every driver, in probe order, ended by NULL; raw is last. table.c */
extern const struct format_ops *const format_table[];

/* By name; NULL: there is none. table.c */
const struct format_ops *format_by_name(const char *name);

/*
 * The file to open when the user names the folder @path. *ret is NULL when
 * @path is none, or one that is no image.
 */
int format_in_folder(const char *path, char **ret, struct error *err);

/*
 * Which format is it? Exactly one must match; two are -EBADMSG naming both;
 * none is raw. probe.c
 */
int format_probe(struct source *src, const struct format_ops **ret,
		 struct error *err);

/*
 * As format_probe(), of what begins so and has an end that is not known: those
 * that are told of there alone are not looked for. probe.c
 */
int format_of_head(const uint8_t *head, size_t head_bytes,
		   const struct format_ops **ret);

/* open_ended() of formats whose headers tell all. probe.c */
bool format_reads_forward(const uint8_t *head, size_t head_bytes);

/* Is it told by its end, which @tail is, what it is? The name of the format; NULL: it
 * is not. probe.c */
const char *format_of_tail(struct source *tail);

/* Does the content match @ops? A raw image always does. probe.c */
int format_matches(const struct format_ops *ops, struct source *src,
		   struct error *err);

#endif
