/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/drivers/qcow2-check.c: a sound image in which everything occurs, and what is
 * said when one number of it is wrong; then files that claim to be immense.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/qcow2.h"
#include "tests/lib/unit.h"

#define BITS	    10U
#define CLUSTER	    (1U << BITS)
#define L2_CLUSTERS 128U /* guest clusters of an L2 table */

/*
 * Clusters of the file. The snapshot shares the second L2 table and its data
 * with the live state.
 */
enum {
	REFTABLE = 1,
	REFBLOCK,
	L1,
	L2,
	SHARED_L2,
	DATA, /* guest clusters 0 to 2 */
	DATA_ZERO = DATA + 2,
	PACKED, /* compressed: guest clusters 3 and 4 */
	SHARED_DATA, /* guest cluster 128 */
	SNAPSHOT_L1,
	SNAPSHOTS,
	BITMAP_DIR,
	BITMAP_TABLE,
	BITMAP,
	CRYPTO,
	CLUSTERS,
};

/* References to each cluster, from the top of this page. */
static const uint8_t refs[CLUSTERS] = { 1, 1, 1, 1, 1, 2, 1, 1, 1,
					2, 2, 1, 1, 1, 1, 1, 1 };

#define PACKED_AT(off, sectors)                                        \
	(QCOW2_COMPRESSED | (uint64_t)(sectors) << (62 - (BITS - 8)) | \
	 (uint64_t)(off))

static struct error err;
static uint8_t file[64 * CLUSTER];
static size_t file_bytes;
static struct open_options options;

static void put(size_t at, unsigned int width, uint64_t value)
{
	ck_assert_uint_le(at + width, sizeof(file));
	while (width--) {
		file[at + width] = (uint8_t)value;
		value >>= 8;
	}
}

static size_t at(uint64_t cluster)
{
	return (size_t)cluster * CLUSTER;
}

/* The refcount of @cluster, @width its bits as a power of two. */
static void put_ref(uint64_t cluster, uint64_t value, unsigned int order)
{
	size_t bit = (size_t)cluster << order;

	if (order >= 3) {
		put(at(REFBLOCK) + bit / 8, 1U << (order - 3), value);
		return;
	}
	file[at(REFBLOCK) + bit / 8] &=
		(uint8_t) ~(((1U << (1U << order)) - 1) << bit % 8);
	file[at(REFBLOCK) + bit / 8] |= (uint8_t)(value << bit % 8);
}

static void put_header(void)
{
	put(QCOW2_MAGIC_AT, 4, QCOW2_MAGIC);
	put(QCOW2_VERSION_AT, 4, 3);
	put(QCOW2_CLUSTER_BITS_AT, 4, BITS);
	put(QCOW2_SIZE_AT, 8, 2 * L2_CLUSTERS * CLUSTER - 100);
	put(QCOW2_L1_ENTRIES_AT, 4, 2);
	put(QCOW2_L1_OFF_AT, 8, at(L1));
	put(QCOW2_REFTABLE_OFF_AT, 8, at(REFTABLE));
	put(QCOW2_REFTABLE_CLUSTERS_AT, 4, 1);
	put(QCOW2_REFCOUNT_ORDER_AT, 4, 4);
	put(QCOW2_HEADER_BYTES_AT, 4, 104);
}

static void put_snapshot(void)
{
	put(QCOW2_SNAPSHOTS_AT, 4, 1);
	put(QCOW2_SNAPSHOTS_OFF_AT, 8, at(SNAPSHOTS));
	put(at(SNAPSHOTS), 8, at(SNAPSHOT_L1));
	put(at(SNAPSHOTS) + 8, 4, 2);
	put(at(SNAPSHOTS) + 12, 2, 1);
	put(at(SNAPSHOTS) + 36, 4, 16);
	put(at(SNAPSHOTS) + 48, 8, 2 * L2_CLUSTERS * CLUSTER);
	put(at(SNAPSHOTS) + 56, 1, '1');
	put(at(SNAPSHOT_L1) + 8, 8, at(SHARED_L2));
}

enum { EXT_BITMAPS_AT = 104, EXT_CRYPTO_AT = 136 };

static void put_extensions(void)
{
	put(QCOW2_AUTOCLEAR_AT, 8, QCOW2_AUTOCLEAR_BITMAPS);
	put(EXT_BITMAPS_AT, 4, QCOW2_EXT_BITMAPS);
	put(EXT_BITMAPS_AT + 4, 4, 24);
	put(EXT_BITMAPS_AT + 8, 4, 1);
	put(EXT_BITMAPS_AT + 16, 8, 32);
	put(EXT_BITMAPS_AT + 24, 8, at(BITMAP_DIR));
	put(at(BITMAP_DIR), 8, at(BITMAP_TABLE));
	put(at(BITMAP_DIR) + 8, 4, 3);
	put(at(BITMAP_DIR) + 12, 4, 7);
	put(at(BITMAP_DIR) + 16, 1, 1);
	put(at(BITMAP_DIR) + 18, 2, 1);
	put(at(BITMAP_DIR) + 24, 1, 'b');
	put(at(BITMAP_TABLE), 8, at(BITMAP));
	put(at(BITMAP_TABLE) + 8, 8, 1); /* all ones, no cluster */
	put(EXT_CRYPTO_AT, 4, QCOW2_EXT_CRYPTO);
	put(EXT_CRYPTO_AT + 4, 4, 16);
	put(EXT_CRYPTO_AT + 8, 8, at(CRYPTO));
	put(EXT_CRYPTO_AT + 16, 8, CLUSTER);
}

static void setup(void)
{
	size_t i;

	err = (struct error){ 0 };
	memset(file, 0, sizeof(file));
	file_bytes = at(CLUSTERS);
	put_header();
	put_snapshot();
	put_extensions();
	put(at(REFTABLE), 8, at(REFBLOCK));
	for (i = 0; i < CLUSTERS; i++)
		put_ref(i, refs[i], 4);
	put(at(L1), 8, at(L2) | QCOW2_COPIED);
	put(at(L1) + 8, 8, at(SHARED_L2));
	put(at(L2), 8, at(DATA) | QCOW2_COPIED);
	put(at(L2) + 8, 8, at(DATA + 1) | QCOW2_COPIED);
	put(at(L2) + 16, 8, at(DATA_ZERO) | QCOW2_COPIED | QCOW2_ZERO);
	put(at(L2) + 24, 8, PACKED_AT(at(PACKED) + 100, 0));
	put(at(L2) + 32, 8, PACKED_AT(at(PACKED) + 300, 1));
	put(at(SHARED_L2), 8, at(SHARED_DATA));
}

/* --- what is said --- */

static char *lines;
static size_t lines_bytes, lines_room, n_lines;

static void keep_line(struct check_report *r, const char *line)
{
	size_t len = strlen(line);

	ck_assert_ptr_null(strchr(line, '\n'));
	if (lines_bytes + len + 2 > lines_room) {
		lines_room = 2 * lines_room + len + 2;
		lines = realloc(lines, lines_room);
	}
	memcpy(lines + lines_bytes, line, len);
	lines_bytes += len;
	lines[lines_bytes++] = '\n';
	lines[lines_bytes] = '\0';
	n_lines++;
}

static void teardown(void)
{
	free(TAKE_PTR(lines));
	lines_bytes = lines_room = n_lines = 0;
}

static struct layer *layer_of(struct source *src)
{
	struct layer *l = NULL;
	struct folder *folder = NULL;

	must(folder_open(unit_path("."), &folder, &err), err);
	must(layer_open(src, "NAME", folder_place(folder), "qcow2", true,
			&options, &l, &err),
	     err);
	folder_unref(folder);
	return l;
}

static struct check_report checked(struct source *src, int *ret)
{
	CLEANUP(layer_unrefp) struct layer *l = layer_of(src);
	struct check_report r = { .say = keep_line };

	*ret = l->ops->check(l, &r, &err);
	ck_assert_int_eq(*ret, err.code);
	return r;
}

static struct check_report check_file(void)
{
	struct check_report report;
	struct source *src = NULL;
	int r;

	must(memory_source_new(file, file_bytes, &src, &err), err);
	report = checked(src, &r);
	must(r, err);
	return report;
}

static void must_say(const char *part)
{
	ck_assert_msg(lines && strstr(lines, part),
		      "not said: \"%s\", but:\n%s", part,
		      lines ? lines : "nothing");
}

static void must_be_sound(const struct check_report *r)
{
	ck_assert_msg(!r->corruptions && !r->leaks && !r->check_errors &&
			      !lines,
		      "%s", lines ? lines : "counted, not said");
}

/* --- sound images --- */

START_TEST(a_sound_image_has_no_findings_and_its_numbers_are_right)
{
	struct check_report r = check_file();

	must_be_sound(&r);
	ck_assert_uint_eq(r.total_units, 256);
	ck_assert_uint_eq(r.allocated_units, 6); /* of the live state */
	ck_assert_uint_eq(r.compressed_units, 2);
	ck_assert_uint_eq(r.fragmented_units, 2);
	ck_assert_uint_eq(r.image_end_off, CLUSTERS * CLUSTER);
}
END_TEST

START_TEST(clusters_that_do_not_lie_in_order_are_fragmented)
{
	struct check_report r;

	put(at(L2), 8, at(DATA + 1) | QCOW2_COPIED);
	put(at(L2) + 8, 8, at(DATA) | QCOW2_COPIED);
	r = check_file();
	must_be_sound(&r);
	ck_assert_uint_eq(r.fragmented_units, 4);
}
END_TEST

START_TEST(the_file_may_end_in_the_midst_of_its_last_cluster)
{
	struct check_report r;

	/* compressed data last; their last sector is not all there */
	put(at(L2) + 24, 8, PACKED_AT(at(CLUSTERS) + 10, 0));
	put(at(L2) + 32, 8, 0);
	put_ref(PACKED, 0, 4);
	put_ref(CLUSTERS, 1, 4);
	file_bytes = at(CLUSTERS) + 20;
	r = check_file();
	must_be_sound(&r);
	ck_assert_uint_eq(r.image_end_off, (CLUSTERS + 1) * CLUSTER);
}
END_TEST

/* As peers have it: sectors are claimed by the clusters' room. */
START_TEST(sectors_less_than_a_cluster_behind_the_end_are_fine)
{
	struct check_report r;

	put(at(L2) + 24, 8, PACKED_AT(at(CLUSTERS) + 10, 2));
	put(at(L2) + 32, 8, 0);
	put_ref(PACKED, 0, 4);
	put_ref(CLUSTERS, 1, 4);
	put_ref(CLUSTERS + 1, 1, 4);
	file_bytes = at(CLUSTERS + 1) - 5;
	r = check_file();
	must_be_sound(&r);
	ck_assert_uint_eq(r.image_end_off, (CLUSTERS + 2) * CLUSTER);
}
END_TEST

/* The snapshot gone: no cluster is referred to twice. */
static void unshare(void)
{
	put(QCOW2_SNAPSHOTS_AT, 4, 0);
	put(at(L1) + 8, 8, at(SHARED_L2) | QCOW2_COPIED);
	put(at(SHARED_L2), 8, at(SHARED_DATA) | QCOW2_COPIED);
	put(at(L2) + 32, 8, 0);
}

/* All widths from 1 bit to 64: every cluster 1 but for the snapshot's. */
static void use_order(unsigned int order)
{
	size_t i;

	unshare();
	put(QCOW2_REFCOUNT_ORDER_AT, 4, order);
	memset(file + at(REFBLOCK), 0, CLUSTER);
	for (i = 0; i < CLUSTERS; i++)
		put_ref(i, i != SNAPSHOT_L1 && i != SNAPSHOTS, order);
}

START_TEST(refcounts_of_every_width_are_read)
{
	unsigned int order = (unsigned int)_i;
	uint64_t max = UINT64_MAX >> (64 - (1U << order));
	struct check_report r;

	use_order(order);
	r = check_file();
	must_be_sound(&r);

	put_ref(BITMAP, 0, order);
	r = check_file();
	ck_assert_uint_eq(r.corruptions, 1);
	ck_assert_uint_eq(r.leaks, 0);
	must_say("refcount 0, references 1");

	put_ref(BITMAP, 1, order);
	put_ref(SNAPSHOTS, max, order);
	r = check_file();
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.leaks, 1);
	must_say("leaked cluster 12 at 12288 (nothing): refcount");
}
END_TEST

/* --- what is wrong with one number --- */

struct field {
	size_t at;
	unsigned int width; /* 0: no such field */
	uint64_t value;
};

/* at() for tables: where a cluster begins. */
#define AT(cluster) ((uint64_t)(cluster)*CLUSTER)

static const struct {
	struct field fields[2];
	uint64_t corruptions, leaks;
	const char *says;
} findings[] = {
	/* refcounts */
	{ { { AT(REFBLOCK) + 2 * DATA, 2, 0 } },
	  2,
	  0,
	  "cluster 6 at 6144 (data): refcount 0, references 1" },
	{ { { AT(REFBLOCK) + 2 * SHARED_DATA, 2, 1 } },
	  2,
	  0,
	  "cluster 10 at 10240 (data): refcount 1, references 2" },
	{ { { AT(REFBLOCK) + 2 * SHARED_DATA, 2, 3 } },
	  0,
	  1,
	  "leaked cluster 10 at 10240 (data): refcount 3, references 2" },
	{ { { AT(REFBLOCK) + 2 * DATA, 4, 0x00020002 } },
	  2,
	  2,
	  "leaked clusters 6 to 7 at 6144 (data): refcount 2, references 1" },
	{ { { AT(REFBLOCK) + 2 * PACKED, 2, 1 } },
	  1,
	  0,
	  "cluster 9 at 9216 (compressed data): refcount 1, references 2" },
	{ { { AT(REFBLOCK), 2, 0 } }, 1, 0, "(header): refcount 0" },

	/* refcount table */
	{ { { AT(REFTABLE), 8, 0 } }, 20, 0, "(refcount table): refcount 0" },
	{ { { AT(REFTABLE), 8, AT(REFBLOCK) + 4 } },
	  21,
	  0,
	  "refcount table entry 0: reserved bits 0x4 are set" },
	{ { { AT(REFTABLE), 8, AT(REFBLOCK) + 512 } },
	  21,
	  0,
	  "entry 0: block at 2560 is not aligned to 1024" },
	{ { { AT(REFTABLE), 8, AT(CLUSTERS) } },
	  21,
	  0,
	  "entry 0: block at 17408 lies behind the file's end at 17408" },
	{ { { AT(REFTABLE) + 8, 8, AT(REFBLOCK) } },
	  2,
	  0,
	  "refcount table entry 1: refcount block at 2048 lies in a cluster "
	  "that is in use as refcount block" },
	{ { { AT(REFTABLE) + 8, 8, AT(REFTABLE) } },
	  2,
	  0,
	  "in use as refcount table" },

	/* L1 tables */
	{ { { AT(L1), 8, AT(L2) | QCOW2_COPIED | 1ULL << 56 } },
	  1,
	  0,
	  "L1 entry 0: reserved bits 0x100000000000000 are set" },
	{ { { AT(L1), 8, AT(L2) | QCOW2_COPIED | 1 } },
	  1,
	  0,
	  "L1 entry 0: reserved bits 0x1 are set" },
	{ { { AT(L1) + 8, 8, AT(SHARED_L2) | QCOW2_COPIED } },
	  1,
	  0,
	  "L1 entry 1: copied flag is set, but the refcount of its L2 table at "
	  "5120 is 2" },
	{ { { AT(L1), 8, AT(L2) } },
	  1,
	  0,
	  "L1 entry 0: copied flag is not set" },
	{ { { AT(L1), 8, (AT(L2) + 512) | QCOW2_COPIED } },
	  1,
	  5,
	  "L1 entry 0: L2 table at 4608 is not aligned to 1024" },
	{ { { AT(L1), 8, AT(CLUSTERS) | QCOW2_COPIED } },
	  1,
	  5,
	  "L1 entry 0: L2 table at 17408 ends behind the file's end" },
	{ { { AT(L1), 8, QCOW2_COPIED } },
	  1,
	  5,
	  "L1 entry 0: has the copied flag, but no table" },
	{ { { AT(SNAPSHOT_L1) + 8, 8, AT(CLUSTERS) } },
	  1,
	  2,
	  "snapshot 0, L1 entry 1: L2 table at 17408 ends behind" },
	/* what something else owns is not read as a table */
	{ { { AT(L1), 8, AT(REFBLOCK) | QCOW2_COPIED } },
	  2,
	  5,
	  "L1 entry 0: L2 table at 2048 lies in a cluster that is in use as "
	  "refcount block" },

	/* L2 tables */
	{ { { AT(L2), 8, AT(DATA) | QCOW2_COPIED | 2 } },
	  1,
	  0,
	  "guest cluster 0: reserved bits 0x2 are set" },
	{ { { AT(L2), 8, AT(DATA) | QCOW2_COPIED | 1ULL << 61 } },
	  1,
	  0,
	  "guest cluster 0: reserved bits 0x2000000000000000 are set" },
	{ { { AT(L2), 8, AT(DATA) } },
	  1,
	  0,
	  "guest cluster 0: copied flag is not set, but the refcount of its "
	  "data at 6144 is 1" },
	{ { { AT(SHARED_L2), 8, AT(SHARED_DATA) | QCOW2_COPIED } },
	  1,
	  0,
	  "guest cluster 128: copied flag is set, but the refcount" },
	{ { { AT(L2) + 16, 8, AT(DATA_ZERO) | QCOW2_ZERO } },
	  1,
	  0,
	  "guest cluster 2: copied flag is not set" },
	{ { { AT(L2), 8, (AT(DATA) + 512) | QCOW2_COPIED } },
	  1,
	  1,
	  "guest cluster 0: data at 6656 are not aligned to 1024" },
	{ { { AT(L2), 8, AT(CLUSTERS) | QCOW2_COPIED } },
	  2,
	  1,
	  "guest cluster 0: data at 17408 with 1024 bytes ends behind" },
	{ { { AT(L2), 8, 1ULL << 55 | QCOW2_COPIED } },
	  2,
	  1,
	  "ends behind the file's end" },
	{ { { AT(L2), 8, AT(L1) | QCOW2_COPIED } },
	  2,
	  1,
	  "guest cluster 0: data at 3072 lies in a cluster that is in use as "
	  "L1 table" },
	{ { { AT(L2), 8, AT(PACKED) }, { AT(REFBLOCK) + 2 * PACKED, 2, 3 } },
	  2, /* with the right refcount: it stays wrong */
	  1,
	  "compressed data at 9216 lies in a cluster that is in use as data" },
	{ { { AT(L2) + 24, 8, PACKED_AT(AT(PACKED) + 100, 0) | QCOW2_COPIED } },
	  1,
	  0,
	  "guest cluster 3: is compressed and has the copied flag" },
	{ { { AT(L2) + 24, 8, PACKED_AT(AT(CLUSTERS), 0) } },
	  1,
	  1,
	  "guest cluster 3: compressed data at 17408 with 512 bytes ends behind" },
	{ { { AT(L2) + 24, 8, PACKED_AT(1ULL << 50, 0) } },
	  1,
	  1,
	  "guest cluster 3: compressed data at 1125899906842624 with 512 "
	  "bytes ends behind" },
	{ { { QCOW2_VERSION_AT, 4, 3 }, { AT(L2) + 40, 8, 8 } },
	  1,
	  0,
	  "guest cluster 5: reserved bits 0x8 are set" },

	/* snapshots */
	{ { { AT(SNAPSHOTS), 8, AT(SNAPSHOT_L1) + 8 } },
	  1,
	  3,
	  "snapshot 0: L1 table at 11272 is not aligned" },
	{ { { AT(SNAPSHOTS), 8, AT(CLUSTERS) } },
	  1,
	  3,
	  "snapshot 0: L1 table at 17408 with 2 entries ends past" },
	{ { { AT(SNAPSHOTS) + 8, 4, 5 << 20 } },
	  1,
	  3,
	  "snapshot 0: L1 table of" },
	{ { { AT(SNAPSHOTS) + 48, 8, 3 * AT(L2_CLUSTERS) } },
	  1,
	  0,
	  "snapshot 0: L1 table has 2 entries, a disk of 393216 bytes needs 3" },
	{ { { AT(SNAPSHOTS) + 36, 4, 8 } },
	  1,
	  0,
	  "snapshot 0: 8 bytes of extra data, version 3 has at least 16" },
	{ { { AT(SNAPSHOTS), 8, AT(L1) } },
	  7,
	  1,
	  "L1 table at 3072 lies in a cluster that is in use as L1 table" },
	/* what the broken entry refers to is not called a leak */
	{ { { AT(SNAPSHOTS) + 36, 4, 2000 } },
	  1,
	  0,
	  "snapshot 0: snapshot's extra data of 2000 bytes" },

	/* bitmaps */
	{ { { EXT_BITMAPS_AT + 8, 4, 0 } }, 1, 3, "but there are none" },
	{ { { EXT_BITMAPS_AT + 8, 4, 65536 } },
	  1,
	  3,
	  "65536 bitmaps are over" },
	{ { { EXT_BITMAPS_AT + 24, 8, 8 } }, 1, 3, "bitmap directory at 8" },
	{ { { EXT_BITMAPS_AT + 16, 8, 1ULL << 40 } }, 1, 3, "over the limit" },
	{ { { EXT_BITMAPS_AT + 8, 4, 2 } },
	  1,
	  0,
	  "bitmap 1: directory entry at 32 ends behind the directory's 32" },
	{ { { AT(BITMAP_DIR) + 12, 4, 8 } }, 1, 0, "flags 0x8 or type 1" },
	{ { { AT(BITMAP_DIR) + 16, 1, 2 } }, 1, 0, "flags 0x7 or type 2" },
	{ { { AT(BITMAP_DIR) + 18, 2, 100 } },
	  1,
	  0,
	  "bitmap 0: directory entry" },
	{ { { AT(BITMAP_DIR), 8, 8 } }, 1, 2, "bitmap 0: table at 8 is not" },
	{ { { AT(BITMAP_DIR) + 8, 4, 1 << 30 } }, 1, 2, "bitmap 0: table of" },
	{ { { AT(BITMAP_TABLE), 8, AT(BITMAP) | 1 } },
	  1,
	  1,
	  "bitmap 0: table entry 0 is wrong: 0x0000000000003c01" },
	{ { { AT(BITMAP_TABLE), 8, AT(BITMAP) | 1ULL << 60 } },
	  1,
	  1,
	  "bitmap 0: table entry 0 is wrong" },
	{ { { AT(BITMAP_TABLE), 8, AT(BITMAP) + 512 } },
	  1,
	  1,
	  "bitmap 0: table entry 0 is wrong" },
	{ { { AT(BITMAP_TABLE), 8, AT(CLUSTERS) } },
	  1,
	  1,
	  "bitmap 0: bitmap at 17408 with 1024 bytes ends behind" },
	{ { { AT(BITMAP_TABLE) + 16, 8, AT(BITMAP) } },
	  2,
	  0,
	  "bitmap at 15360 lies in a cluster that is in use as bitmap" },
	/* a program that does not know bitmaps wrote to the image */
	{ { { QCOW2_AUTOCLEAR_AT, 8, 0 } },
	  0,
	  3,
	  "leaked clusters 13 to 15 at 13312 (nothing)" },

	/* crypto header */
	{ { { EXT_CRYPTO_AT + 8, 8, AT(L2) } },
	  1,
	  1,
	  "crypto header at 4096 lies in a cluster that is in use as L2 table" },
};

START_TEST(what_is_wrong_is_found_and_counted)
{
	struct check_report r;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(findings[0].fields); i++) {
		const struct field *f = &findings[_i].fields[i];

		if (f->width)
			put(f->at, f->width, f->value);
	}
	r = check_file();
	must_say(findings[_i].says);
	ck_assert_msg(r.corruptions == findings[_i].corruptions &&
			      r.leaks == findings[_i].leaks && !r.check_errors,
		      "row %d: %d corruptions, %d leaks:\n%s", _i,
		      (int)r.corruptions, (int)r.leaks, lines);
}
END_TEST

START_TEST(a_backing_format_without_a_backing_file_is_wrong)
{
	struct check_report r;

	use_order(4);
	put(EXT_CRYPTO_AT + 24, 4, QCOW2_EXT_BACKING_FORMAT);
	put(EXT_CRYPTO_AT + 28, 4, 3);
	memcpy(file + EXT_CRYPTO_AT + 32, "raw", 3);
	r = check_file();
	must_say("a backing format, but no backing file");
	ck_assert_uint_eq(r.corruptions, 1);
}
END_TEST

START_TEST(a_zero_cluster_in_version_2_is_wrong)
{
	struct check_report r;

	use_order(4);
	put(QCOW2_VERSION_AT, 4, 2);
	put(QCOW2_HEADER_BYTES_AT, 4, 0);
	r = check_file();
	must_say("guest cluster 2: reserved bits 0x1 are set");
	ck_assert_uint_eq(r.corruptions, 1);
}
END_TEST

START_TEST(an_l2_table_that_the_file_cuts_is_wrong)
{
	struct check_report r;

	put(at(L1) + 8, 8, at(CLUSTERS));
	put_ref(CLUSTERS, 1, 4);
	put(at(L1) + 8, 8, at(CLUSTERS) | QCOW2_COPIED);
	file_bytes = at(CLUSTERS) + 512;
	r = check_file();
	must_say("L1 entry 1: L2 table at 17408 ends behind the file's end");
	ck_assert_uint_ge(r.corruptions, 1);
}
END_TEST

/* --- subclusters --- */

static uint8_t ext_file[7 << 14];

static const struct {
	uint64_t entry, bitmap;
	const char *says; /* NULL: sound */
} bitmaps[] = {
	{ 5 << 14 | QCOW2_COPIED, 0x0f0f0f0f | 0xf0ULL << 32, NULL },
	{ 5 << 14 | QCOW2_COPIED, 0xffffffffULL << 32, NULL },
	{ 5 << 14 | QCOW2_COPIED, 0x3 | 0x6ULL << 32,
	  "guest cluster 0: subclusters 0x00000002 are both data and zeroes" },
	{ 0, 0x8,
	  "guest cluster 0: subclusters 0x00000008 have data, the cluster no "
	  "place" },
	{ 5 << 14 | QCOW2_COPIED | QCOW2_ZERO, 1,
	  "guest cluster 0: reserved bits 0x1 are set" },
	{ QCOW2_COMPRESSED | 5 << 14, 1,
	  "guest cluster 0: is compressed and has the subcluster bitmap "
	  "0x0000000000000001" },
};

START_TEST(subclusters_that_contradict_themselves_are_found)
{
	struct check_report report;
	struct source *src = NULL;
	size_t i;
	int r;

	memset(file, 0, sizeof(file));
	put_header();
	put(QCOW2_CLUSTER_BITS_AT, 4, 14);
	put(QCOW2_SIZE_AT, 8, 10 << 14);
	put(QCOW2_L1_ENTRIES_AT, 4, 1);
	put(QCOW2_L1_OFF_AT, 8, 3 << 14);
	put(QCOW2_REFTABLE_OFF_AT, 8, 1 << 14);
	put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_EXTENDED_L2);
	memset(ext_file, 0, sizeof(ext_file));
	memcpy(ext_file, file, 512);
	ext_file[(1 << 14) + 6] = 0x80; /* the refcount block is cluster 2 */
	for (i = 0; i < 6; i++)
		ext_file[(2 << 14) + 2 * i + 1] =
			i < 5 || (bitmaps[_i].entry & QCOW2_OFFSET_MASK);
	ext_file[3 << 14] = 0x80; /* the L2 table is cluster 4 */
	ext_file[(3 << 14) + 5] = 1;
	put(0, 8, bitmaps[_i].entry);
	put(8, 8, bitmaps[_i].bitmap);
	memcpy(ext_file + (4 << 14), file, 16);

	must(memory_source_new(ext_file, sizeof(ext_file), &src, &err), err);
	report = checked(src, &r);
	must(r, err);
	if (!bitmaps[_i].says) {
		must_be_sound(&report);
		ck_assert_uint_eq(report.allocated_units, 1);
		return;
	}
	must_say(bitmaps[_i].says);
	ck_assert_uint_eq(report.corruptions, 1);
}
END_TEST

/* --- external data file --- */

static const struct {
	uint64_t autoclear, entry;
	const char *says; /* NULL: sound */
} in_data_file[] = {
	{ 0, AT(2) | QCOW2_COPIED, NULL },
	{ 0, QCOW2_COPIED, NULL }, /* at its start */
	{ 0, AT(2), "guest cluster 1: copied flag is not set, as it is" },
	{ 0, AT(4) | QCOW2_COPIED,
	  "guest cluster 1: data at 4096 lie behind the external data file's "
	  "end at 4096" },
	{ QCOW2_AUTOCLEAR_DATA_FILE_RAW, AT(1) | QCOW2_COPIED, NULL },
	{ QCOW2_AUTOCLEAR_DATA_FILE_RAW, AT(2) | QCOW2_COPIED,
	  "guest cluster 1: is at 2048 of a raw external data file" },
	{ 0, PACKED_AT(AT(1), 0),
	  "guest cluster 1: is compressed, in an image with" },
};

START_TEST(clusters_of_an_external_data_file_are_not_counted)
{
	struct check_report r;
	uint8_t data[4 * CLUSTER] = { 0 };
	size_t i;

	unit_write(unit_path("data.raw"), data, sizeof(data));
	memset(file, 0, sizeof(file));
	put_header();
	put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_DATA_FILE);
	put(QCOW2_AUTOCLEAR_AT, 8, in_data_file[_i].autoclear);
	put(104, 4, QCOW2_EXT_DATA_FILE);
	put(108, 4, 8);
	memcpy(file + 112, "data.raw", 8);
	put(at(REFTABLE), 8, at(REFBLOCK));
	for (i = 0; i <= L2; i++)
		put_ref(i, 1, 4);
	put(at(L1), 8, at(L2) | QCOW2_COPIED);
	put(at(L2) + 8, 8, in_data_file[_i].entry);
	file_bytes = at(L2 + 1);
	r = check_file();
	if (!in_data_file[_i].says) {
		must_be_sound(&r);
		ck_assert_uint_eq(r.allocated_units, 1);
		return;
	}
	must_say(in_data_file[_i].says);
	ck_assert_uint_eq(r.corruptions, 1);
}
END_TEST

START_TEST(snapshots_do_not_go_with_an_external_data_file)
{
	struct check_report r;
	uint8_t data[CLUSTER] = { 0 };

	unit_write(unit_path("data.raw"), data, sizeof(data));
	put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_DATA_FILE);
	put(EXT_BITMAPS_AT, 4, QCOW2_EXT_DATA_FILE);
	put(EXT_BITMAPS_AT + 4, 4, 24);
	memcpy(file + EXT_BITMAPS_AT + 8, ".///////////////data.raw", 24);
	r = check_file();
	must_say("1 snapshots in an image with an external data file");
	ck_assert_uint_ge(r.corruptions, 1);
}
END_TEST

/* --- files that claim to be immense, and ones that cannot be read --- */

/* @head_bytes at @head, then a hole up to the end. */
struct sparse {
	struct source base;
	const uint8_t *head;
	uint64_t head_bytes;
	uint64_t bad_off; /* reads of this byte fail; 0: none do */
};

static ssize_t sparse_pread(struct source *s, void *buf, size_t len,
			    uint64_t off)
{
	struct sparse *p = container_of(s, struct sparse, base);
	size_t n = off < p->head_bytes
			   ? (size_t)min_u64(len, p->head_bytes - off)
			   : 0;

	if (p->bad_off && p->bad_off >= off && p->bad_off < off + len)
		return -EIO;
	memcpy(buf, p->head + (n ? off : 0), n);
	memset((uint8_t *)buf + n, 0, len - n);
	return (ssize_t)len;
}

static int sparse_find_hole(struct source *s, uint64_t off, uint64_t len,
			    bool *ret_hole, uint64_t *ret_len)
{
	struct sparse *p = container_of(s, struct sparse, base);

	*ret_hole = off >= p->head_bytes;
	*ret_len = *ret_hole ? len : min_u64(len, p->head_bytes - off);
	return 0;
}

static const struct source_ops sparse_ops = {
	.name = "sparse",
	.pread = sparse_pread,
	.find_hole = sparse_find_hole,
};

static struct sparse *sparse_new(const uint8_t *head, uint64_t head_bytes,
				 uint64_t bytes)
{
	struct sparse *p = calloc(1, sizeof(*p));

	source_init(&p->base, &sparse_ops, bytes);
	p->head = head;
	p->head_bytes = head_bytes;
	return p;
}

static void put_be64(uint8_t *p, uint64_t v)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
}

START_TEST(a_table_that_cannot_be_read_is_a_check_error)
{
	struct sparse *p = sparse_new(file, file_bytes, file_bytes);
	CLEANUP(layer_unrefp) struct layer *l = layer_of(&p->base);
	struct check_report report = { .say = keep_line };

	p->bad_off = at(L2) + 700;
	must(l->ops->check(l, &report, &err), err);
	ck_assert_uint_eq(report.check_errors, 1);
	ck_assert_uint_eq(report.corruptions, 0);
	must_say("L2 table: ");
}
END_TEST

START_TEST(a_sparse_file_of_exabytes_costs_nothing)
{
	struct sparse *p = sparse_new(file, file_bytes, 1ULL << 62);
	struct check_report report;
	int r;

	/* an L1 table of the greatest size, and far tables, in the hole */
	put(QCOW2_L1_ENTRIES_AT, 4, 4 << 20);
	put(QCOW2_L1_OFF_AT, 8, 1ULL << 40);
	put(at(SNAPSHOT_L1) + 8, 8, 1ULL << 50);
	report = checked(&p->base, &r);
	must(r, err);
	ck_assert_uint_gt(report.corruptions, 0);
	ck_assert_uint_eq(report.check_errors, 0);
	ck_assert_uint_eq(report.image_end_off, (1ULL << 50) + CLUSTER);
}
END_TEST

START_TEST(references_that_need_too_much_memory_are_refused)
{
	uint8_t *big = calloc(1, 8 << 20);
	struct sparse *p = sparse_new(big, 8 << 20, 1ULL << 62);
	uint64_t i;
	int r;

	/* a million L2 tables, each far from the next */
	put(QCOW2_L1_ENTRIES_AT, 4, 512 << 10);
	put(QCOW2_L1_OFF_AT, 8, 1 << 20);
	put(QCOW2_SNAPSHOTS_AT, 4, 0);
	memcpy(big, file, sizeof(file));
	for (i = 0; i < 512 << 10; i++)
		put_be64(big + (1 << 20) + 8 * i, (i + 1) << 32);
	checked(&p->base, &r);
	ck_assert_int_eq(r, -EFBIG);
	unit_says(&err, "limit of 192 MiB");
	free(big);
}
END_TEST

START_TEST(l1_tables_with_too_many_entries_in_all_are_refused)
{
	struct sparse *p = sparse_new(file, file_bytes, 1ULL << 40);
	size_t i, entry = 64;
	int r;

	/* 17 snapshots of 4 Mi entries, all at the same place, in a hole */
	put(QCOW2_SNAPSHOTS_AT, 4, 17);
	put(QCOW2_SNAPSHOTS_OFF_AT, 8, at(40));
	for (i = 0; i < 17; i++) {
		memcpy(file + at(40) + i * entry, file + at(SNAPSHOTS), entry);
		put(at(40) + i * entry, 8, 1 << 30);
		put(at(40) + i * entry + 8, 4, 4 << 20);
	}
	p->head_bytes = sizeof(file);
	checked(&p->base, &r);
	ck_assert_int_eq(r, -EFBIG);
	unit_says(&err, "limit of 67108864 entries");
}
END_TEST

/* 600 entries of the greatest names: 75 MiB. */
START_TEST(a_snapshot_table_over_64_mib_is_wrong)
{
	const uint64_t entry_bytes = 56 + 2 * 65528, bytes = 80 << 20;
	uint8_t *big = calloc(1, bytes);
	struct source *src = NULL;
	struct check_report report;
	uint64_t i;
	int r;

	put(QCOW2_SNAPSHOTS_AT, 4, 600);
	put(at(SNAPSHOTS) + 12, 4, 65528U << 16 | 65528);
	memcpy(big, file, sizeof(file));
	for (i = 1; i < 600; i++)
		memcpy(big + at(SNAPSHOTS) + i * entry_bytes,
		       file + at(SNAPSHOTS), 56);
	must(memory_source_new(big, bytes, &src, &err), err);
	report = checked(src, &r);
	must(r, err);
	must_say("snapshot table is over the limit of 67108864 bytes");
	ck_assert_uint_eq(report.leaks, 0); /* nobody knows */
	free(big);
}
END_TEST

/* Walked once for each L1 entry, this would be 2^32 entries. */
START_TEST(an_l2_table_of_all_l1_entries_is_walked_once)
{
	const uint64_t l1_entries = 4 << 20;
	uint64_t l1_at = 8 << 20, bytes = l1_at + l1_entries * 8, i;
	uint8_t *big = calloc(1, bytes);
	struct source *src = NULL;
	struct check_report report;
	int r;

	put(QCOW2_CLUSTER_BITS_AT, 4, 13);
	put(QCOW2_SIZE_AT, 8, l1_entries << 23);
	put(QCOW2_L1_ENTRIES_AT, 4, l1_entries);
	put(QCOW2_L1_OFF_AT, 8, l1_at);
	put(QCOW2_REFTABLE_OFF_AT, 8, 1 << 13);
	put(QCOW2_SNAPSHOTS_AT, 4, 0);
	put(QCOW2_SNAPSHOTS_OFF_AT, 8, 0);
	put(QCOW2_AUTOCLEAR_AT, 8, 0);
	memcpy(big, file, EXT_BITMAPS_AT);
	for (i = 0; i < l1_entries; i++)
		put_be64(big + l1_at + 8 * i, 4 << 13);
	for (i = 0; i < 1024; i++)
		put_be64(big + (4 << 13) + 8 * i, 5 << 13);
	must(memory_source_new(big, bytes, &src, &err), err);
	report = checked(src, &r);
	must(r, err);
	must_say("cluster 4 at 32768 (L2 table): refcount 0, references "
		 "4194304");
	/* 2^32 references: as many as are counted */
	must_say("cluster 5 at 40960 (data): refcount 0, references "
		 "268435455");
	ck_assert_uint_eq(report.allocated_units, 1024);
	free(big);
}
END_TEST

START_TEST(a_refcount_block_of_all_entries_is_read_once_and_lines_end)
{
	const uint64_t entries = 1 << 20;
	uint64_t bytes = (8 << 20) + (8 << 20), i;
	uint8_t *big = calloc(1, bytes);
	struct sparse *p = sparse_new(big, bytes, 1ULL << 55);
	struct check_report report;
	int r;

	put(QCOW2_REFTABLE_OFF_AT, 8, 8 << 20);
	put(QCOW2_REFTABLE_CLUSTERS_AT, 4, 8 << 10);
	memcpy(big, file, sizeof(file));
	for (i = 0; i < entries; i++)
		put_be64(big + (8 << 20) + 8 * i, at(REFBLOCK));
	report = checked(&p->base, &r);
	must(r, err);
	ck_assert_uint_ge(report.corruptions, entries - 1);
	ck_assert_uint_eq(n_lines, 65537);
	must_say("more than 65536 lines: further findings are counted, not "
		 "told");
	free(big);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60); /* under valgrind; a second without */
	tcase_add_test(tc,
		       a_sound_image_has_no_findings_and_its_numbers_are_right);
	tcase_add_test(tc, clusters_that_do_not_lie_in_order_are_fragmented);
	tcase_add_test(tc, the_file_may_end_in_the_midst_of_its_last_cluster);
	tcase_add_test(tc, sectors_less_than_a_cluster_behind_the_end_are_fine);
	tcase_add_loop_test(tc, refcounts_of_every_width_are_read, 0, 7);
	LOOP(tc, what_is_wrong_is_found_and_counted, findings);
	tcase_add_test(tc, a_backing_format_without_a_backing_file_is_wrong);
	tcase_add_test(tc, a_zero_cluster_in_version_2_is_wrong);
	tcase_add_test(tc, an_l2_table_that_the_file_cuts_is_wrong);
	LOOP(tc, subclusters_that_contradict_themselves_are_found, bitmaps);
	LOOP(tc, clusters_of_an_external_data_file_are_not_counted,
	     in_data_file);
	tcase_add_test(tc, snapshots_do_not_go_with_an_external_data_file);
	tcase_add_test(tc, a_table_that_cannot_be_read_is_a_check_error);
	tcase_add_test(tc, a_sparse_file_of_exabytes_costs_nothing);
	tcase_add_test(tc, references_that_need_too_much_memory_are_refused);
	tcase_add_test(tc, l1_tables_with_too_many_entries_in_all_are_refused);
	tcase_add_test(tc, a_snapshot_table_over_64_mib_is_wrong);
	tcase_add_test(tc, an_l2_table_of_all_l1_entries_is_walked_once);
	tcase_add_test(
		tc, a_refcount_block_of_all_entries_is_read_once_and_lines_end);
}

int main(void)
{
	return unit_main("qcow2-check", add);
}
