/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/drivers/vmdk.c: every check of open() and map() has a row that fails
 * without it, and every kind of extent and entry an answer. The descriptor's
 * text is test-vmdk-descriptor.c's, whole disks are tests/diff/vmdk.py's.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "formats/chain.h"
#include "formats/drivers/vmdk-inside.h"
#include "tests/lib/unit.h"

/*
 * A hosted file, in sectors: header, descriptor, both directories with their
 * two tables of 4 entries each, grains of 8.
 */
enum {
	TEXT = 1,
	RGD = 3,
	RGT = 4,
	GD = 6,
	GT = 7,
	GRAINS = 16,
	GRAIN = 8,
	ENTRIES = 4,
	FILE_SECTORS = GRAINS + 4 * GRAIN,
	CAPACITY = 8 * GRAIN - 3,
};

#define SECTOR	    512U
#define GRAIN_BYTES (GRAIN * SECTOR)

#define NO_PARENT "parentCID=ffffffff\n"
#define FLAT_TYPE "createType=\"monolithicFlat\"\n"
#define HEAD	  "# Disk DescriptorFile\nversion=1\nCID=1\n" NO_PARENT FLAT_TYPE

static struct error err;
static uint8_t file[FILE_SECTORS * SECTOR];
static size_t file_bytes;

static void put(size_t at, unsigned int width, uint64_t value)
{
	unsigned int i;

	ck_assert_uint_le(at + width, sizeof(file));
	for (i = 0; i < width; i++)
		file[at + i] = (uint8_t)(value >> 8 * i);
}

static void entry(unsigned int grain, uint32_t value)
{
	put(GT * SECTOR + grain / ENTRIES * SECTOR + grain % ENTRIES * 4, 4,
	    value);
}

static void second_entry(unsigned int grain, uint32_t value)
{
	put(RGT * SECTOR + grain / ENTRIES * SECTOR + grain % ENTRIES * 4, 4,
	    value);
}

static void hosted(void)
{
	unsigned int i;

	err = (struct error){ 0 };
	memset(file, 0, sizeof(file));
	file_bytes = sizeof(file);
	unit_fill(file + GRAINS * SECTOR, sizeof(file) - GRAINS * SECTOR, 1);
	memcpy(file, "KDMV", 4);
	put(4, 4, 2); /* version */
	put(8, 4, 7); /* newlines, redundant, zero entries */
	put(12, 8, CAPACITY);
	put(20, 8, GRAIN);
	put(44, 4, ENTRIES);
	put(48, 8, RGD);
	put(56, 8, GD);
	put(64, 8, GRAINS);
	memcpy(file + 73, "\n \r\n", 4);
	for (i = 0; i < 2; i++) {
		put(RGD * SECTOR + i * 4, 4, RGT + i);
		put(GD * SECTOR + i * 4, 4, GT + i);
	}
}

/* COWD: its directory in sector 4, a table of 4096 entries behind it. */
static void cowd(void)
{
	hosted();
	memset(file, 0, GRAINS * SECTOR);
	memcpy(file, "COWD", 4);
	put(4, 4, 1);
	put(8, 4, 3);
	put(12, 4, 100);
	put(16, 4, 1);
	put(20, 4, 4);
	put(24, 4, 1);
	put(4 * SECTOR, 4, 5);
	put(5 * SECTOR, 4, 40);
}

/* seSparse: directory in sector 2, tables (of a sector) at 3, grains at 16. */
static void sesparse(void)
{
	hosted();
	memset(file, 0, GRAINS * SECTOR);
	put(0, 8, 0xcafebabe);
	put(8, 8, 0x200000001);
	put(16, 8, 100 * GRAIN);
	put(24, 8, GRAIN);
	put(32, 8, 1);
	put(80, 8, 1);
	put(88, 8, 1);
	put(128, 8, 2);
	put(136, 8, 1);
	put(144, 8, 3);
	put(152, 8, 4);
	put(192, 8, GRAINS);
	put(200, 8, 4 * GRAIN);
	put(SECTOR, 8, 0xcafecafe);
	put(2 * SECTOR, 8, 1ULL << 60 | 2);
}

static struct layer *open_bytes(int *ret)
{
	static const struct open_options options;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	struct source *s = NULL;
	struct layer *l = NULL;

	must(memory_source_new(file, file_bytes, &s, &err), err);
	must(folder_open(unit_path("."), &folder, &err), err);
	*ret = layer_open(s, "NAME", folder_place(folder), "vmdk", true,
			  &options, &l, &err);
	return l;
}

static struct layer *open_good(void)
{
	struct layer *l;
	int r;

	l = open_bytes(&r);
	must(r, err);
	return l;
}

static struct extent map(struct layer *l, uint64_t off, uint64_t len)
{
	struct extent e;

	error_clear(&err);
	must(layer_map(l, off, len, &e, &err), err);
	return e;
}

static void text(const char *descriptor)
{
	hosted();
	file_bytes = strlen(descriptor);
	ck_assert_uint_le(file_bytes, sizeof(file));
	memcpy(file, descriptor, file_bytes);
}

struct field {
	size_t at;
	unsigned int width;
	uint64_t value;
	int code;
};

static const struct field hosted_fields[] = {
	{ 4, 4, 0, -ENOTSUP }, /* version under 1 */
	{ 4, 4, 4, -ENOTSUP }, /* version over 3 */
	{ 12, 8, 1ULL << 54, -EFBIG }, /* capacity over 2^63 bytes */
	{ 20, 8, 0, -EBADMSG }, /* grain of nothing */
	{ 20, 8, 12, -EBADMSG }, /* grain no power of two */
	{ 20, 8, 1U << 22, -EBADMSG }, /* grain over 1 GiB */
	{ 44, 4, 0, -EBADMSG }, /* table of nothing */
	{ 44, 4, 513, -EBADMSG }, /* table over 512 entries */
	{ 73, 4, 0x0d200a0d, -EBADMSG }, /* unix2dos */
	{ 73, 4, 0x000a200a, -EBADMSG }, /* dos2unix */
	{ 77, 2, 2, -ENOTSUP }, /* compression that nobody has */
	{ 56, 8, UINT64_MAX, -EBADMSG }, /* directory in a footer: no footer */
	{ 28, 8, 1ULL << 40, -EBADMSG }, /* descriptor past the end */
	{ 28, 8, UINT64_MAX, -EBADMSG }, /* descriptor's place wraps */
	{ 28, 8, 0, -EBADMSG }, /* descriptor with a size, but no place */
};

START_TEST(open_refuses_a_hosted_field)
{
	const struct field *f = &hosted_fields[_i];
	int r;

	hosted();
	if (f->at == 28)
		put(36, 8, 1);
	put(f->at, f->width, f->value);
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, f->code);
	ck_assert_uint_eq(err.off, f->at);
}
END_TEST

static const struct field pairs[][2] = {
	/* Both directories outside the file */
	{ { 48, 8, 1U << 20, 0 }, { 56, 8, 1U << 20, -EBADMSG } },
	{ { 48, 8, FILE_SECTORS, 0 }, { 56, 8, FILE_SECTORS, -EBADMSG } },
	{ { 48, 8, 0, 0 }, { 56, 8, 0, -EBADMSG } },
	{ { 48, 8, UINT64_MAX / 2, 0 }, { 56, 8, UINT64_MAX - 1, -EBADMSG } },
	/* A directory of 2^33 entries */
	{ { 12, 8, (1ULL << 38) - 1, 0 }, { 56, 8, GD, -EFBIG } },
	/* Compressed flag without a method; too large to be decoded whole */
	{ { 8, 4, 1 << 16, 0 }, { 77, 2, 0, -EBADMSG } },
	{ { 77, 2, 1, 0 }, { 20, 8, 8192, -EFBIG } },
	/* A descriptor of 1 MiB */
	{ { 28, 8, 1, 0 }, { 36, 8, 2048, -EFBIG } },
};

START_TEST(open_refuses_two_hosted_fields)
{
	const struct field *a = &pairs[_i][0], *b = &pairs[_i][1];
	int r;

	hosted();
	put(a->at, a->width, a->value);
	put(b->at, b->width, b->value);
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, b->code);
	ck_assert_uint_eq(err.off, b->at);
}
END_TEST

static const struct field cowd_fields[] = {
	{ 4, 4, 2, -ENOTSUP }, /* version */
	{ 16, 4, 0, -EBADMSG }, /* grain of nothing */
	{ 16, 4, (1 << 21) + 1, -EBADMSG }, /* grain over 1 GiB */
	{ 20, 4, FILE_SECTORS, -EBADMSG }, /* directory behind the end */
	{ 20, 4, 0, -EBADMSG }, /* directory in the header */
	{ 24, 4, 0, -EBADMSG }, /* directory too short */
	{ 24, 4, 2, -EBADMSG }, /* and too long for the capacity */
	{ 20, 4, 3, -EBADMSG }, /* directory in the header's last sector */
};

START_TEST(open_refuses_a_cowd_field)
{
	const struct field *f = &cowd_fields[_i];
	int r;

	cowd();
	put(f->at, f->width, f->value);
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, f->code);
	ck_assert_uint_eq(err.off, f->at);
}
END_TEST

static const struct field se_fields[] = {
	{ 8, 8, 0x200000002, -ENOTSUP },
	{ 16, 8, 1ULL << 54, -EFBIG },
	{ 24, 8, 0, -EBADMSG },
	{ 32, 8, 0, -ENOTSUP },
	{ 32, 8, 65, -ENOTSUP },
	{ 40, 8, 1, -ENOTSUP },
	{ 80, 8, FILE_SECTORS, -EBADMSG },
	{ 80, 8, UINT64_MAX, -EBADMSG },
	{ SECTOR, 8, 0, -EBADMSG }, /* volatile header's magic */
	{ SECTOR + 24, 1, 1, -ENOTSUP }, /* journal to be replayed */
	{ 128, 8, FILE_SECTORS + 1, -EBADMSG },
	{ 128, 8, FILE_SECTORS, -EBADMSG },
	{ 136, 8, 0, -EBADMSG },
	{ 144, 8, FILE_SECTORS + 1, -EBADMSG },
	{ 192, 8, UINT64_MAX, -EBADMSG },
	/* over the tables, the volatile header, the grains; then the tables */
	{ 128, 8, 6, -EBADMSG },
	{ 128, 8, 1, -EBADMSG },
	{ 128, 8, GRAINS, -EBADMSG },
	{ 128, 8, 0, -EBADMSG },
	{ 144, 8, GRAINS, -EBADMSG },
};

START_TEST(open_refuses_a_sesparse_field)
{
	const struct field *f = &se_fields[_i];
	int r;

	sesparse();
	put(f->at, f->width, f->value);
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, f->code);
	ck_assert_uint_eq(err.off, f->at);
}
END_TEST

static const struct {
	void (*build)(void);
	size_t bytes;
} cut[] = { { hosted, 78 }, { cowd, 1600 }, { sesparse, 511 } };

START_TEST(open_refuses_a_header_that_is_cut_off)
{
	int r;

	cut[_i].build();
	file_bytes = cut[_i].bytes;
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, -EBADMSG);
	unit_says(&err, "cut off");
}
END_TEST

static void check_extent(struct extent e, enum extent_kind kind,
			 uint64_t host_off, uint64_t len)
{
	ck_assert_int_eq(e.kind, kind);
	ck_assert_uint_eq(e.len, len);
	if (kind == EXTENT_DATA)
		ck_assert_uint_eq(e.host_off, host_off);
}

START_TEST(neighbours_in_the_file_are_one_extent_over_tables)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;
	unsigned int i;

	hosted();
	for (i = 0; i < 3; i++)
		entry(2 + i, GRAINS + i * GRAIN);
	entry(5, GRAINS);
	l = open_good();
	ck_assert_uint_eq(l->bytes, CAPACITY * SECTOR);
	ck_assert_uint_eq(l->unit_bytes, GRAIN_BYTES);
	check_extent(map(l, 0, l->bytes), EXTENT_HOLE, 0, 2 * GRAIN_BYTES);
	check_extent(map(l, 2 * GRAIN_BYTES, l->bytes - 2 * GRAIN_BYTES),
		     EXTENT_DATA, GRAINS * SECTOR, 3 * GRAIN_BYTES);
	check_extent(map(l, 2 * GRAIN_BYTES + 700, GRAIN_BYTES), EXTENT_DATA,
		     GRAINS * SECTOR + 700, GRAIN_BYTES);
	check_extent(map(l, 5 * GRAIN_BYTES, 3 * GRAIN_BYTES - 3 * SECTOR),
		     EXTENT_DATA, GRAINS * SECTOR, GRAIN_BYTES);
	check_extent(map(l, 6 * GRAIN_BYTES, 2 * GRAIN_BYTES - 3 * SECTOR),
		     EXTENT_HOLE, 0, 2 * GRAIN_BYTES - 3 * SECTOR);
}
END_TEST

START_TEST(entry_1_is_zero_with_the_flag_and_damage_without)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	entry(0, 1);
	if (_i)
		put(8, 4, 3);
	l = open_good();
	if (_i)
		check_extent(map(l, 0, 99), EXTENT_DAMAGED, 0, 99);
	else
		check_extent(map(l, 0, 2 * GRAIN_BYTES), EXTENT_ZERO, 0,
			     GRAIN_BYTES);
}
END_TEST

START_TEST(a_table_of_1_is_zeroes_with_the_flag)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(GD * SECTOR, 4, 1);
	l = open_good();
	check_extent(map(l, 100, l->bytes - 100), EXTENT_ZERO, 0,
		     ENTRIES * GRAIN_BYTES - 100);
}
END_TEST

/* What is wrong with the first tables; the second ones are good. */
static const struct field first_damage[] = {
	{ 56, 8, 1U << 20, 0 }, /* directory behind the end */
	{ 56, 8, 0, 0 }, /* no directory */
	{ GD * SECTOR, 4, FILE_SECTORS, 0 }, /* table behind the end */
	{ GD * SECTOR, 4, 0, 0 }, /* no table */
	{ GT * SECTOR, 4, FILE_SECTORS, 0 }, /* grain behind the end */
	{ GT * SECTOR, 4, UINT32_MAX, 0 },
};

START_TEST(the_redundant_tables_stand_in_for_damaged_ones)
{
	const struct field *f = &first_damage[_i];
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	second_entry(0, GRAINS + GRAIN);
	put(f->at, f->width, f->value);
	l = open_good();
	check_extent(map(l, 5, 100), EXTENT_DATA, (GRAINS + GRAIN) * SECTOR + 5,
		     100);
}
END_TEST

START_TEST(without_the_flag_the_second_directory_is_not_believed)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(8, 4, 5);
	second_entry(0, GRAINS);
	put(GD * SECTOR, 4, 0);
	l = open_good();
	check_extent(map(l, 0, 100), EXTENT_HOLE, 0, 100);
}
END_TEST

static const struct field tables_damage[] = {
	{ GD * SECTOR, 4, FILE_SECTORS, 0 },
	{ GD * SECTOR, 4, UINT32_MAX, 0 },
	{ GT * SECTOR, 4, FILE_SECTORS, 0 },
	{ GT * SECTOR, 4, UINT32_MAX, 0 },
};

START_TEST(what_lies_behind_the_end_is_damage_of_its_grain)
{
	const struct field *f = &tables_damage[_i];
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(8, 4, 5);
	put(f->at, f->width, f->value);
	l = open_good();
	check_extent(map(l, 100, 2 * GRAIN_BYTES), EXTENT_DAMAGED, 0,
		     GRAIN_BYTES - 100);
}
END_TEST

START_TEST(a_grain_that_the_end_cuts_is_damage_behind_it)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	entry(0, FILE_SECTORS - 2);
	entry(1, FILE_SECTORS - 2 + GRAIN);
	l = open_good();
	check_extent(map(l, 0, l->bytes), EXTENT_DATA,
		     (FILE_SECTORS - 2) * SECTOR, 2 * SECTOR);
	check_extent(map(l, 2 * SECTOR, l->bytes - 2 * SECTOR), EXTENT_DAMAGED,
		     0, GRAIN_BYTES - 2 * SECTOR);
	check_extent(map(l, GRAIN_BYTES, 10), EXTENT_DAMAGED, 0, 10);
}
END_TEST

static const struct {
	uint32_t table, grain;
	const char *says;
} misplaced[] = {
	{ GT, RGD, "lies over the metadata" },
	{ GT, GT, "lies over the metadata" },
	{ GT, GRAINS - 1, "lies over the metadata" },
	{ GRAINS, GRAINS, "grain table" },
	{ GD, GRAINS, "grain directory" },
	{ RGD, GRAINS, "redundant grain directory" },
};

START_TEST(tables_and_grains_do_not_lie_over_each_other)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(8, 4, 7);
	put(GD * SECTOR, 4, misplaced[_i].table);
	put(RGD * SECTOR, 4, misplaced[_i].table);
	entry(0, misplaced[_i].grain);
	second_entry(0, misplaced[_i].grain);
	l = open_good();
	check_extent(map(l, 0, GRAIN_BYTES), EXTENT_DAMAGED, 0, GRAIN_BYTES);
	unit_says(&err, misplaced[_i].says);
}
END_TEST

START_TEST(without_an_overhead_what_is_known_is_kept_apart)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(64, 8, 0);
	entry(0, GD);
	second_entry(0, GD);
	entry(1, GT);
	l = open_good();
	check_extent(map(l, 0, GRAIN_BYTES), EXTENT_DAMAGED, 0, GRAIN_BYTES);
	check_extent(map(l, GRAIN_BYTES, 1), EXTENT_DATA, GT * SECTOR, 1);
}
END_TEST

START_TEST(a_cowd_parents_name_that_lost_its_beginning_is_refused)
{
	int r;

	cowd();
	strcpy((char *)file + 32 + 20, "base.vmdk");
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, -EBADMSG);
	unit_says(&err, "parent's name is damaged");
}
END_TEST

START_TEST(cowd_entries_are_sectors)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	cowd();
	put(5 * SECTOR + 4, 4, 41);
	l = open_good();
	ck_assert_uint_eq(l->bytes, 100 * SECTOR);
	check_extent(map(l, 0, l->bytes), EXTENT_DATA, 40 * SECTOR, 2 * SECTOR);
	check_extent(map(l, 2 * SECTOR, 98 * SECTOR), EXTENT_HOLE, 0,
		     98 * SECTOR);
}
END_TEST

static const struct {
	uint64_t entry;
	enum extent_kind kind;
	uint64_t host_grain;
} se_entries[] = {
	{ 0, EXTENT_HOLE, 0 },
	{ 1ULL << 60, EXTENT_ZERO, 0 },
	{ 1ULL << 60 | 77, EXTENT_ZERO, 0 },
	{ 2ULL << 60, EXTENT_ZERO, 0 },
	{ 3ULL << 60, EXTENT_DATA, 0 },
	{ 3ULL << 60 | 3ULL << 48, EXTENT_DATA, 3 },
	{ 3ULL << 60 | 4ULL << 48, EXTENT_DAMAGED, 0 }, /* behind the end */
	{ 3ULL << 60 | 1, EXTENT_DAMAGED, 0 }, /* grain 4096 */
	{ 3ULL << 60 | 0xffffffffffffULL, EXTENT_DAMAGED, 0 },
	{ 5, EXTENT_DAMAGED, 0 },
	{ 4ULL << 60, EXTENT_DAMAGED, 0 },
	{ UINT64_MAX, EXTENT_DAMAGED, 0 },
};

START_TEST(sesparse_entries_have_types)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	sesparse();
	put(5 * SECTOR + 8, 8, se_entries[_i].entry);
	put(5 * SECTOR + 16, 8, 9ULL << 60);
	l = open_good();
	check_extent(map(l, GRAIN_BYTES + 10, GRAIN_BYTES - 10),
		     se_entries[_i].kind,
		     (GRAINS + se_entries[_i].host_grain * GRAIN) * SECTOR + 10,
		     GRAIN_BYTES - 10);
}
END_TEST

static const uint64_t se_directory[] = {
	1ULL << 60 | 4, /* not among the tables that there are */
	1ULL << 60 | 1ULL << 32, /* bits that mean nothing */
	2ULL << 60,
	7,
};

START_TEST(a_sesparse_directory_entry_that_is_wrong_is_damage)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	sesparse();
	put(2 * SECTOR, 8, se_directory[_i]);
	l = open_good();
	check_extent(map(l, 0, l->bytes), EXTENT_DAMAGED, 0, GRAIN_BYTES);
}
END_TEST

/* A compressed grain in GRAINS: sector and size before the stream. */
static size_t compressed(uint64_t sector, uint32_t extra)
{
	uint8_t plain[GRAIN_BYTES];
	uLongf bytes = 3 * GRAIN * SECTOR;
	size_t at = GRAINS * SECTOR;

	hosted();
	memset(plain, 'x', sizeof(plain));
	ck_assert_int_eq(compress(file + at + 12, &bytes, plain, sizeof(plain)),
			 Z_OK);
	put(8, 4, 3 << 16 | 1);
	put(77, 2, 1);
	put(at, 8, sector);
	put(at + 8, 4, bytes + extra);
	return bytes;
}

START_TEST(a_compressed_grain_is_one_extent)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;
	struct extent e;
	size_t bytes = compressed(7 * GRAIN, 0);

	entry(7, GRAINS);
	l = open_good();
	e = map(l, 7 * GRAIN_BYTES + 100, GRAIN_BYTES - 3 * SECTOR - 100);
	ck_assert_int_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_int_eq(e.codec, CODEC_ZLIB);
	ck_assert_uint_eq(e.host_off, GRAINS * SECTOR + 12);
	ck_assert_uint_eq(e.comp_bytes, bytes);
	/* The disk's last grain: what of it is in the disk. */
	ck_assert_uint_eq(e.unit_bytes, GRAIN_BYTES - 3 * SECTOR);
	ck_assert_uint_eq(e.unit_off, 100);
	ck_assert_uint_eq(e.len, GRAIN_BYTES - 3 * SECTOR - 100);
}
END_TEST

static const struct {
	uint64_t sector;
	uint32_t size;
	uint32_t entry;
} bad_markers[] = {
	{ 2 * GRAIN, 100, GRAINS }, /* another grain's */
	{ GRAIN, 0, GRAINS }, /* a marker of metadata */
	{ GRAIN, 2 * GRAIN_BYTES + SECTOR + 1, GRAINS },
	{ GRAIN, UINT32_MAX, GRAINS },
	{ GRAIN, 100, FILE_SECTORS },
};

START_TEST(a_compressed_grain_with_a_wrong_header_is_damage)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	compressed(bad_markers[_i].sector, 0);
	put(GRAINS * SECTOR + 8, 4, bad_markers[_i].size);
	entry(1, bad_markers[_i].entry);
	l = open_good();
	check_extent(map(l, GRAIN_BYTES, 3 * GRAIN_BYTES), EXTENT_DAMAGED, 0,
		     GRAIN_BYTES);
}
END_TEST

START_TEST(a_compressed_grain_that_the_end_cuts_is_damage)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	compressed(GRAIN, 100);
	entry(1, GRAINS);
	file_bytes = GRAINS * SECTOR + 12 + 99;
	l = open_good();
	check_extent(map(l, GRAIN_BYTES, GRAIN_BYTES), EXTENT_DAMAGED, 0,
		     GRAIN_BYTES);
}
END_TEST

START_TEST(extents_of_zeroes_and_of_no_access_have_room)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	text(HEAD "RW 5 ZERO\nNOACCESS 7 FLAT \"/dev/sda\" 0\nRDONLY 9 ZERO\n");
	l = open_good();
	ck_assert_uint_eq(l->bytes, 21 * SECTOR);
	ck_assert_uint_eq(l->n_files, 0);
	check_extent(map(l, 0, l->bytes), EXTENT_ZERO, 0, 5 * SECTOR);
	check_extent(map(l, 6 * SECTOR, 15 * SECTOR), EXTENT_ZERO, 0,
		     6 * SECTOR);
	check_extent(map(l, 20 * SECTOR, SECTOR), EXTENT_ZERO, 0, SECTOR);
}
END_TEST

START_TEST(a_flat_file_that_is_cut_off_is_damage_behind_its_end)
{
	static const char bytes[3 * SECTOR + 10];
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	unit_write(unit_path("cut.raw"), bytes, sizeof(bytes));
	text(HEAD "RW 10 FLAT \"cut.raw\" 0\n");
	l = open_good();
	check_extent(map(l, 0, l->bytes), EXTENT_DATA, 0, 3 * SECTOR + 10);
	check_extent(map(l, 3 * SECTOR + 10, 6 * SECTOR), EXTENT_DAMAGED, 0,
		     6 * SECTOR);
	check_extent(map(l, 3 * SECTOR + 10, 1), EXTENT_DAMAGED, 0, 1);
	unit_says(&err, "behind the file's end");
}
END_TEST

START_TEST(an_extent_file_is_opened_once_for_its_neighbours)
{
	static const char bytes[4 * SECTOR];
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	unit_write(unit_path("twice.raw"), bytes, sizeof(bytes));
	text(HEAD "RW 2 FLAT \"twice.raw\" 2\n"
		  "RW 2 FLAT \"twice.raw\" 0\n");
	l = open_good();
	ck_assert_uint_eq(l->n_files, 1);
	check_extent(map(l, 0, l->bytes), EXTENT_DATA, 2 * SECTOR, 2 * SECTOR);
	check_extent(map(l, 2 * SECTOR, 2 * SECTOR), EXTENT_DATA, 0,
		     2 * SECTOR);
}
END_TEST

static const struct {
	const char *text;
	int code;
	const char *says;
} refused[] = {
	{ "createType=\"vmfsRaw\"\nRW 1 ZERO\n", -ENOTSUP, "vmfsRaw" },
	{ "createType=\"vmfs\"\n", -EBADMSG, "no extents" },
	{ "RW 18014398509481984 ZERO\n", -EFBIG, "over the limit" },
	{ "RW 18014398509481983 ZERO\nRW 1 ZERO\n", -EFBIG, "sum" },
	{ "RW 1 FLAT \"good.raw\" 72057594037927936\n", -EBADMSG, "offset" },
	{ "RW 1 SPARSE \"good.raw\"\n", -EBADMSG, "not a sparse extent" },
	{ "RW 1 SESPARSE \"hosted.vmdk\"\n", -EBADMSG, "declared SESPARSE" },
	{ "RW 62 SPARSE \"hosted.vmdk\"\nRW 1 ZERO\n", -EBADMSG,
	  "the descriptor wants" },
	{ "RW 1 FLAT \"../good.raw\" 0\n", -EPERM, "extent" },
	{ "parentCID=5\nRW 1 ZERO\n", -EBADMSG, "does not name it" },
	{ "parentCIE=ffffffff\nparentFileNameHint=\"x\"\nRW 1 ZERO\n", -EBADMSG,
	  "no parentCID" },
	{ "createTypf=\"vmfs\"\nRW 1 ZERO\n", -EBADMSG, "no createType" },
	{ "SW 1 ZERO\n", -EBADMSG, "is no comment" },
	{ "RW 60 SPARSE \"hosted.vmdk\"\n", -EBADMSG, "the descriptor wants" },
	{ "RW 1 FLAT \"good.raw\" 1\n", -EBADMSG, "ends past its file's" },
};

START_TEST(open_refuses_a_descriptor)
{
	char descriptor[512];
	int r;

	hosted();
	unit_write(unit_path("hosted.vmdk"), file, sizeof(file));
	unit_write(unit_path("good.raw"), file + SECTOR, SECTOR);
	snprintf(descriptor, sizeof(descriptor),
		 "# Disk DescriptorFile\nversion=1\nCID=1\n%s%s%s",
		 strstr(refused[_i].text, "parentCI") ? "" : NO_PARENT,
		 strstr(refused[_i].text, "createTyp") ? "" : FLAT_TYPE,
		 refused[_i].text);
	text(descriptor);
	ck_assert_ptr_null(open_bytes(&r));
	ck_assert_int_eq(r, refused[_i].code);
	unit_says(&err, refused[_i].says);
}
END_TEST

START_TEST(the_embedded_descriptor_means_the_file_itself)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	hosted();
	put(28, 8, TEXT);
	put(36, 8, 2);
	snprintf((char *)file + TEXT * SECTOR, 2 * SECTOR,
		 HEAD "RW 3 ZERO\n"
		      "RW %d SPARSE \"old name.vmdk\"\n",
		 CAPACITY);
	entry(0, GRAINS);
	l = open_good();
	ck_assert_uint_eq(l->bytes, (CAPACITY + 3) * SECTOR);
	/* Grains are not where multiples of them are. */
	ck_assert_uint_eq(l->unit_bytes, SECTOR);
	check_extent(map(l, 0, l->bytes), EXTENT_ZERO, 0, 3 * SECTOR);
	check_extent(map(l, 3 * SECTOR, l->bytes - 3 * SECTOR), EXTENT_DATA,
		     GRAINS * SECTOR, GRAIN_BYTES);
}
END_TEST

static int open_chain(bool force, struct chain *ret)
{
	struct open_options options = { .force_parent = force };

	error_clear(&err);
	return chain_open(unit_path("child.vmdk"), &options, ret, &err);
}

static void write_text(const char *name, const char *descriptor)
{
	unit_write(unit_path("%s", name), descriptor, strlen(descriptor));
}

START_TEST(a_parent_is_known_by_its_cid)
{
	char child[512];
	struct chain c;

	hosted();
	write_text("parent.vmdk",
		   "# Disk DescriptorFile\nversion=1\nCID=abcd\n" NO_PARENT
			   FLAT_TYPE "RW 9 ZERO\n");
	snprintf(child, sizeof(child),
		 "# Disk DescriptorFile\nversion=1\nCID=1\n" FLAT_TYPE
		 "parentCID=%08x\n"
		 "parentFileNameHint=\"C:\\VMs\\parent.vmdk\"\nRW 9 ZERO\n",
		 0xabcdU + (unsigned int)_i);
	write_text("child.vmdk", child);
	if (!_i) {
		must(open_chain(false, &c), err);
		ck_assert_uint_eq(c.depth, 2);
		chain_done(&c);
		return;
	}
	ck_assert_int_eq(open_chain(false, &c), -EBADMSG);
	unit_says(&err, "CID is 0000abcd, not 0000abce");
	must(open_chain(true, &c), err);
	chain_done(&c);
}
END_TEST

static char found[4096];

static void add_text(struct info_sink *s, const char *key, const char *value)
{
	strncat(found, key, sizeof(found) - strlen(found) - 1);
	strncat(found, "=", sizeof(found) - strlen(found) - 1);
	strncat(found, value, sizeof(found) - strlen(found) - 1);
	strncat(found, ";", sizeof(found) - strlen(found) - 1);
}

static void add_number(struct info_sink *s, const char *key, uint64_t value)
{
	char number[32];

	snprintf(number, sizeof(number), "%llu", (unsigned long long)value);
	add_text(s, key, number);
}

static void add_flag(struct info_sink *s, const char *key, bool value)
{
	add_text(s, key, value ? "yes" : "no");
}

START_TEST(info_tells_ids_and_the_data_base)
{
	struct info_sink sink = { add_text, add_number, add_flag };
	CLEANUP(layer_unrefp) struct layer *l = NULL;

	text("# Disk DescriptorFile\nversion=1\nCID=ff\n" NO_PARENT
	     "createType=\"vmfs\"\nRW 1 ZERO\n"
	     "ddb.adapterType = \"ide\"\nddb.\033[1m = \"bold\"\n");
	l = open_good();
	l->ops->info(l, &sink);
	ck_assert_str_eq(found, "create-type=vmfs;cid=255;"
				"parent-cid=4294967295;extents=1;"
				"ddb.adapterType=ide;ddb.\\x1b[1m=bold;");
}
END_TEST

static void add_tests(TCase *tc)
{
	LOOP(tc, open_refuses_a_hosted_field, hosted_fields);
	LOOP(tc, open_refuses_two_hosted_fields, pairs);
	LOOP(tc, open_refuses_a_cowd_field, cowd_fields);
	LOOP(tc, open_refuses_a_sesparse_field, se_fields);
	LOOP(tc, open_refuses_a_header_that_is_cut_off, cut);
	tcase_add_test(tc, neighbours_in_the_file_are_one_extent_over_tables);
	tcase_add_loop_test(
		tc, entry_1_is_zero_with_the_flag_and_damage_without, 0, 2);
	tcase_add_test(tc, a_table_of_1_is_zeroes_with_the_flag);
	LOOP(tc, the_redundant_tables_stand_in_for_damaged_ones, first_damage);
	tcase_add_test(tc,
		       without_the_flag_the_second_directory_is_not_believed);
	LOOP(tc, what_lies_behind_the_end_is_damage_of_its_grain,
	     tables_damage);
	tcase_add_test(tc, a_grain_that_the_end_cuts_is_damage_behind_it);
	LOOP(tc, tables_and_grains_do_not_lie_over_each_other, misplaced);
	tcase_add_test(tc, without_an_overhead_what_is_known_is_kept_apart);
	tcase_add_test(tc,
		       a_cowd_parents_name_that_lost_its_beginning_is_refused);
	tcase_add_test(tc, cowd_entries_are_sectors);
	LOOP(tc, sesparse_entries_have_types, se_entries);
	LOOP(tc, a_sesparse_directory_entry_that_is_wrong_is_damage,
	     se_directory);
	tcase_add_test(tc, a_compressed_grain_is_one_extent);
	LOOP(tc, a_compressed_grain_with_a_wrong_header_is_damage, bad_markers);
	tcase_add_test(tc, a_compressed_grain_that_the_end_cuts_is_damage);
	tcase_add_test(tc, extents_of_zeroes_and_of_no_access_have_room);
	tcase_add_test(tc,
		       a_flat_file_that_is_cut_off_is_damage_behind_its_end);
	tcase_add_test(tc, an_extent_file_is_opened_once_for_its_neighbours);
	LOOP(tc, open_refuses_a_descriptor, refused);
	tcase_add_test(tc, the_embedded_descriptor_means_the_file_itself);
	tcase_add_loop_test(tc, a_parent_is_known_by_its_cid, 0, 2);
	tcase_add_test(tc, info_tells_ids_and_the_data_base);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("vmdk", add_tests);
}
