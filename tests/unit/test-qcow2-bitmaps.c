/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2's bitmaps: what they say, bit by bit, and what is wrong with them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/qcow2.h"
#include "iouring/source.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

/* 512-byte clusters; a bit is for 512 bytes: a cluster of bits is 2 MiB. */
#define CLUSTER	   512U
#define DISK_BYTES ((5U << 20) + 1000U)
#define ENTRIES	   3U
#define EXT_AT	   104U

static struct qb q;
static uint64_t directory, table, bits;
static struct error err;

static void put8(size_t at, uint8_t v)
{
	q.buf[at] = v;
}

static void put16(size_t at, uint16_t v)
{
	put8(at, (uint8_t)(v >> 8));
	put8(at + 1, (uint8_t)v);
}

static void entry(unsigned int i, uint64_t v)
{
	qb_put64(&q, table + i * 8, v);
}

static void build(void)
{
	static const uint8_t none[CLUSTER];

	qb_init(&q, DISK_BYTES, 9, NULL, NULL);
	directory = qb_data(&q, 0, none);
	table = qb_data(&q, 1, none);
	bits = qb_data(&q, 2, none);
	qb_put64(&q, QCOW2_AUTOCLEAR_AT, QCOW2_AUTOCLEAR_BITMAPS);
	qb_put32(&q, EXT_AT, QCOW2_EXT_BITMAPS);
	qb_put32(&q, EXT_AT + 4, 24);
	qb_put32(&q, EXT_AT + 8, 1);
	qb_put64(&q, EXT_AT + 16, 32);
	qb_put64(&q, EXT_AT + 24, directory);
	qb_put64(&q, directory + QCOW2_BITMAP_TABLE_OFF_AT, table);
	qb_put32(&q, directory + QCOW2_BITMAP_TABLE_ENTRIES_AT, ENTRIES);
	put8(directory + QCOW2_BITMAP_TYPE_AT, QCOW2_BITMAP_DIRTY);
	put8(directory + QCOW2_BITMAP_GRANULARITY_BITS_AT, 9);
	put16(directory + QCOW2_BITMAP_NAME_BYTES_AT, 2);
	memcpy(q.buf + directory + QCOW2_BITMAP_ENTRY_BYTES, "it", 2);
	entry(0, bits);
	entry(1, QCOW2_BITMAP_ALL_SET);
}

static struct layer *open_it(bool shared)
{
	struct open_options options = { .share = shared };
	struct source *src = NULL;
	struct layer *l = NULL;

	err = (struct error){ 0 };
	must(memory_source_new(q.buf, q.len, &src, &err), err);
	must(layer_open(src, "IMAGE", NULL, "qcow2", true, &options, &l, &err),
	     err);
	return l;
}

static int keep(void *opaque, const struct bitmap *b)
{
	struct bitmap *ret = opaque;

	ck_assert_str_eq(b->name, "it");
	*ret = *b;
	return 1;
}

/* Is it offered? Else 0, or what is wrong. */
static int look(struct layer *l, struct bitmap *ret)
{
	return layer_bitmaps(l, keep, ret, &err);
}

/* Walks all of it, and compares with what bit by bit is said. */
static void must_be(struct layer *l, const struct bitmap *b,
		    bool (*want)(uint64_t bit))
{
	uint64_t off = 0, len = 0, at;
	bool set;

	while (off < DISK_BYTES) {
		must(layer_map_bitmap(l, b, off, DISK_BYTES - off, &set, &len,
				      &err),
		     err);
		ck_assert_uint_gt(len, 0);
		ck_assert_uint_le(len, DISK_BYTES - off);
		for (at = off; at < off + len; at += 512)
			ck_assert_msg(set == want(at / 512), "bit %u",
				      (unsigned int)(at / 512));
		off += len;
	}
}

static bool some(uint64_t bit)
{
	return (bit >= 3 && bit < 700) || bit == 1000 || bit == 4095 ||
	       (bit >= 4096 && bit < 8192);
}

START_TEST(each_bit_is_told)
{
	struct bitmap b;
	struct layer *l;
	uint64_t len;
	unsigned int i;
	bool set;

	build();
	for (i = 0; i < 4096; i++)
		if (some(i))
			q.buf[bits + i / 8] |= (uint8_t)(1 << i % 8);
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), 1);
	must_be(l, &b, some);
	/* From the middle of one, and no more than is asked for. */
	must(layer_map_bitmap(l, &b, 1700, 100, &set, &len, &err), err);
	ck_assert(set);
	ck_assert_uint_eq(len, 100);
	must(layer_map_bitmap(l, &b, 1700, 1 << 20, &set, &len, &err), err);
	ck_assert_uint_eq(len, 700 * 512 - 1700);
	layer_unref(l);
	qb_done(&q);
}
END_TEST

static bool all(uint64_t bit)
{
	return bit < 8192;
}

START_TEST(bits_behind_the_end_of_the_disk_do_not_matter)
{
	struct bitmap b;
	struct layer *l;

	build();
	memset(q.buf + bits, 0xff, CLUSTER);
	entry(2, bits); /* of which 1 MiB and a bit is the disk's */
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), 1);
	layer_unref(l);
	entry(2, 0);
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), 1);
	must_be(l, &b, all);
	layer_unref(l);
	qb_done(&q);
}
END_TEST

static void at_directory(size_t at, unsigned int width, uint64_t v)
{
	if (width == 1)
		put8(directory + at, (uint8_t)v);
	else if (width == 2)
		put16(directory + at, (uint16_t)v);
	else if (width == 4)
		qb_put32(&q, directory + at, (uint32_t)v);
	else
		qb_put64(&q, directory + at, v);
}

/* Of the directory, but for the first three: of the header's extension. */
static const struct {
	size_t at;
	unsigned int width;
	uint64_t value;
	bool in_header;
	int code; /* 0: it is not offered, and nothing is wrong with others */
	const char *says;
} hostile[] = {
	{ EXT_AT + 8, 4, 65536, true, -EFBIG, "65536 bitmaps are over" },
	{ EXT_AT + 24, 8, 8, true, -EBADMSG, "bitmap directory at 8" },
	{ EXT_AT + 24, 8, 1ULL << 62, true, -EBADMSG, "bitmap directory" },
	{ EXT_AT + 16, 8, 1ULL << 40, true, -EFBIG, "bitmap directory" },
	{ EXT_AT + 16, 8, 23, true, -EBADMSG, "inside an entry" },
	{ EXT_AT + 8, 4, 2, true, 1, NULL }, /* it is found before the end */
	{ QCOW2_BITMAP_NAME_BYTES_AT, 2, 65535, false, -EBADMSG,
	  "ends behind the directory's 32" },
	{ QCOW2_BITMAP_EXTRA_BYTES_AT, 4, UINT32_MAX, false, -EBADMSG,
	  "ends behind the directory's 32" },
	{ QCOW2_BITMAP_NAME_BYTES_AT, 2, 0, false, -EBADMSG, "0 bytes" },
	{ QCOW2_BITMAP_FLAGS_AT, 4, QCOW2_BITMAP_IN_USE, false, 0, NULL },
	{ QCOW2_BITMAP_FLAGS_AT, 4, 8, false, 0, NULL },
	{ QCOW2_BITMAP_FLAGS_AT, 4, 2, false, 1, NULL }, /* auto */
	{ QCOW2_BITMAP_TYPE_AT, 1, 2, false, 0, NULL },
	{ QCOW2_BITMAP_EXTRA_BYTES_AT, 4, 6, false, 0, NULL },
	{ QCOW2_BITMAP_GRANULARITY_BITS_AT, 1, 8, false, 0, NULL },
	{ QCOW2_BITMAP_GRANULARITY_BITS_AT, 1, 32, false, 0, NULL },
	{ QCOW2_BITMAP_GRANULARITY_BITS_AT, 1, 255, false, 0, NULL },
	{ QCOW2_BITMAP_TABLE_ENTRIES_AT, 4, ENTRIES - 1, false, 0, NULL },
	{ QCOW2_BITMAP_TABLE_ENTRIES_AT, 4, ENTRIES + 1, false, 0, NULL },
	{ QCOW2_BITMAP_TABLE_OFF_AT, 8, 8, false, 0, NULL },
	{ QCOW2_BITMAP_TABLE_OFF_AT, 8, 1ULL << 55, false, 0, NULL },
	{ QCOW2_BITMAP_ENTRY_BYTES, 1, 0, false, 0,
	  NULL }, /* NUL in its name */
};

START_TEST(what_may_be_wrong_is_not_offered)
{
	struct bitmap b;
	struct layer *l;

	build();
	if (hostile[_i].in_header && hostile[_i].width == 4)
		qb_put32(&q, hostile[_i].at, (uint32_t)hostile[_i].value);
	else if (hostile[_i].in_header)
		qb_put64(&q, hostile[_i].at, hostile[_i].value);
	else
		at_directory(hostile[_i].at, hostile[_i].width,
			     hostile[_i].value);
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), hostile[_i].code);
	if (hostile[_i].says)
		unit_says(&err, hostile[_i].says);
	layer_unref(l);
	qb_done(&q);
}
END_TEST

START_TEST(who_may_be_written_or_is_another_state_offers_none)
{
	struct bitmap b;
	struct layer *l;

	build();
	l = open_it(true);
	ck_assert_int_eq(look(l, &b), 0);
	layer_unref(l);
	qb_put64(&q, QCOW2_AUTOCLEAR_AT, 0);
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), 0);
	layer_unref(l);
	qb_done(&q);
}
END_TEST

static const uint64_t wrong_entries[] = {
	2, /* reserved */
	1ULL << 56,
	512 + 1, /* an offset, and that all is set */
	1ULL << 50, /* behind the end */
	0x00fffffffffffe00,
};

START_TEST(a_wrong_table_entry_is_an_error_there_alone)
{
	struct bitmap b;
	struct layer *l;
	uint64_t len;
	bool set;

	build();
	entry(0, wrong_entries[_i]);
	l = open_it(false);
	ck_assert_int_eq(look(l, &b), 1);
	ck_assert_int_lt(layer_map_bitmap(l, &b, 0, 512, &set, &len, &err), 0);
	unit_says(&err, "IMAGE: ");
	error_clear(&err);
	must(layer_map_bitmap(l, &b, 2 << 20, DISK_BYTES - (2 << 20), &set,
			      &len, &err),
	     err);
	ck_assert(set);
	ck_assert_uint_eq(len, 2 << 20);
	layer_unref(l);
	qb_done(&q);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, each_bit_is_told);
	tcase_add_test(tc, bits_behind_the_end_of_the_disk_do_not_matter);
	LOOP(tc, what_may_be_wrong_is_not_offered, hostile);
	tcase_add_test(tc, who_may_be_written_or_is_another_state_offers_none);
	LOOP(tc, a_wrong_table_entry_is_an_error_there_alone, wrong_entries);
}

int main(void)
{
	return unit_main("qcow2-bitmaps", add);
}
