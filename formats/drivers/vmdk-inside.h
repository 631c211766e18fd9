/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VMDK between its driver, its descriptor's parser and its checker; no other
 * format includes this. Numbers on disk are little endian, units are sectors
 * of 512 bytes. The document is VMware's "Virtual Disk Format 5.0"; what it
 * leaves out (COWD's fields, seSparse) is in libyal's description of the
 * format and in what files in the field agree on.
 */
#ifndef FORMATS_DRIVERS_VMDK_INSIDE_H
#define FORMATS_DRIVERS_VMDK_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layer.h"

#define VMDK_SECTOR_BYTES 512U

/* Limits */
#define VMDK_DESCRIPTOR_MAX	  ((1U << 20) - 1)
#define VMDK_GRAIN_SECTORS_MAX	  (1U << 21)
#define VMDK_COMPRESSED_GRAIN_MAX (2U << 20) /* bytes: one is decoded whole */
#define VMDK_GD_ENTRIES_MAX	  (32U << 20)
#define VMDK_EXTENTS_MAX	  32768U
#define VMDK_DDB_MAX		  256U

#define VMDK_NO_PARENT 0xffffffffU /* parentCID of a disk that has none */

#define VMDK_HOSTED_MAGIC	 0x564d444bU /* "KDMV" */
#define VMDK_HOSTED_HEADER_BYTES 512U
#define VMDK_HOSTED_CAPACITY_AT	 12U
#define VMDK_COWD_MAGIC		 0x44574f43U /* "COWD" */
#define VMDK_COWD_HEADER_BYTES	 2048U /* the longest of all */
#define VMDK_TABLE_ENTRIES_MAX	 4096U

/* Markers of streamOptimized files */
enum {
	VMDK_MARKER_VALUE_AT = 0,
	VMDK_MARKER_SIZE_AT = 8,
	VMDK_MARKER_TYPE_AT =
		12, /* of metadata; a grain's stream begins here */
	VMDK_MARKER_BYTES = 16,
	VMDK_GRAIN_HEADER_BYTES = 12,
};

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };

enum vmdk_extent_type {
	VMDK_FLAT,
	VMDK_SPARSE,
	VMDK_ZERO,
	VMDK_VMFS,
	VMDK_VMFSSPARSE,
	VMDK_SESPARSE,
};

const char *vmdk_type_name(enum vmdk_extent_type type);

/* An extent line of the descriptor. */
struct vmdk_line {
	enum vmdk_access access;
	enum vmdk_extent_type type;
	uint64_t sectors;
	uint64_t offset; /* sectors into the file; flat extents */
	char *name; /* in the descriptor's text; NULL: ZERO has none */
	uint64_t at; /* the line, bytes from the file's start */
};

struct vmdk_pair {
	const char *key, *value;
};

/* Strings lie in text. */
struct vmdk_descriptor {
	char *text;
	bool has_version;
	bool has_cid;
	bool has_parent_cid;
	bool open_end; /* the last line has no line break */
	uint32_t cid;
	uint32_t parent_cid; /* VMDK_NO_PARENT where it is not given */
	const char *create_type;
	uint64_t create_type_at;
	char *parent_hint;
	uint64_t parent_hint_at;
	const char *encoding;
	struct vmdk_line *lines;
	size_t n_lines;
	size_t room;
	struct vmdk_pair ddb[VMDK_DDB_MAX];
	size_t n_ddb;
};

/* Do these first bytes of a file look like a descriptor? */
bool vmdk_is_descriptor(const uint8_t *head, size_t head_bytes);

/*
 * Parses @len bytes of text, which lie at @at of the file, in one pass; it
 * ends at the first NUL. Takes @text over, also on failure: malloc()ed, with
 * room for one byte more.
 */
int vmdk_descriptor_parse(struct vmdk_descriptor *ret, char *text, size_t len,
			  uint64_t at, struct error *err);
/* Does it say what every descriptor says? */
int vmdk_descriptor_check(const struct vmdk_descriptor *d, struct error *err);
void vmdk_descriptor_done(struct vmdk_descriptor *d);

/*
 * @name in UTF-8, where the descriptor declares an encoding that we know and
 * the name needs it; else NULL. To be freed.
 */
char *vmdk_name_to_utf8(const struct vmdk_descriptor *d, const char *name);

enum vmdk_kind {
	VMDK_KIND_ZERO,
	VMDK_KIND_FLAT,
	VMDK_KIND_HOSTED, /* "KDMV" */
	VMDK_KIND_COWD,
	VMDK_KIND_SESPARSE,
};

/* A run of the disk, and where it lies. All in bytes. */
struct vmdk_extent {
	uint64_t guest_off;
	uint64_t bytes;
	enum vmdk_kind kind;
	bool noaccess;
	struct source *src;
	uint64_t host_off; /* FLAT */

	/* Sparse extents: directory -> tables -> grains. */
	uint32_t version;
	uint32_t flags;
	uint64_t capacity; /* what the header says; >= bytes */
	uint64_t grain_bytes;
	uint32_t table_entries;
	uint32_t entry_bytes; /* of directory and tables: 4, seSparse 8 */
	uint64_t gd_off;
	uint64_t gd_entries; /* as many as capacity needs */
	uint64_t rgd_off; /* 0: there is no second one */
	bool gd_lost; /* the first one is not in the file */
	bool zero_entries; /* entry 1 means zeroes */
	bool compressed;
	bool markers; /* a grain has its own sector and size */
	bool dirty;
	uint64_t overhead; /* where grains may begin */
	uint64_t grains_from; /* as far as that can be relied on; else 0 */
	uint64_t descriptor_off; /* embedded; 0: none */
	uint64_t descriptor_bytes;
	uint64_t tables_off; /* seSparse */
	uint64_t n_tables;
	uint64_t grains_off;
};

/* Bytes of @n sectors; whoever has @n from the file asks first whether it fits. */
static inline uint64_t vmdk_sectors(uint64_t n)
{
	return n * VMDK_SECTOR_BYTES;
}

static inline bool vmdk_off_fits(uint64_t sector)
{
	return sector <= UINT64_MAX / VMDK_SECTOR_BYTES;
}

static inline uint64_t vmdk_table_bytes(const struct vmdk_extent *e)
{
	return (uint64_t)e->table_entries * e->entry_bytes;
}

/* What one table maps. */
static inline uint64_t vmdk_table_span(const struct vmdk_extent *e)
{
	return e->grain_bytes * e->table_entries;
}

static inline uint64_t vmdk_header_bytes(const struct vmdk_extent *e)
{
	return e->kind == VMDK_KIND_COWD ? VMDK_COWD_HEADER_BYTES
					 : VMDK_HOSTED_HEADER_BYTES;
}

struct vmdk_state {
	struct vmdk_descriptor d; /* text NULL: there is none */
	struct vmdk_extent *extents; /* ascending, without gaps */
	size_t n_extents;
	bool bare; /* no descriptor */
	bool has_generation; /* COWD without a descriptor */
	uint32_t generation;
	uint32_t parent_generation;
};

/* What an entry says of a grain. */
struct vmdk_grain {
	enum extent_kind kind; /* HOLE, ZERO, DATA (compressed or not) */
	uint64_t host_off;
};

/* What a directory entry says of a table. */
struct vmdk_table {
	enum extent_kind kind; /* HOLE, ZERO: all of it; DATA: see off */
	uint64_t off;
};

/* ---- vmdk-sparse.c: headers; sizes and places are checked ---- */

/*
 * Each fills @e, whose src is open, from the header at @head: the file's first
 * @len bytes. -ENOTSUP: a version or feature that we have not; -EFBIG: over a
 * limit.
 */
int vmdk_hosted_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		     struct error *err);
int vmdk_cowd_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		   struct error *err);
/* format_ops.open_ended: not one whose directory a footer tells of. */
bool vmdk_hosted_open_ended(const uint8_t *head, size_t head_bytes);
/* Does the embedded descriptor, as e->descriptor_* have it, lie in the file? */
int vmdk_check_embedded(const struct vmdk_extent *e, struct error *err);
/* The name and generations in a COWD header without a descriptor. */
int vmdk_cowd_take_parent(struct layer *l, const uint8_t *head, size_t len,
			  struct error *err);
/* Are the generations of two such the right ones? */
int vmdk_cowd_check_parent(const struct vmdk_state *s,
			   const struct vmdk_state *parent, struct error *err);

/* What all sparse headers say; @at: the field, for messages. In sectors. */
int vmdk_check_capacity(uint64_t n, uint64_t at, struct error *err);
int vmdk_check_grain(uint64_t grain, uint64_t at, struct error *err);
/* Counts the directory's entries, which lie in the file: e->gd_off. */
int vmdk_check_directory(struct vmdk_extent *e, uint64_t at, struct error *err);

/* ---- vmdk-sesparse.c ---- */

bool vmdk_is_sesparse(const uint8_t *head, size_t len);
int vmdk_se_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		 struct error *err);
/* Decode entries of its directory and tables; in the machine's byte order. */
int vmdk_se_find_table(const struct vmdk_extent *e, uint64_t entry,
		       struct vmdk_table *ret, struct error *err);
int vmdk_se_decode_entry(const struct vmdk_extent *e, uint64_t entry,
			 struct vmdk_grain *ret, struct error *err);

/* ---- vmdk-grains.c: directory -> tables -> grains ---- */

/* format_ops.map of [@in, @in + @len) of the sparse extent @e. */
int vmdk_map_sparse(struct layer *l, const struct vmdk_extent *e, uint64_t in,
		    uint64_t len, struct extent *ret, struct error *err);

/*
 * The table @idx through the first directory or, with @second, the redundant
 * one. -EBADMSG: not to be found in the file.
 */
int vmdk_find_table(struct layer *l, const struct vmdk_extent *e, uint64_t idx,
		    bool second, struct vmdk_table *ret, struct error *err);

/* How many entries of the table @idx the disk has use for. */
uint64_t vmdk_table_used(const struct vmdk_extent *e, uint64_t idx);

/* Decodes a table entry as it lies in the file; checks that the grain begins
 * inside the file, and not among the metadata. */
int vmdk_decode_entry(const struct vmdk_extent *e, const uint8_t *raw,
		      struct vmdk_grain *ret, struct error *err);

/* A compressed grain's header. */
struct vmdk_marker {
	uint64_t host_off; /* of the stream */
	uint32_t bytes; /* inside the file, > 0 */
};

int vmdk_read_marker(struct layer *l, const struct vmdk_extent *e,
		     uint64_t grain, uint64_t host_off, struct vmdk_marker *ret,
		     struct error *err);

/* format_ops.check; vmdk-check.c */
int vmdk_check(struct layer *l, struct check_report *r, struct error *err);

#endif
