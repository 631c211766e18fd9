/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/drivers/qcow2.c: every check of open() and map() has a row that fails
 * without it, and every kind of L2 entry an extent.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/chain.h"
#include "formats/drivers/qcow2.h"
#include "tests/lib/unit.h"

/*
 * The image, by clusters: header, refcount table and block, L1 table, two L2
 * tables, data. The disk is what two L2 tables map.
 */
enum { REFTABLE = 1, REFBLOCK, L1, L2, L2_SECOND, DATA };

#define BITS	      10U
#define FILE_CLUSTERS 16U
#define EXT_AT	      104U /* header extensions */
#define SNAPS	      8U /* cluster of the snapshot table, when there is one */

static struct error err;
static uint8_t *file;
static size_t file_bytes;
static unsigned int bits;
static uint32_t entry_bytes;

static void put(size_t at, unsigned int width, uint64_t value)
{
	ck_assert_uint_le(at + width, file_bytes);
	while (width--) {
		file[at + width] = (uint8_t)value;
		value >>= 8;
	}
}

static uint64_t cluster(uint64_t idx)
{
	return idx << bits;
}

static void l2_entry(uint64_t guest_cluster, uint64_t entry, uint64_t bitmap)
{
	size_t at = cluster(L2) + guest_cluster * entry_bytes;

	put(at, 8, entry);
	if (entry_bytes == 16)
		put(at + 8, 8, bitmap);
}

static uint64_t disk_bytes(void)
{
	return 2 * (cluster(1) / entry_bytes) << bits;
}

/* An empty disk. The two L2 tables lie side by side. */
static void build(unsigned int cluster_bits, unsigned int clusters,
		  bool extended)
{
	bits = cluster_bits;
	entry_bytes = extended ? 16 : 8;
	free(file);
	file_bytes = clusters << bits;
	file = calloc(1, file_bytes);
	put(QCOW2_MAGIC_AT, 4, QCOW2_MAGIC);
	put(QCOW2_VERSION_AT, 4, 3);
	put(QCOW2_CLUSTER_BITS_AT, 4, bits);
	put(QCOW2_SIZE_AT, 8, disk_bytes());
	put(QCOW2_L1_ENTRIES_AT, 4, 2);
	put(QCOW2_L1_OFF_AT, 8, cluster(L1));
	put(QCOW2_REFTABLE_OFF_AT, 8, cluster(REFTABLE));
	put(QCOW2_REFTABLE_CLUSTERS_AT, 4, 1);
	put(QCOW2_REFCOUNT_ORDER_AT, 4, 4);
	put(QCOW2_HEADER_BYTES_AT, 4, 104);
	if (extended)
		put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_EXTENDED_L2);
	put(cluster(L1), 8, cluster(L2) | QCOW2_COPIED);
	put(cluster(L1) + 8, 8, cluster(L2_SECOND) | QCOW2_COPIED);
}

static void setup(void)
{
	err = (struct error){ 0 };
	build(BITS, FILE_CLUSTERS, false);
}

static void teardown(void)
{
	free(TAKE_PTR(file));
}

/* A header extension at @at; where the next one goes. */
static size_t extension(size_t at, uint32_t type, const void *data,
			size_t bytes)
{
	put(at, 4, type);
	put(at + 4, 4, bytes);
	memcpy(file + at + 8, data, bytes);
	return at + 8 + (size_t)round_up(bytes, 8);
}

/* A snapshot's table entry at the table's start, with its L1 at @l1_off. */
static void snapshot(uint64_t l1_off, uint32_t l1_entries, uint64_t bytes,
		     const char *id, const char *name)
{
	size_t at = cluster(SNAPS);

	put(QCOW2_SNAPSHOTS_AT, 4, 1);
	put(QCOW2_SNAPSHOTS_OFF_AT, 8, at);
	put(at, 8, l1_off);
	put(at + 8, 4, l1_entries);
	put(at + 12, 2, strlen(id));
	put(at + 14, 2, strlen(name));
	put(at + 16, 4, 1700000000);
	put(at + 20, 4, 7);
	put(at + 24, 8, 12345);
	put(at + 36, 4, 16);
	put(at + 40, 8, 777);
	put(at + 48, 8, bytes);
	memcpy(file + at + 56, id, strlen(id));
	memcpy(file + at + 56 + strlen(id), name, strlen(name));
}

static struct source *memory(const void *data, size_t bytes)
{
	struct source *s = NULL;

	must(memory_source_new(data, bytes, &s, &err), err);
	return s;
}

/*
 * The driver alone, below layer.c: it must not rely on what is checked there.
 * Errors are in err.
 */
static struct layer *driver_open(const struct open_options *options, int *ret)
{
	struct layer *l = calloc(1, sizeof(*l));
	struct folder *folder = NULL;

	l->ops = format_by_name("qcow2");
	l->state = calloc(1, l->ops->state_bytes);
	l->src = memory(file, file_bytes);
	l->top = true;
	l->options = options;
	l->path = strdup("NAME");
	must(folder_open(unit_path("."), &folder, &err), err);
	l->place = folder_place(folder);
	*ret = l->ops->open(l, &err);
	return l;
}

static struct layer *must_open(const char *snapshot_name)
{
	struct open_options options = { .snapshot = snapshot_name };
	struct layer *l;
	int r;

	l = driver_open(&options, &r);
	must(r, err);
	l->options = NULL;
	return l;
}

/* --- open --- */

struct field {
	size_t at;
	unsigned int width; /* 0: no such field */
	uint64_t value;
};

#define HEADER(name, value)                 \
	{                                   \
		QCOW2_##name##_AT, 4, value \
	}
#define HEADER64(name, value)               \
	{                                   \
		QCOW2_##name##_AT, 8, value \
	}

static const struct {
	struct field fields[3];
	int code;
	uint64_t off;
	const char *says;
} hostile_headers[] = {
	{ { HEADER(MAGIC, 0x514649fa) }, -EBADMSG, 0, "not qcow2" },
	{ { HEADER(VERSION, 1) }, -ENOTSUP, 4, "version 1" },
	{ { HEADER(VERSION, 4) }, -ENOTSUP, 4, "version 4" },
	{ { HEADER(CLUSTER_BITS, 8) }, -ENOTSUP, 20, "cluster_bits 8" },
	{ { HEADER(CLUSTER_BITS, 22) }, -ENOTSUP, 20, "cluster_bits 22" },
	{ { HEADER(CLUSTER_BITS, 64) }, -ENOTSUP, 20, "cluster_bits 64" },
	{ { HEADER(HEADER_BYTES, 103) }, -EBADMSG, 100, "length 103" },
	{ { HEADER(HEADER_BYTES, 1025) }, -EBADMSG, 100, "length 1025" },
	{ { HEADER(CLUSTER_BITS, 21), HEADER(HEADER_BYTES, 16385) },
	  -EBADMSG,
	  100,
	  "length 16385" }, /* past the file */

	{ { HEADER64(INCOMPATIBLE, 1 << 5) }, -ENOTSUP, 72, "bits 0x20" },
	{ { HEADER64(INCOMPATIBLE, 1ULL << 63) }, -ENOTSUP, 72, "0x8000" },
	{ { HEADER(CRYPT, 3) }, -ENOTSUP, 32, "method 3" },
	{ { HEADER(CRYPT, 2) }, -EBADMSG, 32, "no crypto header" },
	{ { HEADER(REFCOUNT_ORDER, 7) }, -EBADMSG, 96, "order 7" },
	{ { HEADER(HEADER_BYTES, 112),
	    HEADER64(INCOMPATIBLE, 8),
	    { 104, 1, 2 } },
	  -ENOTSUP,
	  104,
	  "type 2" },
	{ { HEADER(HEADER_BYTES, 112), { 104, 1, 1 } },
	  -EBADMSG,
	  104,
	  "type 1 contradicts" },
	{ { HEADER64(INCOMPATIBLE, 8) }, -EBADMSG, 104, "type 0 contradicts" },
	{ { HEADER64(INCOMPATIBLE, 16) }, -EBADMSG, 20, "cluster_bits 10" },
	{ { HEADER64(INCOMPATIBLE, 4) }, -EBADMSG, 72, "does not name" },
	/* a data file without its bit; the extension's type, then its length */
	{ { { EXT_AT, 4, QCOW2_EXT_DATA_FILE },
	    { EXT_AT + 4, 4, 1 },
	    { EXT_AT + 8, 1, 'd' } },
	  -EBADMSG,
	  72,
	  "not marked as having one" },
	{ { HEADER(VERSION, 2) }, -EBADMSG, 4, "header is one of version 3" },
	{ { HEADER64(BACKING_OFF, 200) }, -EBADMSG, 8, "one of them is 0" },
	{ { HEADER(BACKING_BYTES, 5) }, -EBADMSG, 8, "one of them is 0" },

	{ { HEADER64(L1_OFF, 3 * 1024 + 512) }, -EBADMSG, 40, "not aligned" },
	{ { HEADER(L1_ENTRIES, (4 << 20) + 1) }, -EFBIG, 40, "limit" },
	{ { HEADER64(L1_OFF, 16 * 1024) }, -EBADMSG, 40, "ends past" },
	{ { HEADER64(L1_OFF, -1024ULL) }, -EBADMSG, 40, "ends past" },
	{ { HEADER64(L1_OFF, 15 * 1024), HEADER(L1_ENTRIES, 129) },
	  -EBADMSG,
	  40,
	  "ends past" },
	{ { HEADER(L1_ENTRIES, 1) }, -EBADMSG, 36, "needs 2" },
	{ { HEADER(L1_ENTRIES, 0) }, -EBADMSG, 36, "has 0 entries" },
	{ { HEADER64(SIZE, 2 * 128 * 1024 + 1) }, -EBADMSG, 36, "needs 3" },
	{ { HEADER64(SIZE, INT64_MAX) }, -EBADMSG, 36, "needs" },
	{ { HEADER64(SIZE, 1ULL << 63) }, -EFBIG, 24, "2^63 - 1" },
	{ { HEADER64(REFTABLE_OFF, 1024 + 8) }, -EBADMSG, 48, "not aligned" },
	{ { HEADER(REFTABLE_CLUSTERS, 8193) }, -EFBIG, 48, "limit" },
	{ { HEADER(REFTABLE_CLUSTERS, UINT32_MAX) }, -EFBIG, 48, "limit" },
	{ { HEADER64(REFTABLE_OFF, 1ULL << 40) }, -EBADMSG, 48, "ends past" },
	{ { HEADER(SNAPSHOTS, 65537) }, -EFBIG, 60, "65537 snapshots" },
	{ { HEADER(SNAPSHOTS, 1), HEADER64(SNAPSHOTS_OFF, 1000) },
	  -EBADMSG,
	  64,
	  "not aligned" },
	{ { HEADER(SNAPSHOTS, 26), HEADER64(SNAPSHOTS_OFF, 15 * 1024) },
	  -EBADMSG,
	  64,
	  "ends past" },

	/* an extension that ends past the header's cluster */
	{ { { EXT_AT, 4, 0x12345678 }, { EXT_AT + 4, 4, 1024 - 111 } },
	  -EBADMSG,
	  EXT_AT + 4,
	  "ends past the header" },
	/* or that the backing file's name cuts off */
	{ { { EXT_AT, 4, 0x12345678 },
	    { EXT_AT + 4, 4, 100 },
	    HEADER64(BACKING_OFF, 200) },
	  -EBADMSG,
	  EXT_AT + 4,
	  "ends past the header" },
	{ { { EXT_AT, 4, QCOW2_EXT_BACKING_FORMAT }, { EXT_AT + 4, 4, 3 } },
	  -EBADMSG,
	  EXT_AT + 8,
	  "format holds a NUL" },
	{ { { EXT_AT, 4, QCOW2_EXT_DATA_FILE }, { EXT_AT + 4, 4, 3 } },
	  -EBADMSG,
	  EXT_AT + 8,
	  "data file name holds a NUL" },
	{ { { EXT_AT, 4, QCOW2_EXT_CRYPTO }, { EXT_AT + 4, 4, 15 } },
	  -EBADMSG,
	  EXT_AT + 8,
	  "has 15 bytes" },
	{ { { EXT_AT, 4, QCOW2_EXT_CRYPTO },
	    { EXT_AT + 4, 4, 16 },
	    { EXT_AT + 8, 8, 512 } },
	  -EBADMSG,
	  EXT_AT + 8,
	  "crypto header at 512 is not aligned" },
	{ { { EXT_AT, 8, (uint64_t)QCOW2_EXT_CRYPTO << 32 | 16 },
	    { EXT_AT + 8, 8, 15 * 1024 },
	    { EXT_AT + 16, 8, 1025 } },
	  -EBADMSG,
	  EXT_AT + 8,
	  "ends past" },
	{ { HEADER64(BACKING_OFF, 200), HEADER(BACKING_BYTES, 4) },
	  -EBADMSG,
	  200,
	  "backing file name holds a NUL" },
	{ { HEADER64(BACKING_OFF, 1021), HEADER(BACKING_BYTES, 4) },
	  -EBADMSG,
	  8,
	  "past the first cluster" },
	{ { HEADER64(BACKING_OFF, 1ULL << 63), HEADER(BACKING_BYTES, 4) },
	  -EBADMSG,
	  8,
	  "past the first cluster" },
	{ { HEADER64(BACKING_OFF, 1), HEADER(BACKING_BYTES, 1024) },
	  -EFBIG,
	  16,
	  "limit of 1023" },
};

START_TEST(open_refuses_hostile_header)
{
	static const struct open_options options;
	struct layer *l;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(hostile_headers[0].fields); i++) {
		const struct field *f = &hostile_headers[_i].fields[i];

		if (f->width)
			put(f->at, f->width, f->value);
	}
	l = driver_open(&options, &r);
	ck_assert_msg(r == hostile_headers[_i].code, "row %d: %d, \"%s\"", _i,
		      r, err.msg);
	ck_assert_msg(err.off == hostile_headers[_i].off,
		      "row %d: field at %d, \"%s\"", _i, (int)err.off, err.msg);
	ck_assert_int_eq(err.code, r);
	unit_says(&err, hostile_headers[_i].says);
	layer_unref(l);
}
END_TEST

static const struct {
	size_t bytes;
	uint32_t version;
} cuts[] = { { 0, 3 }, { 3, 3 }, { 71, 2 }, { 72, 3 }, { 103, 3 } };

START_TEST(open_refuses_a_header_that_is_cut_off)
{
	static const struct open_options options;
	struct layer *l;
	int r;

	put(QCOW2_VERSION_AT, 4, cuts[_i].version);
	file_bytes = cuts[_i].bytes;
	l = driver_open(&options, &r);
	ck_assert_int_eq(r, -EBADMSG);
	ck_assert_uint_eq(err.off, cuts[_i].bytes);
	unit_says(&err, "cut off");
	layer_unref(l);
}
END_TEST

START_TEST(unknown_features_are_refused_by_the_images_names_for_them)
{
	static const struct open_options options;
	uint8_t names[3 * 48] = { 0, 9 };
	struct layer *l;
	int r;

	strcpy((char *)names + 2, "time\ntravel");
	names[48] = 1; /* a compatible feature's name is not asked for */
	names[49] = 10;
	strcpy((char *)names + 50, "compatible");
	memset(names + 98, 'x', 46); /* no NUL behind it */
	names[97] = 11;
	extension(EXT_AT, QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
	put(QCOW2_INCOMPATIBLE_AT, 8, 1 << 9 | 1 << 10 | 1 << 11 | 1);
	l = driver_open(&options, &r);
	ck_assert_int_eq(r, -ENOTSUP);
	ck_assert_uint_eq(err.off, 72);
	unit_says(&err, "time\\x0atravel (bit 9), unnamed (bit 10), xxxxx");
	unit_says(&err, "x (bit 11)");
	ck_assert_ptr_null(strstr(err.msg, "compatible ("));
	layer_unref(l);
}
END_TEST

START_TEST(what_is_unknown_but_harmless_is_ignored)
{
	size_t at = extension(EXT_AT, 0x11223344, "whatever", 8);
	struct layer *l;

	at = extension(at, QCOW2_EXT_BITMAPS, "short", 5);
	extension(at, QCOW2_EXT_END, "", 0);
	put(at + 8, 4, 0x55667788); /* behind the end: not looked at */
	put(at + 12, 4, UINT32_MAX);
	put(QCOW2_COMPATIBLE_AT, 8, 1ULL << 50);
	put(QCOW2_AUTOCLEAR_AT, 8, 1ULL << 51);
	put(QCOW2_INCOMPATIBLE_AT, 8,
	    QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
	l = must_open(NULL);
	ck_assert_uint_eq(l->bytes, 2 * 128 * 1024);
	ck_assert_uint_eq(l->unit_bytes, 1024);
	layer_unref(l);
}
END_TEST

START_TEST(version_2_has_no_fields_behind_byte_72)
{
	struct layer *l;

	put(QCOW2_VERSION_AT, 4, 2);
	memset(file + 72, 0, 100);
	extension(72, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	put(QCOW2_BACKING_OFF_AT, 8, 200);
	put(QCOW2_BACKING_BYTES_AT, 4, 4);
	memcpy(file + 200, "base", 4);
	l = must_open(NULL);
	ck_assert_str_eq(l->parent.name, "base");
	ck_assert_str_eq(l->parent.format, "raw");
	ck_assert_uint_eq(l->parent.name_at, 200);
	layer_unref(l);
}
END_TEST

START_TEST(a_backing_name_of_1023_bytes_is_taken)
{
	struct layer *l;

	build(12, FILE_CLUSTERS, false);
	put(QCOW2_BACKING_OFF_AT, 8, 4096 - 1023);
	put(QCOW2_BACKING_BYTES_AT, 4, 1023);
	memset(file + 4096 - 1023, 'n', 1023);
	l = must_open(NULL);
	ck_assert_uint_eq(strlen(l->parent.name), 1023);
	ck_assert_ptr_null(l->parent.format);
	layer_unref(l);
}
END_TEST

/* --- snapshots --- */

static const struct {
	struct field fields[2]; /* in the table */
	int code;
	uint64_t off; /* UINT64_MAX: anywhere */
	const char *says;
} hostile_snapshots[] = {
	{ { { 36, 4, 1025 } }, -EFBIG, 8 * 1024 + 36, "1025 bytes" },
	{ { { 36, 4, UINT32_MAX } }, -EFBIG, 8 * 1024 + 36, "limit of 1024" },
	{ { { 12, 2, 0xffff } }, -EBADMSG, UINT64_MAX, "snapshot 0" },
	{ { { 14, 2, 0xffff } }, -EBADMSG, UINT64_MAX, "snapshot 0" },
	{ { { 0, 8, 3 * 1024 + 8 } }, -EBADMSG, 8 * 1024, "not aligned" },
	{ { { 0, 8, 16 * 1024 } }, -EBADMSG, 8 * 1024, "ends past" },
	{ { { 8, 4, (4 << 20) + 1 } }, -EFBIG, 8 * 1024, "limit" },
	{ { { 8, 4, 1 } }, -EBADMSG, 8 * 1024, "needs 2" },
	{ { { 48, 8, 1ULL << 40 } }, -EBADMSG, 8 * 1024, "has 2 entries" },
	{ { { 48, 8, UINT64_MAX } }, -EFBIG, 24, "2^63 - 1" },
};

START_TEST(open_refuses_hostile_snapshot)
{
	struct open_options options = { .snapshot = "1" };
	struct layer *l;
	size_t i;
	int r;

	snapshot(cluster(L1), 2, disk_bytes(), "1", "name");
	for (i = 0; i < ARRAY_SIZE(hostile_snapshots[0].fields); i++) {
		const struct field *f = &hostile_snapshots[_i].fields[i];

		if (f->width)
			put(cluster(SNAPS) + f->at, f->width, f->value);
	}
	l = driver_open(&options, &r);
	ck_assert_msg(r == hostile_snapshots[_i].code, "row %d: %d, \"%s\"", _i,
		      r, err.msg);
	if (hostile_snapshots[_i].off != UINT64_MAX)
		ck_assert_uint_eq(err.off, hostile_snapshots[_i].off);
	unit_says(&err, hostile_snapshots[_i].says);
	layer_unref(l);
}
END_TEST

START_TEST(a_snapshot_table_that_the_file_cuts_is_refused)
{
	struct open_options options = { .snapshot = "2" };
	struct layer *l;
	int r;

	snapshot(cluster(L1), 2, disk_bytes(), "1", "name");
	put(QCOW2_SNAPSHOTS_AT, 4, 2);
	file_bytes = cluster(SNAPS) + 80; /* enough for two by the header */
	l = driver_open(&options, &r);
	ck_assert_int_eq(r, -EBADMSG);
	unit_says(&err, "snapshot 1");
	layer_unref(l);
}
END_TEST

/* 600 entries of the greatest names: 75 MiB. */
START_TEST(a_snapshot_table_over_64_mib_is_refused)
{
	const uint64_t entry_len = 40 + 2 * 65528;
	struct open_options options = { .snapshot = "1" };
	struct layer *l;
	uint64_t i;
	int r;

	build(BITS, 80 << 10, false);
	put(QCOW2_SNAPSHOTS_AT, 4, 600);
	put(QCOW2_SNAPSHOTS_OFF_AT, 8, cluster(SNAPS));
	for (i = 0; i < 600; i++) {
		put(cluster(SNAPS) + i * entry_len + 12, 2, 65528);
		put(cluster(SNAPS) + i * entry_len + 14, 2, 65528);
	}
	l = driver_open(&options, &r);
	ck_assert_int_eq(r, -EFBIG);
	ck_assert_uint_eq(err.off, QCOW2_SNAPSHOTS_AT);
	unit_says(&err, "limit of 67108864 bytes");
	layer_unref(l);
}
END_TEST

START_TEST(a_snapshot_is_found_by_id_before_name_and_has_its_own_size)
{
	struct open_options options = { .snapshot = "none" };
	struct layer *l;
	int r;

	snapshot(cluster(9), 1, 5000, "1", "name");
	put(cluster(9), 8, cluster(L2_SECOND));
	put(cluster(L2_SECOND), 8, cluster(DATA));
	l = must_open("1");
	ck_assert_uint_eq(l->bytes, 5000);
	layer_unref(l);
	l = must_open("name");
	ck_assert_uint_eq(l->bytes, 5000);
	layer_unref(l);
	l = must_open(NULL);
	ck_assert_uint_eq(l->bytes, disk_bytes());
	layer_unref(l);
	l = driver_open(&options, &r);
	ck_assert_int_eq(r, -ENOENT);
	unit_says(&err, "no snapshot \"none\"");
	layer_unref(l);
}
END_TEST

START_TEST(a_snapshot_maps_through_its_own_l1_table)
{
	struct extent e = { 0 };
	struct layer *l;

	snapshot(cluster(9), 1, 5000, "1", "name");
	put(cluster(9), 8, cluster(L2_SECOND));
	put(cluster(L2_SECOND), 8, cluster(DATA));
	l = must_open("name");
	must(layer_map(l, 0, 5000, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, cluster(DATA));
	ck_assert_uint_eq(e.len, 1024);
	layer_unref(l);
	l = must_open(NULL);
	must(layer_map(l, 0, 5000, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	layer_unref(l);
}
END_TEST

static unsigned int seen;

static int see(void *opaque, const struct snapshot *s)
{
	const uint64_t *bytes = opaque;

	seen++;
	ck_assert_str_eq(s->id, "id");
	ck_assert_str_eq(s->name, "a name");
	ck_assert_uint_eq(s->bytes, *bytes);
	ck_assert_uint_eq(s->date_sec, 1700000000);
	ck_assert_uint_eq(s->date_nsec, 7);
	ck_assert_uint_eq(s->vm_clock_nsec, 12345);
	return 0;
}

START_TEST(snapshots_are_listed_with_what_the_table_says)
{
	uint64_t bytes = 5000;
	struct layer *l;

	seen = 0;
	snapshot(cluster(L1), 2, bytes, "id", "a name");
	l = must_open(NULL);
	must(l->ops->snapshots(l, see, &bytes, &err), err);
	ck_assert_uint_eq(seen, 1);
	layer_unref(l);
}
END_TEST

/* Version 2: the disk had the size that it has now. */
START_TEST(a_snapshot_without_extra_data_has_the_disks_size)
{
	uint64_t bytes = disk_bytes();
	struct layer *l;

	seen = 0;
	snapshot(cluster(L1), 2, 5000, "id", "a name");
	put(cluster(SNAPS) + 36, 4, 0);
	memcpy(file + cluster(SNAPS) + 40, "ida name", 8);
	l = must_open("a name");
	ck_assert_uint_eq(l->bytes, bytes);
	must(l->ops->snapshots(l, see, &bytes, &err), err);
	ck_assert_uint_eq(seen, 1);
	layer_unref(l);
}
END_TEST

/* --- map --- */

#define COMPRESSED_AT(off, sectors) \
	(QCOW2_COMPRESSED | (uint64_t)(sectors) << (62 - (BITS - 8)) | (off))

static const struct {
	uint64_t l1, l2;
	uint32_t version;
	const char *says;
} damage[] = {
	{ 4 * 1024 + 512, 0, 3, "L2 table at 4608 is not aligned to 1024" },
	{ 16 * 1024, 0, 3, "" }, /* L2 table behind the end */
	{ 1ULL << 55, 0, 3, "" },
	{ 4 * 1024, 6 * 1024 + 512, 3, "cluster at 6656 is not aligned" },
	{ 4 * 1024, (6 * 1024 + 512) | QCOW2_ZERO, 3, "6656 is not aligned" },
	{ 4 * 1024, 16 * 1024, 3, "behind the file's end at 16384" },
	{ 4 * 1024, 1ULL << 55, 3, "behind the file's end at 16384" },
	{ 4 * 1024, COMPRESSED_AT(16384, 0), 3, "lie behind the file's end" },
	{ 4 * 1024, COMPRESSED_AT(1ULL << 50, 0), 3, "behind the file's end" },
	{ 4 * 1024, QCOW2_ZERO, 2, "zero cluster in a version 2" },
	/* reserved bits, and places of the header and of tables */
	{ 4 * 1024 + 1, 0, 3, "reserved bits are set in the L1" },
	{ 4 * 1024 | 1ULL << 56, 0, 3, "reserved bits are set in the L1" },
	{ 4 * 1024, 6 * 1024 | 2, 3, "reserved bits are set in the L2" },
	{ 4 * 1024, 6 * 1024 | 1ULL << 57, 3, "reserved bits are set" },
	{ L1 * 1024, 0, 3, "lies on metadata" },
	{ 4 * 1024, L1 * 1024, 3, "lies on metadata" },
	{ 4 * 1024, REFTABLE * 1024, 3, "lies on metadata" },
};

START_TEST(map_finds_damage_and_goes_on_behind_it)
{
	struct layer *l;
	struct extent e = { 0 };

	put(QCOW2_VERSION_AT, 4, damage[_i].version);
	if (damage[_i].version == 2)
		put(QCOW2_HEADER_BYTES_AT, 4, 0);
	put(cluster(L1), 8, damage[_i].l1);
	l2_entry(0, damage[_i].l2, 0);
	l2_entry(1, damage[_i].l2 ? cluster(DATA) : 0, 0);
	l = must_open(NULL);
	ck_assert_int_eq(l->ops->map(l, 10, 4096, &e, &err), -EBADMSG);
	unit_says(&err, damage[_i].says);

	error_clear(&err);
	ck_assert_int_eq(layer_map(l, 10, 4096, &e, &err), 0);
	ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
	ck_assert_uint_eq(e.len, 1014);
	if (damage[_i].l2) {
		error_clear(&err);
		must(l->ops->map(l, 1024, 1024, &e, &err), err);
		ck_assert_int_eq(e.kind, EXTENT_DATA);
	}
	layer_unref(l);
}
END_TEST

static const struct {
	uint64_t entry[4];
	struct extent want[3]; /* kind, len, host_off; ended by len 0 */
	uint64_t from, len;
} shapes[] = {
	/* neighbours in guest and file are one run */
	{ { 6 * 1024, 7 * 1024, 8 * 1024 },
	  { { .kind = EXTENT_DATA, .len = 3072, .host_off = 6 * 1024 } },
	  0,
	  3072 },
	/* from the middle of a cluster to the middle of another */
	{ { 6 * 1024, 7 * 1024 },
	  { { .kind = EXTENT_DATA, .len = 1000, .host_off = 6 * 1024 + 100 } },
	  100,
	  1000 },
	/* the file has them elsewhere, or in another order */
	{ { 6 * 1024, 8 * 1024, 7 * 1024 },
	  { { .kind = EXTENT_DATA, .len = 1024, .host_off = 6 * 1024 },
	    { .kind = EXTENT_DATA, .len = 1024, .host_off = 8 * 1024 },
	    { .kind = EXTENT_DATA, .len = 1024, .host_off = 7 * 1024 } },
	  0,
	  3072 },
	/* the copied flag changes nothing */
	{ { 6 * 1024 | QCOW2_COPIED, 7 * 1024 },
	  { { .kind = EXTENT_DATA, .len = 2048, .host_off = 6 * 1024 } },
	  0,
	  2048 },
	/* zeroes with and without a place, then nothing at all */
	{ { QCOW2_ZERO, 9 * 1024 | QCOW2_ZERO, QCOW2_ZERO | QCOW2_COPIED, 0 },
	  { { .kind = EXTENT_ZERO, .len = 3072 },
	    { .kind = EXTENT_HOLE, .len = 1024 } },
	  0,
	  4096 },
	/* nothing, data, nothing */
	{ { 0, 6 * 1024, 0 },
	  { { .kind = EXTENT_HOLE, .len = 1024 },
	    { .kind = EXTENT_DATA, .len = 1024, .host_off = 6 * 1024 },
	    { .kind = EXTENT_HOLE, .len = 1024 } },
	  0,
	  3072 },
	/* a run ends before the damage behind the file's end */
	{ { 15 * 1024, 16 * 1024 },
	  { { .kind = EXTENT_DATA, .len = 1024, .host_off = 15 * 1024 },
	    { .kind = EXTENT_DAMAGED, .len = 1024 } },
	  0,
	  2048 },
	/* compressed clusters are one each, also side by side */
	{ { COMPRESSED_AT(7000, 1), COMPRESSED_AT(7000, 0) },
	  { { .kind = EXTENT_COMPRESSED,
	      .len = 924,
	      .host_off = 7000,
	      .comp_bytes = 1024 - 7000 % 512,
	      .unit_off = 100 },
	    { .kind = EXTENT_COMPRESSED,
	      .len = 1024,
	      .host_off = 7000,
	      .comp_bytes = 512 - 7000 % 512 } },
	  100,
	  1948 },
	/* sectors behind the file's end are not there to be read */
	{ { COMPRESSED_AT(16000, 3) },
	  { { .kind = EXTENT_COMPRESSED,
	      .len = 1024,
	      .host_off = 16000,
	      .comp_bytes = 384 } },
	  0,
	  1024 },
};

/* Maps [@from, @from + @len) and compares with @want. */
static void must_map(struct layer *l, uint64_t from, uint64_t len,
		     const struct extent *want, size_t n_want)
{
	size_t i;

	for (i = 0; len; i++) {
		struct extent e;

		must(layer_map(l, from, len, &e, NULL), err);
		ck_assert_uint_lt(i, n_want);
		ck_assert_int_eq(e.kind, want[i].kind);
		ck_assert_uint_eq(e.len, want[i].len);
		ck_assert_uint_eq(e.host_off, want[i].host_off);
		ck_assert_uint_eq(e.comp_bytes, want[i].comp_bytes);
		ck_assert_uint_eq(e.unit_off, want[i].unit_off);
		if (e.kind == EXTENT_COMPRESSED) {
			ck_assert_uint_eq(e.unit_bytes, cluster(1));
			ck_assert_int_eq(e.codec, CODEC_DEFLATE);
		}
		if (e.kind == EXTENT_DATA)
			ck_assert_ptr_eq(e.src, l->src);
		from += e.len;
		len -= e.len;
	}
	ck_assert(i == n_want || !want[i].len);
}

START_TEST(map_answers_with_the_longest_run_of_a_kind)
{
	struct layer *l;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(shapes[0].entry); i++)
		l2_entry(i, shapes[_i].entry[i], 0);
	l = must_open(NULL);
	must_map(l, shapes[_i].from, shapes[_i].len, shapes[_i].want,
		 ARRAY_SIZE(shapes[0].want));
	layer_unref(l);
}
END_TEST

START_TEST(a_run_stops_at_the_border_of_its_l2_table)
{
	/* The second table's first entry goes on where the first's last is. */
	const struct extent want[] = {
		{ .kind = EXTENT_DATA, .len = 1024, .host_off = 6 * 1024 },
		{ .kind = EXTENT_DATA, .len = 1024, .host_off = 7 * 1024 },
	};
	struct layer *l;

	l2_entry(127, 6 * 1024, 0);
	l2_entry(128, 7 * 1024, 0);
	l = must_open(NULL);
	must_map(l, 127 * 1024, 2048, want, 2);
	layer_unref(l);
}
END_TEST

START_TEST(a_run_goes_on_over_what_is_read_of_a_table_at_once)
{
	const struct extent want[] = {
		{ .kind = EXTENT_DATA, .len = 500 << 12, .host_off = 6 << 12 },
		{ .kind = EXTENT_HOLE, .len = 12 << 12 },
	};
	struct layer *l;
	uint64_t i;

	build(12, 6 + 500, false);
	for (i = 0; i < 500; i++)
		l2_entry(i, cluster(DATA + i), 0);
	l = must_open(NULL);
	must_map(l, 0, 512 << 12, want, 2);
	layer_unref(l);
}
END_TEST

START_TEST(empty_l1_entries_are_one_hole_up_to_the_next_table)
{
	const struct extent want[] = {
		{ .kind = EXTENT_HOLE, .len = 198 * 128 * 1024 },
		{ .kind = EXTENT_DATA, .len = 1024, .host_off = 6 * 1024 },
		{ .kind = EXTENT_HOLE, .len = 127 * 1024 },
		{ .kind = EXTENT_HOLE, .len = 128 * 1024 },
	};
	struct layer *l;

	/* 200 entries of L1 in the last two clusters of the file */
	put(QCOW2_L1_OFF_AT, 8, cluster(14));
	put(QCOW2_L1_ENTRIES_AT, 4, 200);
	put(QCOW2_SIZE_AT, 8, 200 * 128 * 1024);
	put(cluster(14) + 198 * 8, 8, cluster(L2) | QCOW2_COPIED);
	l2_entry(0, 6 * 1024, 0);
	l = must_open(NULL);
	must_map(l, 0, 200 * 128 * 1024, want, 4);
	layer_unref(l);
}
END_TEST

START_TEST(a_cluster_that_runs_past_the_end_reads_as_zeroes_from_there)
{
	const struct extent want[] = {
		{ .kind = EXTENT_DATA, .len = 100, .host_off = 15 * 1024 },
		{ .kind = EXTENT_ZERO, .len = 924 },
	};
	struct layer *l;

	l2_entry(0, 15 * 1024, 0);
	file_bytes -= 924;
	l = must_open(NULL);
	must_map(l, 0, 1024, want, 2);
	layer_unref(l);
}
END_TEST

/* The table's second half is not in the file: only that is damage. */
START_TEST(an_l2_table_that_the_end_cuts_is_good_before_it)
{
	const struct extent want[] = {
		{ .kind = EXTENT_DATA, .len = 1024, .host_off = 6 * 1024 },
		{ .kind = EXTENT_HOLE, .len = 63 * 1024 },
		{ .kind = EXTENT_DAMAGED, .len = 1024 },
	};
	struct layer *l;

	put(cluster(L1), 8, 15 * 1024);
	put(15 * 1024, 8, 6 * 1024);
	file_bytes -= 512;
	l = must_open(NULL);
	must_map(l, 0, 65 * 1024, want, 3);
	layer_unref(l);
}
END_TEST

/* --- subclusters: 512 bytes each --- */

#define EXT_BITS 14U
#define SUB	 512U

static const struct {
	uint64_t entry, bitmap;
	struct extent want[4];
} subclusters[] = {
	{ DATA << EXT_BITS,
	  0xffffffff,
	  { { .kind = EXTENT_DATA,
	      .len = 32 * SUB,
	      .host_off = DATA << EXT_BITS } } },
	{ DATA << EXT_BITS,
	  0x0000000e | 0xf0ULL << 32,
	  { { .kind = EXTENT_HOLE, .len = SUB },
	    { .kind = EXTENT_DATA,
	      .len = 3 * SUB,
	      .host_off = (DATA << EXT_BITS) + SUB },
	    { .kind = EXTENT_ZERO, .len = 4 * SUB },
	    { .kind = EXTENT_HOLE, .len = 24 * SUB } } },
	{ 0,
	  0xffff0000ULL << 32,
	  { { .kind = EXTENT_HOLE, .len = 16 * SUB },
	    { .kind = EXTENT_ZERO, .len = 16 * SUB } } },
	{ 0, 0, { { .kind = EXTENT_HOLE, .len = 32 * SUB } } },
	/* both, and data without a place: the whole cluster is damage */
	{ DATA << EXT_BITS,
	  1ULL << 7 | 1ULL << 39,
	  { { .kind = EXTENT_DAMAGED, .len = 32 * SUB } } },
	{ 0, 1 << 9, { { .kind = EXTENT_DAMAGED, .len = 32 * SUB } } },
	/* bit 0 of the entry means nothing here */
	{ DATA << EXT_BITS | QCOW2_ZERO,
	  0xffffffff,
	  { { .kind = EXTENT_DATA,
	      .len = 32 * SUB,
	      .host_off = DATA << EXT_BITS } } },
};

START_TEST(each_subcluster_is_data_or_zeroes_or_nothing)
{
	struct layer *l;
	struct extent e;

	build(EXT_BITS, 8, true);
	l2_entry(0, subclusters[_i].entry, subclusters[_i].bitmap);
	l2_entry(1, cluster(7), 0xffffffff);
	l = must_open(NULL);
	ck_assert_uint_eq(l->unit_bytes, 32 * SUB);
	must_map(l, 0, 32 * SUB, subclusters[_i].want, 4);
	if (subclusters[_i].want[0].kind == EXTENT_DAMAGED)
		ck_assert_int_eq(l->ops->map(l, 31 * SUB, SUB, &e, &err),
				 -EBADMSG);
	must_map(l, 32 * SUB, SUB,
		 &(struct extent){ .kind = EXTENT_DATA,
				   .len = SUB,
				   .host_off = cluster(7) },
		 1);
	layer_unref(l);
}
END_TEST

START_TEST(subclusters_join_over_the_border_of_their_clusters)
{
	const struct extent want[] = {
		{ .kind = EXTENT_HOLE, .len = 16 * SUB },
		{ .kind = EXTENT_DATA,
		  .len = 32 * SUB,
		  .host_off = (DATA << EXT_BITS) + 16 * SUB },
		{ .kind = EXTENT_HOLE, .len = 16 * SUB },
	};
	struct layer *l;

	build(EXT_BITS, 8, true);
	l2_entry(0, cluster(DATA), 0xffff0000);
	l2_entry(1, cluster(DATA + 1), 0x0000ffff);
	l = must_open(NULL);
	must_map(l, 0, 64 * SUB, want, 3);
	layer_unref(l);
}
END_TEST

START_TEST(a_compressed_cluster_has_no_subclusters)
{
	struct layer *l;
	struct extent e;

	build(EXT_BITS, 8, true);
	l2_entry(0, QCOW2_COMPRESSED | (cluster(DATA) + 77), 0);
	l = must_open(NULL);
	must(layer_map(l, 3 * SUB, 64 * SUB, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_uint_eq(e.len, 29 * SUB);
	ck_assert_uint_eq(e.unit_off, 3 * SUB);
	ck_assert_uint_eq(e.unit_bytes, 32 * SUB);
	layer_unref(l);
}
END_TEST

/* --- external data file --- */

#define RAW_CLUSTERS 8

/* The folder of the image has a data file of RAW_CLUSTERS. */
static void with_data_file(uint64_t autoclear)
{
	uint8_t data[RAW_CLUSTERS << BITS];

	unit_fill(data, sizeof(data), 3);
	unit_write(unit_path("data.raw"), data, sizeof(data));
	extension(EXT_AT, QCOW2_EXT_DATA_FILE, "data.raw", 8);
	put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_DATA_FILE);
	put(QCOW2_AUTOCLEAR_AT, 8, autoclear);
}

START_TEST(clusters_lie_in_the_external_data_file_also_at_its_start)
{
	struct layer *l;
	struct extent e;

	with_data_file(0);
	l2_entry(0, QCOW2_COPIED, 0); /* at 0 */
	l2_entry(1, cluster(5) | QCOW2_COPIED, 0);
	l2_entry(2, 0, 0);
	l = must_open(NULL);
	must(layer_map(l, 0, 4096, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_ptr_eq(e.src, l->files[0].src);
	ck_assert_uint_eq(e.host_off, 0);
	ck_assert_uint_eq(e.len, 1024);
	must(layer_map(l, 1024, 4096, &e, &err), err);
	ck_assert_uint_eq(e.host_off, cluster(5));
	must(layer_map(l, 2048, 1024, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	layer_unref(l);
}
END_TEST

static const struct {
	uint64_t autoclear, entry;
	const char *says;
} data_file_damage[] = {
	{ 0, COMPRESSED_AT(1024, 0), "compressed cluster in an image with an" },
	{ 0, RAW_CLUSTERS << BITS | QCOW2_COPIED, "behind the file's end" },
	{ QCOW2_AUTOCLEAR_DATA_FILE_RAW, 2 << BITS | QCOW2_COPIED,
	  "guest cluster 1024 at 2048" },
};

START_TEST(damage_with_an_external_data_file_is_found)
{
	struct layer *l;
	struct extent e = { 0 };

	with_data_file(data_file_damage[_i].autoclear);
	l2_entry(1, data_file_damage[_i].entry, 0);
	l = must_open(NULL);
	ck_assert_int_eq(l->ops->map(l, 1024, 1024, &e, &err), -EBADMSG);
	unit_says(&err, data_file_damage[_i].says);
	layer_unref(l);
}
END_TEST

/* --- the rest --- */

START_TEST(an_encrypted_disk_maps_with_a_key_only)
{
	struct open_options options = { .key = (const uint8_t *)"secret",
					.key_bytes = 6 };
	struct layer *l;
	struct extent e = { 0 };
	int r;

	put(QCOW2_CRYPT_AT, 4, QCOW2_CRYPT_AES);
	l2_entry(3, cluster(DATA), 0);
	l = must_open(NULL);
	ck_assert(l->encrypted && l->locked);
	ck_assert_int_eq(layer_map(l, 0, 1024, &e, &err), -EACCES);
	layer_unref(l);

	error_clear(&err);
	l = driver_open(&options, &r);
	must(r, err);
	ck_assert(l->encrypted && !l->locked);
	must(layer_map(l, 3 * 1024 + 512, 512, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_ptr_nonnull(e.cipher);
	ck_assert_uint_eq(e.iv_sector, 7); /* of the disk, not of the file */
	must(layer_map(l, 0, 512, &e, &err), err);
	ck_assert_ptr_null(e.cipher);
	layer_unref(l);
}
END_TEST

static char facts[1024];

static void take_text(struct info_sink *s, const char *key, const char *value)
{
	size_t n = strlen(facts);

	snprintf(facts + n, sizeof(facts) - n, "%s=%s ", key, value);
}

static void take_number(struct info_sink *s, const char *key, uint64_t value)
{
	size_t n = strlen(facts);

	snprintf(facts + n, sizeof(facts) - n, "%s=%d ", key, (int)value);
}

static void take_flag(struct info_sink *s, const char *key, bool value)
{
	take_text(s, key, value ? "yes" : "no");
}

START_TEST(info_has_the_facts_of_qemu_img_info)
{
	struct info_sink sink = { take_text, take_number, take_flag };
	struct layer *l;

	put(QCOW2_INCOMPATIBLE_AT, 8, QCOW2_INCOMPAT_DIRTY);
	put(QCOW2_COMPATIBLE_AT, 8, QCOW2_COMPAT_LAZY_REFCOUNTS);
	put(QCOW2_REFCOUNT_ORDER_AT, 4, 6);
	l = must_open(NULL);
	facts[0] = '\0';
	l->ops->info(l, &sink);
	ck_assert_str_eq(facts, "compat=1.1 compression-type=zlib "
				"refcount-bits=64 lazy-refcounts=yes "
				"corrupt=no dirty=yes extended-l2=no ");
	layer_unref(l);
}
END_TEST

/* What a header claims is compared with the file before it is used. */
START_TEST(a_chain_opens_an_image_from_memory)
{
	static const struct open_options options;
	struct chain chain = { 0 };
	struct extent e;

	l2_entry(1, cluster(DATA), 0);
	must(chain_open_source(memory(file, file_bytes), "NAME", NULL, &options,
			       &chain, &err),
	     err);
	ck_assert_str_eq(chain.layers[0]->ops->name, "qcow2");
	ck_assert_uint_eq(chain.bytes, disk_bytes());
	must(chain_map(&chain, 0, 4096, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_ZERO);
	ck_assert(e.absent);
	ck_assert_uint_eq(e.len, 1024);
	chain_done(&chain);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	LOOP(tc, open_refuses_hostile_header, hostile_headers);
	LOOP(tc, open_refuses_a_header_that_is_cut_off, cuts);
	tcase_add_test(
		tc, unknown_features_are_refused_by_the_images_names_for_them);
	tcase_add_test(tc, what_is_unknown_but_harmless_is_ignored);
	tcase_add_test(tc, version_2_has_no_fields_behind_byte_72);
	tcase_add_test(tc, a_backing_name_of_1023_bytes_is_taken);
	LOOP(tc, open_refuses_hostile_snapshot, hostile_snapshots);
	tcase_add_test(tc, a_snapshot_table_that_the_file_cuts_is_refused);
	tcase_add_test(tc, a_snapshot_table_over_64_mib_is_refused);
	tcase_add_test(
		tc, a_snapshot_is_found_by_id_before_name_and_has_its_own_size);
	tcase_add_test(tc, a_snapshot_maps_through_its_own_l1_table);
	tcase_add_test(tc, snapshots_are_listed_with_what_the_table_says);
	tcase_add_test(tc, a_snapshot_without_extra_data_has_the_disks_size);
	LOOP(tc, map_finds_damage_and_goes_on_behind_it, damage);
	LOOP(tc, map_answers_with_the_longest_run_of_a_kind, shapes);
	tcase_add_test(tc, a_run_stops_at_the_border_of_its_l2_table);
	tcase_add_test(tc, a_run_goes_on_over_what_is_read_of_a_table_at_once);
	tcase_add_test(tc, empty_l1_entries_are_one_hole_up_to_the_next_table);
	tcase_add_test(
		tc,
		a_cluster_that_runs_past_the_end_reads_as_zeroes_from_there);
	tcase_add_test(tc, an_l2_table_that_the_end_cuts_is_good_before_it);
	LOOP(tc, each_subcluster_is_data_or_zeroes_or_nothing, subclusters);
	tcase_add_test(tc, subclusters_join_over_the_border_of_their_clusters);
	tcase_add_test(tc, a_compressed_cluster_has_no_subclusters);
	tcase_add_test(
		tc, clusters_lie_in_the_external_data_file_also_at_its_start);
	LOOP(tc, damage_with_an_external_data_file_is_found, data_file_damage);
	tcase_add_test(tc, an_encrypted_disk_maps_with_a_key_only);
	tcase_add_test(tc, info_has_the_facts_of_qemu_img_info);
	tcase_add_test(tc, a_chain_opens_an_image_from_memory);
}

int main(void)
{
	return unit_main("qcow2", add);
}
