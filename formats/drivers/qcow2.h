/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow2 on disk, for its reader, its checker and its writer; no other format
 * includes this. All numbers are big endian. The document is QEMU's
 * docs/interop/qcow2.txt; sections are named after its headings.
 */
#ifndef FORMATS_DRIVERS_QCOW2_H
#define FORMATS_DRIVERS_QCOW2_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/codec/cipher.h"
#include "formats/codec/codec.h"
#include "formats/layer.h"
#include "formats/codec/luks-key.h"

#define QCOW2_MAGIC 0x514649fbU /* "QFI\xfb" */

/* Header: byte offsets of its fields */
enum {
	QCOW2_MAGIC_AT = 0,
	QCOW2_VERSION_AT = 4,
	QCOW2_BACKING_OFF_AT = 8,
	QCOW2_BACKING_BYTES_AT = 16,
	QCOW2_CLUSTER_BITS_AT = 20,
	QCOW2_SIZE_AT = 24,
	QCOW2_CRYPT_AT = 32,
	QCOW2_L1_ENTRIES_AT = 36,
	QCOW2_L1_OFF_AT = 40,
	QCOW2_REFTABLE_OFF_AT = 48,
	QCOW2_REFTABLE_CLUSTERS_AT = 56,
	QCOW2_SNAPSHOTS_AT = 60,
	QCOW2_SNAPSHOTS_OFF_AT = 64,
	QCOW2_V2_HEADER_BYTES = 72,
	QCOW2_INCOMPATIBLE_AT = 72,
	QCOW2_COMPATIBLE_AT = 80,
	QCOW2_AUTOCLEAR_AT = 88,
	QCOW2_REFCOUNT_ORDER_AT = 96,
	QCOW2_HEADER_BYTES_AT = 100,
	QCOW2_V3_HEADER_BYTES = 104,
	QCOW2_COMPRESSION_AT = 104,
};

enum {
	QCOW2_INCOMPAT_DIRTY = 1 << 0,
	QCOW2_INCOMPAT_CORRUPT = 1 << 1,
	QCOW2_INCOMPAT_DATA_FILE = 1 << 2,
	QCOW2_INCOMPAT_COMPRESSION = 1 << 3,
	QCOW2_INCOMPAT_EXTENDED_L2 = 1 << 4,
	QCOW2_INCOMPAT_KNOWN = (1 << 5) - 1,

	QCOW2_COMPAT_LAZY_REFCOUNTS = 1 << 0,

	QCOW2_AUTOCLEAR_BITMAPS = 1 << 0,
	QCOW2_AUTOCLEAR_DATA_FILE_RAW = 1 << 1,
};

enum { QCOW2_CRYPT_NONE = 0, QCOW2_CRYPT_AES = 1, QCOW2_CRYPT_LUKS = 2 };
enum { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 };

/* Header extensions */
#define QCOW2_EXT_END		 0x00000000U
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acaU
#define QCOW2_EXT_FEATURE_NAMES	 0x6803f857U
#define QCOW2_EXT_BITMAPS	 0x23852875U
#define QCOW2_EXT_CRYPTO	 0x0537be77U
#define QCOW2_EXT_DATA_FILE	 0x44415441U
/*
 * platter's own, which others keep and do not heed: whose answers lie in a log
 * beside the file, see qcow2-log.c. A boot id and a number of that log's; all
 * zeroes: there is none.
 */
#define QCOW2_EXT_MARK		 0x706c7472U /* "pltr" */
#define QCOW2_MARK_BYTES	 32U

/*
 * Which disk the backing file was, if that is made at opening: as layer_declare()
 * has it behind the format's name, which is in an extension of its own, as it is
 * with others.
 */
#define QCOW2_EXT_MADE	  0x706c746dU /* "pltm" */
/*
 * The same: the epoch of those who may write it, 8 bytes, see overlay_fence().
 * A file that has none is of epoch 0.
 */
#define QCOW2_EXT_EPOCH	  0x706c7465U /* "plte" */
#define QCOW2_EPOCH_BYTES 8U
/*
 * The same: what it has as its backing file is copied to it, and it will have
 * another then, see overlay_pull(). 8 bytes: 0, or 1 where that is not to be
 * read yet.
 */
#define QCOW2_EXT_PULL	  0x706c7470U /* "pltp" */
#define QCOW2_PULL_BYTES  8U

/* Limits: QEMU's own, so that what it makes is read */
#define QCOW2_CLUSTER_BITS_MIN	 9U
#define QCOW2_CLUSTER_BITS_MAX	 21U
#define QCOW2_EXTL2_BITS_MIN	 14U
#define QCOW2_L1_BYTES_MAX	 (32U << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8U << 20)
#define QCOW2_REFCOUNT_ORDER_MAX 6U
#define QCOW2_SNAPSHOTS_MAX	 65536U
#define QCOW2_SNAPSHOT_EXTRA_MAX 1024U
#define QCOW2_SNAPSHOT_TABLE_MAX (64U << 20)
#define QCOW2_BITMAPS_MAX	 65535U
#define QCOW2_BITMAP_NAME_MAX	 1023U
#define QCOW2_BITMAP_DIR_MAX \
	(QCOW2_BITMAPS_MAX * (QCOW2_BITMAP_ENTRY_BYTES + 1024ULL))
#define QCOW2_GRANULARITY_BITS_MIN 9U
#define QCOW2_GRANULARITY_BITS_MAX 31U
#define QCOW2_BACKING_NAME_MAX	   1023U

/* "Bitmaps": the fixed part of a directory entry, flags, table entries */
enum {
	QCOW2_BITMAP_TABLE_OFF_AT = 0,
	QCOW2_BITMAP_TABLE_ENTRIES_AT = 8,
	QCOW2_BITMAP_FLAGS_AT = 12,
	QCOW2_BITMAP_TYPE_AT = 16,
	QCOW2_BITMAP_GRANULARITY_BITS_AT = 17,
	QCOW2_BITMAP_NAME_BYTES_AT = 18,
	QCOW2_BITMAP_EXTRA_BYTES_AT = 20,
	QCOW2_BITMAP_ENTRY_BYTES = 24,

	QCOW2_BITMAP_IN_USE = 1 << 0,
	QCOW2_BITMAP_EXTRA_COMPATIBLE = 1 << 2,
	QCOW2_BITMAP_FLAGS_KNOWN = 7, /* these, and auto */
	QCOW2_BITMAP_DIRTY = 1, /* the only type */
};
#define QCOW2_BITMAP_RESERVED 0xff000000000001feULL
#define QCOW2_BITMAP_ALL_SET  (1ULL << 0) /* where there is no offset */

/* L1, L2 and refcount table entries */
#define QCOW2_OFFSET_MASK   0x00fffffffffffe00ULL
#define QCOW2_COPIED	    (1ULL << 63)
#define QCOW2_COMPRESSED    (1ULL << 62)
#define QCOW2_ZERO	    (1ULL << 0)
#define QCOW2_L1_RESERVED   0x7f000000000001ffULL
#define QCOW2_L2_RESERVED   0x3f000000000001feULL
#define QCOW2_REFTABLE_MASK 0xfffffffffffffe00ULL
#define QCOW2_SUBCLUSTERS   32U

/* The header, decoded; field names are the document's, with units. */
struct qcow2_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_off;
	uint32_t backing_bytes;
	uint32_t cluster_bits;
	uint64_t size; /* virtual, bytes */
	uint32_t crypt_method;
	uint32_t l1_entries;
	uint64_t l1_off;
	uint64_t reftable_off;
	uint32_t reftable_clusters;
	uint32_t snapshots;
	uint64_t snapshots_off;
	uint64_t incompatible;
	uint64_t compatible;
	uint64_t autoclear;
	uint32_t refcount_order;
	uint32_t header_bytes;
	uint8_t compression;
	bool looks_like_3; /* version 2 with version 3's fields */
};

/* A snapshot table entry, decoded. Names are malloc()ed. */
struct qcow2_snapshot {
	uint64_t l1_off;
	uint32_t l1_entries;
	uint64_t bytes; /* virtual size then */
	uint64_t vm_state_bytes;
	uint32_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	char *id;
	char *name;
	uint64_t entry_bytes; /* in the table, padding included */
	uint32_t idx; /* in the table, where that was walked */
};

struct qcow2_state {
	struct qcow2_header h;
	uint32_t cluster_bits;
	uint64_t cluster_bytes;
	uint32_t l2_entry_bytes; /* 8, or 16 with subclusters */
	uint32_t l2_bits; /* log2 of an L2 table's entries */

	/* What is served: the live state, or a snapshot. */
	bool is_another_state;
	uint32_t snapshot_idx; /* which, in the table */
	bool is_shared; /* somebody may be writing it: open_options.share */
	uint64_t l1_off;
	uint32_t l1_entries;

	struct source *data; /* where clusters lie: the file, or another */
	bool has_data_file;
	bool lost_backing; /* its format is there, its name is not */
	struct cipher *cipher;
	enum codec codec;
	struct luks_info luks; /* LUKS images */
	uint64_t crypto_off; /* crypto header extension: where, how long */
	uint64_t crypto_bytes;

	/* The mark of its log: where in the file (0: nowhere), and what. */
	uint64_t mark_off;
	uint8_t mark[QCOW2_MARK_BYTES];

	/* Of the epoch: where in the file (0: nowhere), and what. */
	uint64_t epoch_off;
	uint64_t epoch;
	bool pulling; /* QCOW2_EXT_PULL */
	bool pull_held; /* and that not yet */
	uint64_t pull_off; /* where in the file it says so */

	/* Bitmaps extension, as it is, checked by who uses it; 0: none. */
	uint32_t bitmaps;
	uint64_t bitmap_dir_off;
	uint64_t bitmap_dir_bytes;
};

/* ---- qcow2-snapshots.c ---- */

/*
 * Decodes the snapshot table entry at @off ("Snapshots"). @ret is the
 * caller's to qcow2_snapshot_done().
 */
int qcow2_read_snapshot(struct layer *l, uint64_t off,
			struct qcow2_snapshot *ret, struct error *err);
void qcow2_snapshot_done(struct qcow2_snapshot *s);
/* Calls @each with every entry of the snapshot table, until it is not 0. */
int qcow2_each_snapshot(struct layer *l,
			int (*each)(void *opaque,
				    const struct qcow2_snapshot *s),
			void *opaque, struct error *err);
/*
 * By id first, then by name, as `qemu-img snapshot` looks. -ENOENT: there is
 * none. @ret has the numbers alone, and no strings; its L1 table is not checked.
 */
int qcow2_find_snapshot(struct layer *l, const char *wanted,
			struct qcow2_snapshot *ret, struct error *err);
/* format_ops.snapshots */
int qcow2_snapshots(struct layer *l,
		    int (*each)(void *opaque, const struct snapshot *s),
		    void *opaque, struct error *err);

/* ---- qcow2-bitmaps.c ---- */

/* format_ops.bitmaps, format_ops.map_bitmap */
int qcow2_bitmaps(struct layer *l,
		  int (*each)(void *opaque, const struct bitmap *b),
		  void *opaque, struct error *err);
int qcow2_map_bitmap(struct layer *l, const struct bitmap *b,
		     uint64_t guest_off, uint64_t len, bool *ret_set,
		     uint64_t *ret_len, struct error *err);

/* ---- qcow2-extensions.c ---- */

/*
 * Calls @each for every extension in @buf, the first @len bytes of the file,
 * until one fails. "Header extensions": an 8-byte head, data, padding to 8;
 * ended by type 0 or the cluster's end.
 */
int qcow2_each_extension(struct layer *l, const uint8_t *buf, size_t len,
			 int (*each)(struct layer *l, uint32_t type,
				     const uint8_t *data, size_t bytes,
				     size_t at, struct error *err),
			 struct error *err);
/*
 * A copy as a string, to be freed. NULL, and @err: it holds a NUL, as no name in
 * a header does; or no memory.
 */
char *qcow2_copy_name(const uint8_t *data, size_t bytes, const char *what,
		      uint64_t at, struct error *err);
/* Refuses, by the image's own names for them, features that nobody knows. */
int qcow2_check_incompatible(struct layer *l, const uint8_t *buf, size_t len,
			     struct error *err);

/* ---- qcow2-entries.c ---- */

/*
 * What is wrong with a table of @entries of @entry_bytes at @off? Aligned to
 * clusters, at most @max_bytes, and inside the file. "Cluster mapping" and
 * "Refcounts" demand as much. 0, -EBADMSG or -EFBIG.
 */
int qcow2_check_table(const struct layer *l, const char *what, uint64_t off,
		      uint64_t entries, uint32_t entry_bytes,
		      uint64_t max_bytes, uint64_t field_at, struct error *err);

/* Header, L1 table, refcount table: no cluster and no L2 table lie there. */
bool qcow2_lies_on_metadata(const struct qcow2_state *s, uint64_t off);

/* What an L2 entry says of one cluster, or of one of its subclusters. */
struct qcow2_answer {
	enum extent_kind kind;
	uint64_t host_off; /* DATA: of the cluster; COMPRESSED: of the data */
	uint32_t comp_bytes;
};

/*
 * Decodes the L2 entry @raw, as it lies in the file: 8 bytes, or 16 with the
 * bitmap of subclusters. @guest_off: of a byte in the (sub)cluster that is
 * asked for. What contradicts itself is -EBADMSG.
 */
int qcow2_decode_entry(const struct qcow2_state *s, const uint8_t *raw,
		       uint64_t guest_off, struct qcow2_answer *ret,
		       struct error *err);

/*
 * For how many bytes from @guest_off on the same entry says the same: to the end
 * of the cluster at most, whole subclusters from the second on.
 */
uint64_t qcow2_same_bytes(const struct qcow2_state *s, const uint8_t *raw,
			  uint64_t guest_off);

/*
 * Does the mark say that a process of this boot had not ended with the file?
 * What it was answering may be in its log, and nowhere else yet.
 */
bool qcow2_is_left_open(const struct qcow2_state *s);

/* format_ops.check; qcow2-check.c */
int qcow2_check(struct layer *l, struct check_report *r, struct error *err);

#endif
