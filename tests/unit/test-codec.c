/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "formats/codec/codec.h"
#include "tests/lib/unit.h"

#define UNIT 65536U
#define ROOM (4 * UNIT)

static const enum codec codecs[] = { CODEC_DEFLATE, CODEC_ZLIB, CODEC_ZSTD,
				     CODEC_BZIP2, CODEC_XZ };

static uint8_t plain[2 * UNIT], packed[ROOM], out[2 * UNIT];
static struct error err;

/* Half noise, half a pattern. */
static void make_plain(void)
{
	size_t i;

	unit_fill(plain, sizeof(plain), 1);
	for (i = 0; i < sizeof(plain); i += 2)
		plain[i] = (uint8_t)(i >> 9);
}

/* @flush: the stream has no end mark. */
static size_t pack_zlib(bool raw, size_t len, int window, bool flush)
{
	z_stream z = { .next_in = plain,
		       .avail_in = (uInt)len,
		       .next_out = packed,
		       .avail_out = ROOM };

	ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, raw ? -window : window,
				      8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	deflate(&z, flush ? Z_SYNC_FLUSH : Z_FINISH);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_bzip2(size_t len)
{
	unsigned int n = ROOM;

	ck_assert_int_eq(BZ2_bzBuffToBuffCompress((char *)packed, &n,
						  (char *)plain,
						  (unsigned int)len, 1, 0, 0),
			 BZ_OK);
	return n;
}

static size_t pack_xz(size_t len, uint32_t dictionary)
{
	lzma_options_lzma options;
	lzma_filter filters[] = { { LZMA_FILTER_LZMA2, &options },
				  { LZMA_VLI_UNKNOWN, NULL } };
	size_t n = 0;

	lzma_lzma_preset(&options, 0);
	options.dict_size = dictionary;
	ck_assert_int_eq(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32,
						   NULL, plain, len, packed, &n,
						   ROOM),
			 LZMA_OK);
	return n;
}

static size_t pack(enum codec codec, size_t len)
{
	make_plain();
	if (codec == CODEC_ZSTD)
		return ZSTD_compress(packed, ROOM, plain, len, 3);
	if (codec == CODEC_BZIP2)
		return pack_bzip2(len);
	if (codec == CODEC_XZ)
		return pack_xz(len, 1 << 20);
	return pack_zlib(codec == CODEC_DEFLATE, len, 15, false);
}

static int decode(enum codec codec, size_t in_len)
{
	error_clear(&err);
	memset(out, 0xee, sizeof(out));
	return codec_decode(codec, packed, in_len, out, UNIT, true, &err);
}

static void is_whole(void)
{
	size_t i = UNIT;

	ck_assert_mem_eq(out, plain, UNIT);
	while (i < sizeof(out) && out[i] == 0xee)
		i++;
	ck_assert_uint_eq(i, sizeof(out));
}

START_TEST(a_unit_is_decoded_whole)
{
	size_t n = pack(codecs[_i], UNIT);

	must(decode(codecs[_i], n), err);
	is_whole();
}
END_TEST

START_TEST(what_lies_behind_the_stream_is_ignored)
{
	size_t n = pack(codecs[_i], UNIT), i;

	unit_fill(packed + n, ROOM - n, 5);
	for (i = 1; i < 600; i += 37) {
		must(decode(codecs[_i], n + i), err);
		is_whole();
	}
	/* Another stream's start behind it is no different. */
	memcpy(packed + n, packed, n);
	must(decode(codecs[_i], 2 * n), err);
	is_whole();
}
END_TEST

START_TEST(a_stream_longer_than_the_unit_is_cut)
{
	size_t n = pack(codecs[_i], UNIT + 1000);

	must(decode(codecs[_i], n), err);
	is_whole();
}
END_TEST

START_TEST(a_stream_shorter_than_the_unit_is_refused)
{
	size_t n = pack(codecs[_i], UNIT - 1);

	ck_assert_int_eq(decode(codecs[_i], n), -EIO);
	unit_says(&err, codec_name(codecs[_i]));
	unit_says(&err, "65536");
	ck_assert_uint_eq(out[UNIT], 0xee);
}
END_TEST

START_TEST(a_stream_that_is_cut_off_is_refused)
{
	size_t n = pack(codecs[_i], UNIT), i;

	for (i = 0; i + 200 < n; i += n / 40)
		ck_assert_int_eq(decode(codecs[_i], i), -EIO);
}
END_TEST

START_TEST(damage_never_writes_past_the_unit)
{
	size_t n = pack(codecs[_i], UNIT), i;
	uint8_t was;

	for (i = 0; i < n; i += n / 200 + 1) {
		was = packed[i];
		packed[i] = (uint8_t)(was ^ (1 << i % 8));
		decode(codecs[_i], n); /* whatever it says */
		ck_assert_uint_eq(out[UNIT], 0xee);
		packed[i] = was;
	}
	unit_fill(packed, n, 9);
	ck_assert_int_eq(decode(codecs[_i], n), -EIO);
	/* A failure leaves the thread's decoder as good as new. */
	n = pack(codecs[_i], UNIT);
	must(decode(codecs[_i], n), err);
	is_whole();
}
END_TEST

START_TEST(an_end_mark_that_was_lost_is_not_missed)
{
	size_t n;

	make_plain();
	n = pack_zlib(_i, UNIT, 15, true);
	must(decode(_i ? CODEC_DEFLATE : CODEC_ZLIB, n), err);
	is_whole();
}
END_TEST

START_TEST(deflate_windows_of_any_size_are_read)
{
	size_t n;

	make_plain();
	n = pack_zlib(true, UNIT, _i, false);
	must(decode(CODEC_DEFLATE, n), err);
	is_whole();
}
END_TEST

/* No content size in the frame, several blocks, maybe several frames. */
static size_t pack_zstd_stream(unsigned int frames, bool end)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_outBuffer dst = { packed, ROOM, 0 };
	size_t part = UNIT / frames, i;

	make_plain();
	for (i = 0; i < frames; i++) {
		ZSTD_inBuffer src = { plain + i * part, part, 0 };

		ck_assert_uint_eq(
			ZSTD_compressStream2(c, &dst, &src,
					     end ? ZSTD_e_end : ZSTD_e_flush),
			0);
	}
	ZSTD_freeCCtx(c);
	return dst.pos;
}

START_TEST(zstd_streams_without_a_size_are_read)
{
	size_t n = pack_zstd_stream(1U << _i, true);

	must(decode(CODEC_ZSTD, n), err);
	is_whole();
	unit_fill(packed + n, 300, 3);
	must(decode(CODEC_ZSTD, n + 300), err);
	is_whole();
}
END_TEST

START_TEST(a_zstd_frame_without_its_end_is_read)
{
	size_t n = pack_zstd_stream(1, false);

	must(decode(CODEC_ZSTD, n), err);
	is_whole();
}
END_TEST

/* A frame's head, then raw blocks that hold @plain: RFC 8878, 3.1.1. */
static size_t pack_zstd_by_hand(uint8_t window, bool end)
{
	static const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0 };
	size_t at = sizeof(head);

	make_plain();
	memcpy(packed, head, sizeof(head));
	packed[at++] = window;
	packed[at++] = (uint8_t)(0 | end);
	packed[at++] = (uint8_t)(UNIT >> 5 & 0xff);
	packed[at++] = (uint8_t)(UNIT >> 13);
	memcpy(packed + at, plain, UNIT);
	return at + UNIT;
}

/* Window descriptor: exponent << 3; 2^(10 + exponent) bytes. */
static const struct {
	uint8_t window;
	bool end;
	int code;
} windows[] = {
	{ 7 << 3, true, 0 },	  { 7 << 3, false, 0 },
	{ 16 << 3, false, 0 }, /* 64 MiB, our limit */
	{ 17 << 3, false, -EIO }, /* 128 MiB */
	{ 31 << 3, false, -EIO }, /* 2 TiB */
};

START_TEST(a_zstd_frame_may_not_ask_for_any_window)
{
	size_t n = pack_zstd_by_hand(windows[_i].window, windows[_i].end);

	ck_assert_int_eq(decode(CODEC_ZSTD, n), windows[_i].code);
	if (!windows[_i].code)
		is_whole();
}
END_TEST

static const struct {
	uint32_t bytes;
	int code;
} dictionaries[] = { { 64 << 20, 0 }, { 96 << 20, -EIO } };

START_TEST(an_xz_stream_may_not_ask_for_any_dictionary)
{
	make_plain();
	ck_assert_int_eq(
		decode(CODEC_XZ, pack_xz(UNIT, dictionaries[_i].bytes)),
		dictionaries[_i].code);
}
END_TEST

/* Each block has a dictionary of another size than the one before. */
static size_t pack_xz_blocks(void)
{
	lzma_options_lzma options;
	lzma_filter filters[] = { { LZMA_FILTER_LZMA2, &options },
				  { LZMA_VLI_UNKNOWN, NULL } };
	lzma_stream z = LZMA_STREAM_INIT;
	unsigned int i;

	lzma_lzma_preset(&options, 0);
	options.dict_size = 32 << 20;
	ck_assert_int_eq(lzma_stream_encoder(&z, filters, LZMA_CHECK_CRC32),
			 LZMA_OK);
	z.next_in = plain;
	z.next_out = packed;
	z.avail_out = ROOM;
	for (i = 0; i < 4; i++) {
		z.avail_in = UNIT / 4;
		ck_assert_int_eq(
			lzma_code(&z, i < 3 ? LZMA_FULL_FLUSH : LZMA_FINISH),
			LZMA_STREAM_END);
		options.dict_size = i % 2 ? 32 << 20 : 48 << 20;
		if (i < 3)
			ck_assert_int_eq(lzma_filters_update(&z, filters),
					 LZMA_OK);
	}
	lzma_end(&z);
	return (size_t)z.total_out;
}

START_TEST(an_xz_stream_may_have_blocks_of_many_dictionaries)
{
	unsigned int i;

	make_plain();
	for (i = 0; i < 3; i++) {
		must(decode(CODEC_XZ, pack_xz_blocks()), err);
		is_whole();
	}
}
END_TEST

START_TEST(the_beginning_of_a_unit_is_decoded_alone)
{
	static const size_t wanted[] = {
		1, 511, 4096, UNIT / 2, UNIT - 1, UNIT
	};
	size_t n = pack(codecs[_i], UNIT), i;

	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		memset(out, 0xee, sizeof(out));
		must(codec_decode(codecs[_i], packed, n, out, wanted[i], false,
				  &err),
		     err);
		ck_assert_mem_eq(out, plain, wanted[i]);
		ck_assert_uint_eq(out[wanted[i]], 0xee);
		must(decode(codecs[_i], n), err);
		is_whole();
	}
}
END_TEST

/* Of noise, which is stored: streams of both kinds of blocks are common. */
START_TEST(the_beginning_of_stored_blocks_is_decoded_alone)
{
	size_t n, wanted;

	unit_fill(plain, sizeof(plain), 3);
	n = pack_zlib(codecs[_i] == CODEC_DEFLATE, UNIT, 15, false);
	ck_assert_uint_gt(n, UNIT);
	for (wanted = 1; wanted < UNIT; wanted += 1023) {
		memset(out, 0xee, sizeof(out));
		must(codec_decode(codecs[_i], packed, n, out, wanted, false,
				  &err),
		     err);
		ck_assert_mem_eq(out, plain, wanted);
		ck_assert_uint_eq(out[wanted], 0xee);
	}
}
END_TEST

START_TEST(a_beginning_that_the_stream_does_not_reach_is_refused)
{
	size_t n = pack(codecs[_i], UNIT / 2);

	ck_assert_int_eq(codec_decode(codecs[_i], packed, n, out, UNIT / 2 + 1,
				      false, &err),
			 -EIO);
	ck_assert_int_eq(codec_decode(codecs[_i], packed, n / 2, out, UNIT / 2,
				      false, &err),
			 -EIO);
}
END_TEST

START_TEST(never_less_is_decoded_than_wanted)
{
	uint32_t bytes, n;

	for (bytes = 1; bytes <= UNIT; bytes += 1023) {
		n = codec_worthwhile(codecs[_i], bytes, UNIT);
		ck_assert_uint_ge(n, bytes);
		ck_assert_uint_le(n, UNIT);
	}
	ck_assert_uint_eq(codec_worthwhile(codecs[_i], UNIT, UNIT), UNIT);
}
END_TEST

static atomic_uint wrong;

static void decode_often(unsigned int number)
{
	uint8_t own[UNIT];
	unsigned int i;

	for (i = 0; i < 50; i++)
		if (codec_decode(CODEC_ZSTD, packed, ROOM / 2, own, UNIT, true,
				 NULL) ||
		    memcmp(own, plain, UNIT))
			atomic_fetch_add(&wrong, 1);
}

START_TEST(any_thread_decodes)
{
	pack(CODEC_ZSTD, UNIT);
	unit_threads(8, decode_often);
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_unit_is_decoded_whole, codecs);
	LOOP(tc, what_lies_behind_the_stream_is_ignored, codecs);
	LOOP(tc, a_stream_longer_than_the_unit_is_cut, codecs);
	LOOP(tc, a_stream_shorter_than_the_unit_is_refused, codecs);
	LOOP(tc, a_stream_that_is_cut_off_is_refused, codecs);
	LOOP(tc, damage_never_writes_past_the_unit, codecs);
	tcase_add_loop_test(tc, an_end_mark_that_was_lost_is_not_missed, 0, 2);
	tcase_add_loop_test(tc, deflate_windows_of_any_size_are_read, 9, 16);
	tcase_add_loop_test(tc, zstd_streams_without_a_size_are_read, 0, 3);
	tcase_add_test(tc, a_zstd_frame_without_its_end_is_read);
	LOOP(tc, a_zstd_frame_may_not_ask_for_any_window, windows);
	LOOP(tc, an_xz_stream_may_not_ask_for_any_dictionary, dictionaries);
	tcase_add_test(tc, an_xz_stream_may_have_blocks_of_many_dictionaries);
	LOOP(tc, the_beginning_of_a_unit_is_decoded_alone, codecs);
	tcase_add_loop_test(tc, the_beginning_of_stored_blocks_is_decoded_alone,
			    0, 2);
	LOOP(tc, a_beginning_that_the_stream_does_not_reach_is_refused, codecs);
	LOOP(tc, never_less_is_decoded_than_wanted, codecs);
	tcase_add_test(tc, any_thread_decodes);
}

int main(void)
{
	return unit_main("codec", add);
}
