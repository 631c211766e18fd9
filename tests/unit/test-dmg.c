/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/dmg.c, with a resource fork: its property list is dmg-plist.c's. */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

enum {
	FORK = 4096, /* header, then resources behind each other */
	LIST = FORK + 16 + 4,
	CHUNKS = LIST + 204,
	CHUNK = 40,
	N_CHUNKS = 6,
	LIST_BYTES = 204 + N_CHUNKS * CHUNK,
	FORK_BYTES = 16 + 4 + LIST_BYTES,
	TRAILER = 8192,
	FILE_BYTES = TRAILER + 512,
	T_VERSION = TRAILER + 4,
	T_DATA_OFF = TRAILER + 24,
	T_RSRC = TRAILER + 40,
	T_RSRC_BYTES = TRAILER + 48,
	T_SEGMENTS = TRAILER + 60,
	T_XML = TRAILER + 216,
	T_XML_BYTES = TRAILER + 224,
	T_SECTORS = TRAILER + 492,
};

#define ZLIB 0x80000005U

static void put_chunk(unsigned int i, uint32_t type, uint64_t sector,
		      uint64_t sectors, uint64_t off, uint64_t bytes)
{
	size_t at = CHUNKS + i * CHUNK;

	disk_be(at, 4, type);
	disk_be(at + 8, 8, sector);
	disk_be(at + 16, 8, sectors);
	disk_be(at + 24, 8, off);
	disk_be(at + 32, 8, bytes);
}

static void setup(void)
{
	disk_new(FILE_BYTES);
	memcpy(disk_file + TRAILER, "koly", 4);
	disk_be(T_VERSION, 4, 4);
	disk_be(TRAILER + 8, 4, 512);
	disk_be(TRAILER + 32, 8, FORK);
	disk_be(T_RSRC, 8, FORK);
	disk_be(T_RSRC_BYTES, 8, FORK_BYTES);
	disk_be(T_SECTORS, 8, 100);
	disk_be(FORK, 4, 16);
	disk_be(FORK + 8, 4, FORK_BYTES - 16);
	disk_be(LIST - 4, 4, LIST_BYTES);
	memcpy(disk_file + LIST, "mish", 4);
	disk_be(LIST + 8, 8, 2); /* sectors of the disk before it */
	disk_be(LIST + 16, 8, 98);
	disk_be(LIST + 24, 8, 256); /* bytes of the data before it */
	disk_be(LIST + 200, 4, N_CHUNKS);
	put_chunk(0, ZLIB, 18, 10, 1100, 300);
	put_chunk(1, 1, 8, 2, 0, 1024);
	put_chunk(2, 0, 28, 70, 0, 0);
	put_chunk(3, 0x7ffffffe, 0, 1, 0, 0);
	put_chunk(4, 2, 10, 8, 0, 0);
	put_chunk(5, 0xffffffff, 98, 1, 0, 0);
}

static const struct disk_row hostile[] = {
	{ TRAILER, 1, 'K', -EBADMSG, 0, "no trailer" },
	{ T_VERSION, 4, 5, -EBADMSG, 0, "no trailer" },
	{ TRAILER + 8, 4, 511, -EBADMSG, 0, "no trailer" },
	{ 0, 8, 0x656e637263647361, -ENOTSUP, 0, "encrypted" },
	{ FILE_BYTES - 8, 8, 0x63647361656e6372, -ENOTSUP, 0, "encrypted" },
	{ T_SEGMENTS, 4, 2, -ENOTSUP, T_SEGMENTS, "of 2 of a split" },
	{ T_SECTORS, 8, 1ULL << 54, -EFBIG, T_SECTORS, "virtual size" },
	{ T_DATA_OFF, 8, TRAILER, -EBADMSG, T_DATA_OFF, "data fork at" },
	{ T_RSRC_BYTES, 8, 0, -EBADMSG, T_XML_BYTES, "neither" },
	{ T_XML_BYTES, 8, 10000001, -EFBIG, T_XML_BYTES, "over the limit" },
	{ T_XML_BYTES, 8, TRAILER + 1, -EBADMSG, T_XML, "before the trailer" },
	{ T_RSRC_BYTES, 8, (16 << 20) + 1, -EFBIG, T_RSRC_BYTES, "limit" },
	{ T_RSRC_BYTES, 8, TRAILER - FORK + 1, -EBADMSG, T_RSRC, "before" },
	{ T_RSRC_BYTES, 8, 15, -EBADMSG, FORK, "of 15" },
	{ FORK + 8, 4, FORK_BYTES - 15, -EBADMSG, FORK, "inside their fork" },
	{ LIST - 4, 4, LIST_BYTES + 1, -EBADMSG, LIST - 4, "ends past" },
	{ LIST - 4, 4, 203, -EBADMSG, 0, "cut off" },
	{ LIST + 200, 4, N_CHUNKS + 1, -EBADMSG, 0, "its 7 chunks" },
	{ LIST + 8, 8, UINT64_MAX - 5, -EFBIG, 0, "over the limit" },
	{ CHUNKS, 4, 0x80000007, -ENOTSUP, 0, "LZFSE" },
	{ CHUNKS, 4, 0x80000009, -ENOTSUP, 0, "type 0x80000009" },
	{ CHUNKS, 4, 3, -ENOTSUP, 0, "type 0x00000003" },
	{ CHUNKS + 8, 8, 1ULL << 54, -EFBIG, 0, "over the limit" },
	{ CHUNKS + 2 * CHUNK + 16, 8, (1ULL << 54) - 30, -EFBIG, 0, "limit" },
	{ CHUNKS + 16, 8, (64 << 11) + 1, -EFBIG, 0, "compressed chunk" },
	{ CHUNKS + 16, 8, 11, -EBADMSG, 0, "overlaps" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("dmg", &hostile[_i], false);
}
END_TEST

START_TEST(a_file_shorter_than_its_trailer_is_refused)
{
	static const struct disk_row cut = { .code = -EBADMSG,
					     .says = "no trailer" };

	disk_bytes = 511;
	disk_refuses("dmg", &cut, false);
}
END_TEST

START_TEST(chunks_are_found_in_any_order)
{
	struct layer *l = disk_must_open("dmg");
	struct extent e;

	ck_assert_uint_eq(l->bytes, 51200);
	disk_maps(l, 10 * 512 + 7, EXTENT_DATA, 1024 - 7, 256 + 7);
	disk_maps(l, 12 * 512, EXTENT_ZERO, 8 * 512, 0);
	e = disk_map(l, 20 * 512 + 9, 51200 - 20 * 512 - 9);
	ck_assert_uint_eq(e.kind, EXTENT_COMPRESSED);
	ck_assert_uint_eq(e.codec, CODEC_ZLIB);
	ck_assert_uint_eq(e.host_off, 1356);
	ck_assert_uint_eq(e.comp_bytes, 300);
	ck_assert_uint_eq(e.unit_bytes, 5120);
	ck_assert_uint_eq(e.unit_off, 9);
	ck_assert_uint_eq(e.len, 5120 - 9);
	disk_maps(l, 30 * 512, EXTENT_ZERO, 70 * 512, 0);
	ck_assert_str_eq(disk_info(l, "compression"), "zlib");
	ck_assert_str_eq(disk_info(l, "chunks"), "4");
	layer_unref(l);
}
END_TEST

START_TEST(each_compression_has_its_decoder)
{
	static const struct {
		uint32_t type;
		enum codec codec;
	} kinds[] = { { 0x80000004, CODEC_ADC },
		      { 0x80000005, CODEC_ZLIB },
		      { 0x80000006, CODEC_BZIP2 },
		      { 0x80000008, CODEC_XZ } };
	struct layer *l;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		disk_be(CHUNKS, 4, kinds[i].type);
		l = disk_must_open("dmg");
		ck_assert_uint_eq(disk_map(l, 20 * 512, 1).codec,
				  kinds[i].codec);
		layer_unref(l);
	}
}
END_TEST

START_TEST(sectors_of_no_chunk_are_damage)
{
	struct layer *l;

	put_chunk(2, 0, 38, 60, 0, 0);
	l = disk_must_open("dmg");
	disk_maps(l, 0, EXTENT_DAMAGED, 10 * 512, 0);
	disk_maps(l, 30 * 512, EXTENT_DAMAGED, 10 * 512, 0);
	disk_is_damaged(l, 39 * 512, "in no chunk");
	disk_checks(l, 2, 0);
	layer_unref(l);
}
END_TEST

static const uint64_t trailers[] = { 0, 50, 99 };

START_TEST(a_trailer_that_knows_of_fewer_sectors_loses_none)
{
	struct layer *l;

	struct disk_row row = { T_SECTORS, 8,	      trailers[_i],
				-EBADMSG,  T_SECTORS, "their chunks 100" };

	/* A gap, at the disk's beginning: the chunks are not sound either. */
	disk_refuses("dmg", &row, false);
	put_chunk(4, 2, 0, 8, 0, 0);
	put_chunk(3, 2, 10, 8, 0, 0);
	disk_be(LIST + 8, 8, 0); /* all are two sectors before */
	put_chunk(0, ZLIB, 18, 10, 1100, 300);
	disk_be(T_SECTORS, 8, min_u64(trailers[_i], 97));
	l = disk_must_open("dmg");
	ck_assert_uint_eq(l->bytes, 98 * 512);
	disk_checks(l, 1, 0);
	layer_unref(l);
}
END_TEST

static const struct {
	uint64_t trailer, head;
} sizes[] = { { 101, 98 }, { 101, 99 }, { 99, 97 }, { 99, UINT64_MAX } };

START_TEST(sizes_of_which_no_two_agree_are_refused)
{
	struct disk_row row = { T_SECTORS, 8,	      sizes[_i].trailer,
				-EBADMSG,  T_SECTORS, "their chunks 100" };

	disk_be(LIST + 16, 8, sizes[_i].head);
	disk_refuses("dmg", &row, false);
}
END_TEST

START_TEST(chunks_that_share_bytes_are_found)
{
	struct layer *l;

	put_chunk(1, 1, 8, 2, 100, 1024);
	l = disk_must_open("dmg");
	disk_maps(l, 10 * 512, EXTENT_DATA, 1024, 256 + 100);
	disk_checks(l, 2, 0);
	layer_unref(l);
}
END_TEST

START_TEST(zeroes_that_take_room_are_damage)
{
	struct layer *l;

	put_chunk(2, 0, 28, 70, 0, 512);
	l = disk_must_open("dmg");
	disk_is_damaged(l, 99 * 512, "does not lie inside");
	disk_checks(l, 2, 0);
	layer_unref(l);
}
END_TEST

static const struct {
	unsigned int chunk;
	uint64_t off, bytes;
} wrong[] = {
	{ 0, FILE_BYTES - 256 - 299, 300 }, /* runs past the end */
	{ 0, UINT64_MAX - 1, 300 }, /* wraps */
	{ 0, FORK - 256 - 299, 300 }, /* runs into the tables */
	{ 0, 0, 0 }, /* is nothing */
	{ 0, 0, 2 * 5120 + 1 }, /* is more than it can be */
	{ 1, FILE_BYTES, 1024 },
	{ 1, 0, 1023 }, /* raw, and not of its size */
};

START_TEST(chunks_that_are_not_in_the_file_are_damage)
{
	size_t at = CHUNKS + wrong[_i].chunk * CHUNK;
	struct layer *l;

	disk_be(at + 24, 8, wrong[_i].off);
	disk_be(at + 32, 8, wrong[_i].bytes);
	l = disk_must_open("dmg");
	disk_maps(l, wrong[_i].chunk ? 10 * 512 : 20 * 512, EXTENT_DAMAGED,
		  wrong[_i].chunk ? 1024 : 5120, 0);
	disk_maps(l, 12 * 512, EXTENT_ZERO, 8 * 512, 0);
	disk_checks(l, 2, 0); /* and the ten sectors before all chunks */
	layer_unref(l);
}
END_TEST

START_TEST(padding_may_follow_the_trailer)
{
	struct layer *l;

	memmove(disk_file + TRAILER - 511, disk_file + TRAILER, 512);
	memset(disk_file + TRAILER + 1, 0, 511);
	l = disk_must_open("dmg");
	disk_maps(l, 12 * 512, EXTENT_ZERO, 8 * 512, 0);
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, a_file_shorter_than_its_trailer_is_refused);
	tcase_add_test(tc, chunks_are_found_in_any_order);
	tcase_add_test(tc, each_compression_has_its_decoder);
	tcase_add_test(tc, sectors_of_no_chunk_are_damage);
	LOOP(tc, a_trailer_that_knows_of_fewer_sectors_loses_none, trailers);
	LOOP(tc, sizes_of_which_no_two_agree_are_refused, sizes);
	tcase_add_test(tc, chunks_that_share_bytes_are_found);
	tcase_add_test(tc, zeroes_that_take_room_are_damage);
	LOOP(tc, chunks_that_are_not_in_the_file_are_damage, wrong);
	tcase_add_test(tc, padding_may_follow_the_trailer);
}

int main(void)
{
	return unit_main("dmg", add);
}
