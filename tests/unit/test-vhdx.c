/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "formats/drivers/vhdx-inside.h"
#include "tests/lib/unit.h"

/*
 * 1 MiB of headers, log, metadata and BAT each; then blocks 0, 1 and 3 of a
 * disk of 6 blocks of 1 MiB, and a bitmap.
 */
#define MIB	    (1U << 20)
#define LOG_AT	    MIB
#define META_AT	    (2 * MIB)
#define BAT_AT	    (3 * MIB)
#define BLOCK_AT(i) ((4 + (i)) * MIB)
#define BITMAP_AT   (7 * MIB)
#define FILE_BYTES  (8 * MIB)
#define DISK_BYTES  (6 * MIB)
#define CHUNK	    4096U /* blocks; 512-byte sectors */
#define ITEMS_AT    (META_AT + 65536)
#define LOCATOR_AT  (META_AT + 131072)

extern const struct format_ops vhdx_format;

static struct error err;
static uint8_t file[FILE_BYTES];
static size_t file_bytes;

static void put16(size_t at, uint16_t v)
{
	v = htole16(v);
	memcpy(file + at, &v, 2);
}

static void put32(size_t at, uint32_t v)
{
	v = htole32(v);
	memcpy(file + at, &v, 4);
}

static void put64(size_t at, uint64_t v)
{
	v = htole64(v);
	memcpy(file + at, &v, 8);
}

static void seal(size_t at, size_t len)
{
	put32(at + 4, 0);
	put32(at + 4, vhdx_crc32c(0, file + at, len));
}

static void put_header(size_t at, uint64_t sequence)
{
	memcpy(file + at, "head", 4);
	put64(at + 8, sequence);
	memcpy(file + at + 32, "this data's guid", 16);
	put16(at + 66, 1);
	put32(at + 68, MIB);
	put64(at + 72, LOG_AT);
}

static void put_region(size_t at, const char *guid, uint64_t off)
{
	memcpy(file + at, guid, 16);
	put64(at + 16, off);
	put32(at + 24, MIB);
	put32(at + 28, 1);
}

static void put_item(unsigned int i, const char *guid, uint32_t off,
		     uint32_t len)
{
	size_t at = META_AT + 32 + 32 * i;

	memcpy(file + at, guid, 16);
	put32(at + 16, off - META_AT);
	put32(at + 20, len);
	put32(at + 24, 4);
}

/* Both copies of both get their checksums. */
static void seal_all(void)
{
	memcpy(file + (256 << 10), file + (192 << 10), 65536);
	seal(64 << 10, 4096);
	seal(128 << 10, 4096);
	seal(192 << 10, 65536);
	seal(256 << 10, 65536);
}

static void put_bat(uint64_t at, uint64_t off, unsigned int state)
{
	put64(BAT_AT + at * 8, off | state);
}

static void build(void)
{
	unsigned int i;

	memset(file, 0, sizeof(file));
	memcpy(file, "vhdxfile", 8);
	put_header(64 << 10, 1);
	put_header(128 << 10, 2);
	memcpy(file + (192 << 10), "regi", 4);
	put32((192 << 10) + 8, 2);
	put_region((192 << 10) + 16,
		   "\x66\x77\xc2\x2d\x23\xf6\x00\x42"
		   "\x9d\x64\x11\x5e\x9b\xfd\x4a\x08",
		   BAT_AT);
	put_region((192 << 10) + 48,
		   "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b"
		   "\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
		   META_AT);
	memcpy(file + META_AT, "metadata", 8);
	put16(META_AT + 10, 3);
	put_item(0,
		 "\x37\x67\xa1\xca\x36\xfa\x43\x4d"
		 "\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b",
		 ITEMS_AT, 8);
	put_item(1,
		 "\x24\x42\xa5\x2f\x1b\xcd\x76\x48"
		 "\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8",
		 ITEMS_AT + 8, 8);
	put_item(2,
		 "\x1d\xbf\x41\x81\x6f\xa9\x09\x47"
		 "\xba\x47\xf2\x33\xa8\xfa\xab\x5f",
		 ITEMS_AT + 16, 4);
	put32(ITEMS_AT, MIB);
	put64(ITEMS_AT + 8, DISK_BYTES);
	put32(ITEMS_AT + 16, 512);
	for (i = 0; i < 3; i++)
		unit_fill(file + BLOCK_AT(i), MIB, i);
	put_bat(0, BLOCK_AT(0), 6);
	put_bat(1, BLOCK_AT(1), 6);
	put_bat(3, BLOCK_AT(2), 6);
	file_bytes = FILE_BYTES;
	seal_all();
}

static size_t put_text(size_t at, const char *text)
{
	size_t n = 0;

	for (; text[n]; n++)
		put16(at + 2 * n, (uint8_t)text[n]);
	return 2 * n;
}

/* Key and value number @i of the locator. */
static void put_pair(unsigned int i, const char *key, const char *value)
{
	size_t at = LOCATOR_AT + 20 + 12 * i, text = 512 + 512 * i;

	put32(at, (uint32_t)text);
	put32(at + 4, (uint32_t)text + 256);
	put16(at + 8, (uint16_t)put_text(LOCATOR_AT + text, key));
	put16(at + 10, (uint16_t)put_text(LOCATOR_AT + text + 256, value));
	put16(LOCATOR_AT + 18, (uint16_t)(i + 1));
}

static void make_child(const char *linkage)
{
	put32(ITEMS_AT + 4, 2);
	put16(META_AT + 10, 4);
	put_item(3,
		 "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45"
		 "\xab\xf7\xd3\xd8\x48\x34\xab\x0c",
		 LOCATOR_AT, 4096);
	memcpy(file + LOCATOR_AT,
	       "\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a"
	       "\xb7\x89\x25\xb8\xe9\x44\x59\x13",
	       16);
	put_pair(0, "parent_linkage", linkage);
	put_bat(CHUNK, BITMAP_AT, 6);
}

static int open_file(struct layer **ret)
{
	static const struct open_options options;
	struct source *src = NULL;

	*ret = NULL;
	err = (struct error){ 0 };
	must(memory_source_new(file, file_bytes, &src, &err), err);
	return layer_open(src, "IMAGE", NULL, "vhdx", true, &options, ret,
			  &err);
}

static struct layer *open_good(void)
{
	struct layer *l;

	must(open_file(&l), err);
	return l;
}

static struct extent map(struct layer *l, uint64_t off, uint64_t len)
{
	struct extent e;

	err = (struct error){ 0 };
	ck_assert_int_eq(layer_map(l, off, len, &e, &err), 0);
	return e;
}

START_TEST(the_checksum_is_crc32c)
{
	ck_assert_uint_eq(vhdx_crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(vhdx_crc32c(vhdx_crc32c(0, "1234", 4), "56789", 5),
			  0xe3069283);
	ck_assert_uint_eq(vhdx_crc32c(0, file, 0), 0);
}
END_TEST

#define HEAD(at)   ((128 << 10) + (at))
#define REGION(at) ((192 << 10) + (at))
#define ITEM(i)	   (META_AT + 32 + 32 * (i))

static const struct {
	size_t at, bytes;
	uint64_t value;
	int code;
	uint64_t off;
	const char *says;
} hostile[] = {
	{ HEAD(66), 2, 2, -ENOTSUP, HEAD(66), "VHDX version 2" },
	{ REGION(8), 4, 2048, -EFBIG, REGION(8), "2048 regions" },
	{ REGION(8), 4, 1, -EBADMSG, REGION(0), "no metadata region" },
	{ REGION(8), 4, 3, -EBADMSG, REGION(80 + 16), "whole MiB" },
	{ REGION(16), 4, 0, -ENOTSUP, REGION(16), "is required" },
	{ REGION(32), 8, 0, -EBADMSG, REGION(32), "whole MiB" },
	{ REGION(32), 8, BAT_AT + 512, -EBADMSG, REGION(32), "whole MiB" },
	{ REGION(32), 8, 1ULL << 63, -EBADMSG, REGION(32), "whole MiB" },
	{ REGION(32), 8, LOG_AT, -EBADMSG, 0, "overlap" },
	{ REGION(32), 8, META_AT, -EBADMSG, 0, "overlap" },
	{ REGION(32), 8, 1ULL << 40, -EBADMSG, REGION(32), "past the file" },
	{ REGION(40), 4, 0, -EBADMSG, REGION(32), "whole MiB" },
	{ REGION(40), 4, MIB + 1, -EBADMSG, REGION(32), "whole MiB" },
	{ REGION(64), 8, 1ULL << 40, -EBADMSG, REGION(64), "past the file" },
	{ META_AT, 4, 0, -EBADMSG, META_AT, "no metadata table" },
	{ META_AT + 10, 2, 2048, -EFBIG, META_AT + 10, "2048 metadata" },
	{ META_AT + 10, 2, 2, -EBADMSG, META_AT, "logical sector size" },
	{ ITEM(0), 1, 0, -ENOTSUP, ITEM(0), "is required" },
	{ ITEM(0) + 24, 4, 5, -ENOTSUP, ITEM(0), "is required" },
	{ ITEM(0) + 16, 4, 65535, -EBADMSG, ITEM(0) + 16, "does not lie" },
	{ ITEM(0) + 16, 4, MIB - 7, -EBADMSG, ITEM(0) + 16, "does not lie" },
	{ ITEM(0) + 16, 4, UINT32_MAX, -EBADMSG, ITEM(0) + 16, "lie" },
	{ ITEM(0) + 20, 4, MIB + 1, -EFBIG, ITEM(0) + 20, "the limit" },
	{ ITEM(0) + 20, 4, 4, -EBADMSG, ITEMS_AT, "has 4 bytes, not 8" },
	{ ITEMS_AT, 4, MIB / 2, -EBADMSG, ITEMS_AT, "block size" },
	{ ITEMS_AT, 4, 3 * MIB, -EBADMSG, ITEMS_AT, "block size" },
	{ ITEMS_AT, 4, 512 * MIB, -EBADMSG, ITEMS_AT, "block size" },
	{ ITEMS_AT, 4, 0, -EBADMSG, ITEMS_AT, "block size" },
	{ ITEMS_AT + 8, 8, (64ULL << 40) + 512, -EFBIG, ITEMS_AT + 8, "lim" },
	{ ITEMS_AT + 8, 8, 513, -EBADMSG, ITEMS_AT + 8, "whole sectors" },
	{ ITEMS_AT + 8, 8, 1ULL << 40, -EBADMSG, REGION(40), "BAT has room" },
	{ ITEMS_AT + 16, 4, 1024, -EBADMSG, ITEMS_AT + 16, "sector size" },
	{ ITEMS_AT + 4, 4, 2, -EBADMSG, ITEMS_AT, "no parent locator" },
	{ ITEMS_AT + 8, 8, 0, -EBADMSG, ITEMS_AT + 8, "virtual size is 0" },
	{ ITEM(2) + 16, 4, ITEMS_AT - META_AT + 12, -EBADMSG, 0, "overlap at" },
};

START_TEST(open_refuses_hostile_field)
{
	struct layer *l;
	uint64_t v = htole64(hostile[_i].value);

	build();
	memcpy(file + hostile[_i].at, &v, hostile[_i].bytes);
	seal_all();
	ck_assert_int_eq(open_file(&l), hostile[_i].code);
	if (hostile[_i].off)
		ck_assert_uint_eq(err.off, hostile[_i].off);
	unit_says(&err, hostile[_i].says);
}
END_TEST

START_TEST(an_entry_for_a_known_region_or_item_comes_once)
{
	struct layer *l;

	build();
	memcpy(file + REGION(48), file + REGION(16), 16);
	seal_all();
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "two entries for the BAT");
	build();
	memcpy(file + ITEM(1), file + ITEM(0), 16);
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "two items file parameters");
}
END_TEST

START_TEST(one_sound_header_is_enough_and_the_newer_counts)
{
	struct layer *l;

	build();
	put16((64 << 10) + 66, 9); /* the older one may say anything */
	seal_all();
	layer_unref(open_good());
	put64((64 << 10) + 8, 3);
	seal_all();
	ck_assert_int_eq(open_file(&l), -ENOTSUP);
	file[(64 << 10) + 500] ^= 1;
	layer_unref(open_good());
	file[(128 << 10) + 500] ^= 1;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "neither header");
	/* Of equal numbers neither is newer, so they must be equal. */
	build();
	put64((64 << 10) + 8, 2);
	seal_all();
	layer_unref(open_good());
	file[(64 << 10) + 500] ^= 1;
	seal_all();
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "two different headers");
}
END_TEST

START_TEST(one_sound_region_table_is_enough)
{
	struct layer *l;

	build();
	file[(192 << 10) + 500] ^= 1;
	layer_unref(open_good());
	file[(256 << 10) + 500] ^= 1;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "neither region table");
}
END_TEST

/* Where no block may be, and what is there. */
static const struct {
	uint64_t off;
	unsigned int state;
	const char *says;
} over[] = {
	{ LOG_AT, 6, "over the log" },
	{ META_AT, 6, "over the metadata region" },
	{ BAT_AT, 6, "over the BAT" },
	{ 0, 6, "over the headers" },
};

START_TEST(a_block_where_none_may_be_is_damage)
{
	struct layer *l;

	build();
	put_bat(1, over[_i].off, over[_i].state);
	l = open_good();
	ck_assert_int_eq(map(l, MIB, MIB).kind, EXTENT_DAMAGED);
	unit_says(&err, over[_i].says);
	ck_assert_uint_eq(map(l, 0, DISK_BYTES).len, MIB);
	layer_unref(l);
}
END_TEST

START_TEST(blocks_side_by_side_are_one_extent)
{
	struct layer *l;
	struct extent e;

	build();
	l = open_good();
	e = map(l, 100, DISK_BYTES - 100);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(0) + 100);
	ck_assert_uint_eq(e.len, 2 * MIB - 100);
	e = map(l, 2 * MIB, 4 * MIB);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, MIB);
	e = map(l, 3 * MIB, 100);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(2));
	ck_assert_uint_eq(e.len, 100);
	e = map(l, 4 * MIB + 1, 2 * MIB - 1);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, 2 * MIB - 1);
	layer_unref(l);
}
END_TEST

static const struct {
	unsigned int state;
	enum extent_kind kind;
} states[] = {
	{ 0, EXTENT_HOLE },    { 1, EXTENT_ZERO },    { 2, EXTENT_ZERO },
	{ 3, EXTENT_ZERO },    { 5, EXTENT_ZERO },    { 6, EXTENT_DATA },
	{ 4, EXTENT_DAMAGED }, { 7, EXTENT_DAMAGED }, /* there is no parent */
};

START_TEST(each_state_has_its_answer)
{
	struct layer *l;
	struct extent e;

	build();
	put_bat(2, BLOCK_AT(1), states[_i].state);
	l = open_good();
	e = map(l, 2 * MIB, MIB);
	ck_assert_int_eq(e.kind, states[_i].kind);
	ck_assert_uint_eq(e.len, MIB);
	layer_unref(l);
}
END_TEST

static const uint64_t bad_places[] = { 0, FILE_BYTES, 1ULL << 50,
				       UINT64_MAX - MIB + 1 };

START_TEST(a_block_outside_the_file_is_damaged_and_the_rest_reads)
{
	struct layer *l;
	struct extent e;

	build();
	put_bat(1, bad_places[_i], 6);
	l = open_good();
	e = map(l, MIB + 100, DISK_BYTES - MIB - 100);
	ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
	ck_assert_uint_eq(e.len, MIB - 100);
	ck_assert_uint_eq(map(l, 0, DISK_BYTES).len, MIB);
	ck_assert_int_eq(map(l, 3 * MIB, 1).kind, EXTENT_DATA);
	layer_unref(l);
}
END_TEST

START_TEST(a_block_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;
	struct extent e;

	build();
	file_bytes = BLOCK_AT(2) + 1000;
	l = open_good();
	e = map(l, 3 * MIB, MIB);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.len, 1000);
	ck_assert_int_eq(map(l, 3 * MIB + 1000, 5).kind, EXTENT_DAMAGED);
	layer_unref(l);
	/* A run does not go on into a block that begins behind the end. */
	file_bytes = BLOCK_AT(1);
	l = open_good();
	ck_assert_uint_eq(map(l, 0, DISK_BYTES).len, MIB);
	ck_assert_int_eq(map(l, MIB, 1).kind, EXTENT_DAMAGED);
	layer_unref(l);
}
END_TEST

#define LINKAGE "{73696874-6420-7461-6127-732067756964}"

START_TEST(the_first_sector_is_the_least_significant_bit)
{
	struct layer *l;
	struct extent e;

	build();
	make_child(LINKAGE);
	put_bat(1, BLOCK_AT(1), 7);
	file[BITMAP_AT + 256] = 0x0d; /* of block 1: sectors 0, 2 and 3 */
	l = open_good();
	e = map(l, MIB, MIB);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(1));
	ck_assert_uint_eq(e.len, 512);
	e = map(l, MIB + 512 + 12, MIB);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, 500);
	e = map(l, MIB + 1024, MIB);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.len, 1024);
	e = map(l, MIB + 2048, 3 * MIB);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, MIB - 2048);
	layer_unref(l);
	put_bat(CHUNK, BITMAP_AT, 0);
	l = open_good();
	ck_assert_int_eq(map(l, MIB, 1).kind, EXTENT_DAMAGED);
	unit_says(&err, "no sector bitmap");
	layer_unref(l);
	put_bat(CHUNK, FILE_BYTES, 6);
	l = open_good();
	ck_assert_int_eq(map(l, MIB, 1).kind, EXTENT_DAMAGED);
	layer_unref(l);
	/* A bitmap that the end cuts is the whole block's damage. */
	put_bat(CHUNK, BITMAP_AT, 6);
	file_bytes = BITMAP_AT + 511;
	l = open_good();
	ck_assert_int_eq(map(l, MIB, 1).kind, EXTENT_DAMAGED);
	unit_says(&err, "sector bitmap at");
	layer_unref(l);
}
END_TEST

/* Keys and values of the locator, and the name that comes out. */
static const struct {
	const char *key[2], *value[2], *name;
} locators[] = {
	{ { "relative_path" }, { ".\\a\\b.vhdx" }, "./a/b.vhdx" },
	{ { "absolute_win32_path" }, { "C:\\b.vhdx" }, "C:\\b.vhdx" },
	{ { "volume_path" }, { "\\\\?\\V\\b" }, "\\\\?\\V\\b" },
	{ { "absolute_win32_path", "relative_path" }, { "C:\\b", "c" }, "c" },
	{ { "unknown" }, { "x" }, NULL },
};

START_TEST(the_locator_names_the_parent)
{
	struct layer *l;
	unsigned int i;

	build();
	make_child(LINKAGE);
	for (i = 0; i < 2 && locators[_i].key[i]; i++)
		put_pair(i + 1, locators[_i].key[i], locators[_i].value[i]);
	l = open_good();
	ck_assert(l->parent.wanted && l->parent.stale_ok);
	ck_assert_str_eq(l->parent.format, "vhdx");
	if (locators[_i].name)
		ck_assert_str_eq(l->parent.name, locators[_i].name);
	else
		ck_assert_ptr_null(l->parent.name);
	layer_unref(l);
}
END_TEST

static const struct {
	size_t at;
	uint64_t value;
	size_t bytes;
	int code;
	const char *says;
} bad_locators[] = {
	{ LOCATOR_AT, 0, 4, -ENOTSUP, "unknown type" },
	{ LOCATOR_AT + 18, 0, 2, -EBADMSG, "no parent_linkage" },
	{ LOCATOR_AT + 20, 4096, 4, -EBADMSG, "no parent_linkage" },
	{ LOCATOR_AT + 24, UINT32_MAX, 4, -EBADMSG, "no parent_linkage" },
	{ LOCATOR_AT + 28, 3585, 2, -EBADMSG, "no parent_linkage" },
	{ LOCATOR_AT + 768, 'x', 1, -EBADMSG, "is not a GUID" },
	{ LOCATOR_AT + 30, 74, 2, -EBADMSG, "is not a GUID" },
	{ ITEM(3) + 20, 19, 4, -EBADMSG, "no parent locator" },
	{ ITEM(3) + 20, (256 << 10) + 1, 4, -EFBIG, "over the limit" },
};

START_TEST(a_locator_without_the_mark_of_a_parent_is_refused)
{
	struct layer *l;

	build();
	make_child(LINKAGE);
	put32(ITEMS_AT + 4, 0);
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	ck_assert_uint_eq(err.off, ITEMS_AT);
	unit_says(&err, "not marked as having a parent");
}
END_TEST

START_TEST(open_refuses_hostile_locator)
{
	struct layer *l;
	uint64_t v = htole64(bad_locators[_i].value);

	build();
	make_child(LINKAGE);
	memcpy(file + bad_locators[_i].at, &v, bad_locators[_i].bytes);
	ck_assert_int_eq(open_file(&l), bad_locators[_i].code);
	unit_says(&err, bad_locators[_i].says);
}
END_TEST

static const struct {
	const char *linkage, *linkage2;
	bool good;
} linkages[] = {
	{ LINKAGE, NULL, true },
	{ "73696874-6420-7461-6127-732067756964", NULL, true },
	{ "{73696874-6420-7461-6127-732067756965}", NULL, false },
	{ "{73696874-6420-7461-6127-732067756965}", LINKAGE, true },
};

START_TEST(the_parent_has_the_guid_of_its_last_write)
{
	struct layer *parent, *child;

	build();
	parent = open_good();
	make_child(linkages[_i].linkage);
	if (linkages[_i].linkage2)
		put_pair(1, "parent_linkage2", linkages[_i].linkage2);
	child = open_good();
	ck_assert_int_eq(vhdx_format.check_parent(child, parent, &err),
			 linkages[_i].good ? 0 : -EBADMSG);
	ck_assert_int_eq(vhdx_format.is_parent(child, parent->src),
			 linkages[_i].good);
	layer_unref(child);
	layer_unref(parent);
}
END_TEST

/* The log's entries: one 4 KiB sector of updates, then data sectors. */
struct entry {
	uint32_t at; /* in the log */
	uint64_t sequence;
	uint32_t tail;
	uint64_t off; /* an update of the file */
	uint64_t zeroes; /* so many; 0: a sector with @byte all over */
	uint8_t byte;
};

static void put_entry(const struct entry *e)
{
	static uint8_t buf[8192];
	uint32_t len = e->zeroes ? 4096 : 8192, i;
	size_t at = LOG_AT; /* a straight copy first */
	uint8_t keep[8192];

	memcpy(keep, file + at, len);
	memset(file + at, 0, len);
	memcpy(file + at, "loge", 4);
	put32(at + 8, len);
	put32(at + 12, e->tail);
	put64(at + 16, e->sequence);
	put32(at + 24, 1);
	memcpy(file + at + 32, "this log's guid.", 16);
	memcpy(file + at + 64, e->zeroes ? "zero" : "desc", 4);
	memset(file + at + 68, e->zeroes ? 0 : e->byte, 12);
	if (e->zeroes)
		put64(at + 72, e->zeroes);
	put64(at + 80, e->off);
	put64(at + 88, e->sequence);
	if (!e->zeroes) {
		memset(file + at + 4096, e->byte, 4096);
		memcpy(file + at + 4096, "data", 4);
		put32(at + 4096 + 4, (uint32_t)(e->sequence >> 32));
		put32(at + 8188, (uint32_t)e->sequence);
	}
	seal(at, len);
	memcpy(buf, file + at, len);
	memcpy(file + at, keep, len);
	for (i = 0; i < len; i += 4096)
		memcpy(file + LOG_AT + (e->at + i) % MIB, buf + i, 4096);
}

static void make_dirty(void)
{
	memcpy(file + HEAD(48), "this log's guid.", 16);
	seal_all();
}

/* The byte that the disk has at @off. */
static uint8_t byte_at(struct layer *l, uint64_t off)
{
	struct extent e = map(l, off, 1);
	uint8_t b = 0;

	if (e.kind == EXTENT_DATA)
		must(source_read(e.src, &b, 1, e.host_off, &err), err);
	else
		ck_assert_int_eq(e.kind, EXTENT_ZERO);
	return b;
}

START_TEST(the_log_is_replayed_into_memory)
{
	struct layer *l;
	struct extent e;

	build();
	put_entry(&(struct entry){ 0, 7, 0, BLOCK_AT(0) + 8192, 0, 0xaa });
	put_entry(&(struct entry){ 8192, 8, 0, BLOCK_AT(0) + 12288, 8192 });
	put_entry(&(struct entry){ 12288, 9, 0, BLOCK_AT(0) + 16384, 0, 0xbb });
	make_dirty();
	l = open_good();
	e = map(l, 0, DISK_BYTES);
	ck_assert_ptr_eq(e.src, l->src); /* what the ring can read */
	ck_assert_uint_eq(e.len, 8192);
	e = map(l, 8192, DISK_BYTES - 8192);
	ck_assert_ptr_ne(e.src, l->src);
	ck_assert_uint_eq(e.len, 4096);
	ck_assert_uint_eq(byte_at(l, 8192), 0xaa);
	ck_assert_uint_eq(byte_at(l, 8192 + 8), 0xaa);
	ck_assert_uint_eq(byte_at(l, 12287), 0xaa);
	e = map(l, 12288, DISK_BYTES - 12288);
	ck_assert_int_eq(e.kind, EXTENT_ZERO);
	ck_assert_uint_eq(e.len, 4096);
	ck_assert_uint_eq(byte_at(l, 16384), 0xbb);
	e = map(l, 20480, DISK_BYTES - 20480);
	ck_assert_ptr_eq(e.src, l->src);
	ck_assert_uint_eq(e.len, 2 * MIB - 20480);
	layer_unref(l);
	/* The same file, its log said to be empty, is read as it lies. */
	memset(file + HEAD(48), 0, 16);
	seal_all();
	l = open_good();
	ck_assert_uint_eq(map(l, 0, DISK_BYTES).len, 2 * MIB);
	layer_unref(l);
}
END_TEST

START_TEST(metadata_are_read_through_the_log)
{
	struct layer *l;

	build();
	/* All of the BAT's first sector: entries of state 2, zeroes. */
	put_entry(&(struct entry){ MIB - 4096, 7, MIB - 4096, BAT_AT, 0, 2 });
	make_dirty();
	l = open_good();
	ck_assert_int_eq(map(l, 0, DISK_BYTES).kind, EXTENT_ZERO);
	ck_assert_uint_eq(map(l, 0, DISK_BYTES).len, DISK_BYTES);
	layer_unref(l);
}
END_TEST

START_TEST(what_does_not_belong_to_the_active_sequence_is_passed_by)
{
	struct layer *l;

	build();
	/* Older, then the active one, then one with a gap, then a torn one. */
	put_entry(&(struct entry){ 65536, 3, 65536, BLOCK_AT(0), 0, 0x11 });
	put_entry(&(struct entry){ 0, 7, 0, BLOCK_AT(0), 0, 0x77 });
	put_entry(&(struct entry){ 8192, 8, 8192, BLOCK_AT(1), 0, 0x88 });
	put_entry(&(struct entry){ 16384, 10, 0, BLOCK_AT(1), 0, 0x99 });
	put_entry(&(struct entry){ 131072, 50, 131072, BLOCK_AT(0), 0, 0xee });
	file[LOG_AT + 131072 + 5000] ^= 1;
	make_dirty();
	l = open_good();
	/* Replay begins at the last entry's tail: number 7 was written. */
	ck_assert_uint_ne(byte_at(l, 0) ^ byte_at(l, 1), 0);
	ck_assert_uint_eq(byte_at(l, MIB), 0x88);
	layer_unref(l);
}
END_TEST

/* What spoils an only entry. All but the first are sealed again. */
static const struct {
	size_t at, bytes;
	uint64_t value;
	const char *says;
} spoilt[] = {
	{ 4000, 1, 1, "no sound entries" },
	{ 0, 1, 'x', "no sound entries" },
	{ 8, 4, 0, "no sound entries" },
	{ 8, 4, MIB, "no sound entries" },
	{ 8, 4, 8193, "no sound entries" },
	{ 12, 4, 4096, "no sound entries" },
	{ 12, 4, 1, "no sound entries" },
	{ 12, 4, MIB, "no sound entries" },
	{ 16, 8, 0, "no sound entries" },
	{ 24, 4, 255, "no sound entries" },
	{ 24, 4, UINT32_MAX, "no sound entries" },
	{ 32, 1, 'x', "no sound entries" },
	{ 64, 1, 'x', "no sound entries" },
	{ 88, 8, 8, "no sound entries" },
	{ 4096, 1, 'x', "no sound entries" },
	{ 4100, 4, 1, "no sound entries" },
	{ 8188, 4, 8, "no sound entries" },
	{ 48, 8, FILE_BYTES + 1, "the file was cut" },
	{ 56, 8, (1ULL << 62) + 1, "limit" },
	{ 80, 8, 512, "whole sectors" },
	{ 80, 8, 1ULL << 63, "whole sectors" },
};

START_TEST(a_log_that_cannot_be_replayed_is_refused)
{
	struct layer *l;
	uint64_t v = htole64(spoilt[_i].value);

	build();
	put_entry(&(struct entry){ 0, 7, 0, BLOCK_AT(0), 0, 0xaa });
	memcpy(file + LOG_AT + spoilt[_i].at, &v, spoilt[_i].bytes);
	if (_i)
		seal(LOG_AT, 8192);
	make_dirty();
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, spoilt[_i].says);
}
END_TEST

static const struct {
	size_t at, bytes;
	uint64_t value;
	int code;
	const char *says;
} bad_logs[] = {
	{ HEAD(64), 2, 1, -ENOTSUP, "log version 1" },
	{ HEAD(68), 4, 0, -EBADMSG, "whole MiB" },
	{ HEAD(68), 4, MIB + 4096, -EBADMSG, "whole MiB" },
	{ HEAD(68), 4, 8 * MIB, -EBADMSG, "inside the file" },
	{ HEAD(72), 8, 0, -EBADMSG, "whole MiB" },
	{ HEAD(72), 8, MIB + 4096, -EBADMSG, "whole MiB" },
	{ HEAD(72), 8, UINT64_MAX - MIB + 1, -EBADMSG, "inside the file" },
};

START_TEST(a_log_in_a_wrong_place_is_refused)
{
	struct layer *l;
	uint64_t v = htole64(bad_logs[_i].value);

	build();
	put_entry(&(struct entry){ 0, 7, 0, BLOCK_AT(0), 0, 0xaa });
	memcpy(file + bad_logs[_i].at, &v, bad_logs[_i].bytes);
	make_dirty();
	ck_assert_int_eq(open_file(&l), bad_logs[_i].code);
	unit_says(&err, bad_logs[_i].says);
}
END_TEST

START_TEST(a_log_full_of_overlapping_claims_is_refused_in_time)
{
	struct layer *l;
	uint32_t at;

	build();
	for (at = 0; at < MIB; at += 4096) {
		put_entry(&(struct entry){ at, 7, at, 0, 4096 });
		put32(LOG_AT + at + 8, MIB - 4096);
	}
	make_dirty();
	ck_assert_int_eq(open_file(&l), -EFBIG);
	unit_says(&err, "reasonable time");
}
END_TEST

START_TEST(replay_makes_the_file_longer)
{
	struct layer *l;
	struct extent e;

	build();
	put_bat(2, FILE_BYTES, 6);
	put_entry(&(struct entry){ 0, 7, 0, FILE_BYTES + 4096, 0, 0xaa });
	put64(LOG_AT + 56, FILE_BYTES + MIB);
	seal(LOG_AT, 8192);
	make_dirty();
	l = open_good();
	e = map(l, 2 * MIB, MIB);
	ck_assert_int_eq(e.kind, EXTENT_ZERO);
	ck_assert_uint_eq(e.len, 4096);
	ck_assert_uint_eq(byte_at(l, 2 * MIB + 4096), 0xaa);
	ck_assert_int_eq(map(l, 2 * MIB + 8192, 5).kind, EXTENT_ZERO);
	layer_unref(l);
}
END_TEST

static unsigned int lines;

static void count(struct check_report *r, const char *line)
{
	lines++;
}

static uint64_t corruptions(void)
{
	struct check_report r = { .say = count };
	struct layer *l = open_good();

	lines = 0;
	must(vhdx_format.check(l, &r, &err), err);
	ck_assert_uint_eq(lines, r.corruptions);
	ck_assert_uint_eq(r.leaks, 0);
	layer_unref(l);
	return r.corruptions;
}

START_TEST(check_finds_what_is_wrong_and_what_overlaps)
{
	build();
	ck_assert_uint_eq(corruptions(), 0);
	put_bat(2, BLOCK_AT(0), 6);
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(2, META_AT, 6);
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(2, LOG_AT, 6);
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(2, 0, 4);
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(2, 1ULL << 40, 6);
	ck_assert_uint_eq(corruptions(), 1);
	build();
	file_bytes = BLOCK_AT(2) + 5;
	ck_assert_uint_eq(corruptions(), 1);
	build();
	file[(192 << 10) + 500] ^= 1;
	ck_assert_uint_eq(corruptions(), 1);
	build();
	file[(64 << 10) + 500] ^= 1;
	ck_assert_uint_eq(corruptions(), 1);
	build();
	file[(256 << 10) + 500] ^= 1; /* the other is not like it */
	seal(256 << 10, 65536);
	ck_assert_uint_eq(corruptions(), 1);
	build();
	put_bat(4, BLOCK_AT(1), 2); /* zeroes with a place */
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(4, 8, 6); /* reserved bits, and over the headers */
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(0, BLOCK_AT(0) | 8, 6);
	ck_assert_uint_eq(corruptions(), 2);
	build();
	put_bat(DISK_BYTES / MIB, BLOCK_AT(2) + MIB, 6);
	ck_assert_uint_eq(corruptions(), 1); /* behind the disk's end */
	build();
	make_child(LINKAGE);
	put_bat(1, BLOCK_AT(1), 7);
	ck_assert_uint_eq(corruptions(), 0);
	put_bat(CHUNK, BLOCK_AT(1), 6);
	ck_assert_uint_eq(corruptions(), 1);
	put_bat(CHUNK, BITMAP_AT, 1);
	ck_assert_uint_eq(corruptions(), 2);
	put_bat(CHUNK, FILE_BYTES, 6); /* and so block 1 has none */
	ck_assert_uint_eq(corruptions(), 2);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, the_checksum_is_crc32c);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, an_entry_for_a_known_region_or_item_comes_once);
	tcase_add_test(tc, one_sound_header_is_enough_and_the_newer_counts);
	tcase_add_test(tc, one_sound_region_table_is_enough);
	LOOP(tc, a_block_where_none_may_be_is_damage, over);
	tcase_add_test(tc, blocks_side_by_side_are_one_extent);
	LOOP(tc, each_state_has_its_answer, states);
	LOOP(tc, a_block_outside_the_file_is_damaged_and_the_rest_reads,
	     bad_places);
	tcase_add_test(tc, a_block_that_the_end_cuts_is_damage_behind_it);
	tcase_add_test(tc, the_first_sector_is_the_least_significant_bit);
	LOOP(tc, the_locator_names_the_parent, locators);
	tcase_add_test(tc, a_locator_without_the_mark_of_a_parent_is_refused);
	LOOP(tc, open_refuses_hostile_locator, bad_locators);
	LOOP(tc, the_parent_has_the_guid_of_its_last_write, linkages);
	tcase_add_test(tc, the_log_is_replayed_into_memory);
	tcase_add_test(tc, metadata_are_read_through_the_log);
	tcase_add_test(
		tc, what_does_not_belong_to_the_active_sequence_is_passed_by);
	LOOP(tc, a_log_that_cannot_be_replayed_is_refused, spoilt);
	LOOP(tc, a_log_in_a_wrong_place_is_refused, bad_logs);
	tcase_add_test(tc, a_log_full_of_overlapping_claims_is_refused_in_time);
	tcase_add_test(tc, replay_makes_the_file_longer);
	tcase_add_test(tc, check_finds_what_is_wrong_and_what_overlaps);
}

int main(void)
{
	return unit_main("vhdx", add);
}
