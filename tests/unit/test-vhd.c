/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "formats/layer.h"
#include "tests/lib/unit.h"

/*
 * A disk of 5 blocks of 4 KiB and 3 sectors: copy of the footer, dynamic
 * header, BAT, blocks 0, 1 and 3, footer.
 */
#define BLOCK	    4096U
#define DISK_BYTES  (5 * BLOCK + 3 * 512)
#define HEADER_AT   512U
#define BAT_AT	    1536U
#define BLOCK_AT(i) (2048U + (i) * (512 + BLOCK))
#define FOOTER_AT   BLOCK_AT(3)
#define FILE_BYTES  (FOOTER_AT + 512)

extern const struct format_ops vhd_format;

static struct error err;
static uint8_t file[FILE_BYTES];
static size_t file_bytes;

static void put32(size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(file + at, &v, 4);
}

static void put64(size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(file + at, &v, 8);
}

static void seal(size_t at, size_t len, size_t field_at)
{
	uint32_t sum = 0;
	size_t i;

	put32(at + field_at, 0);
	for (i = 0; i < len; i++)
		sum += file[at + i];
	put32(at + field_at, ~sum);
}

/* Footer and header as they are now get their checksums and the copy. */
static void seal_all(void)
{
	seal(FOOTER_AT, 512, 64);
	memcpy(file, file + FOOTER_AT, 512);
	seal(HEADER_AT, 1024, 36);
}

static void build(uint32_t type)
{
	size_t f = FOOTER_AT, i;

	memset(file, 0, sizeof(file));
	for (i = 0; i < 3; i++) {
		unit_fill(file + BLOCK_AT(i) + 512, BLOCK, (unsigned int)i);
		file[BLOCK_AT(i)] = 0xff;
	}
	memcpy(file + f, "conectix", 8);
	put32(f + 12, 0x10000);
	put64(f + 16, type == 2 ? UINT64_MAX : HEADER_AT);
	put32(f + 24, 1000);
	memcpy(file + f + 28, "win ", 4);
	put64(f + 48, DISK_BYTES);
	put32(f + 60, type);
	memcpy(file + f + 68, "this disk's id..", 16);
	memcpy(file + HEADER_AT, "cxsparse", 8);
	put64(HEADER_AT + 16, BAT_AT);
	put32(HEADER_AT + 24, 0x10000);
	put32(HEADER_AT + 28, 6);
	put32(HEADER_AT + 32, BLOCK);
	if (type == 4)
		memcpy(file + HEADER_AT + 40, "the parent's id.", 16);
	memset(file + BAT_AT, 0xff, 512);
	put32(BAT_AT, BLOCK_AT(0) / 512);
	put32(BAT_AT + 4, BLOCK_AT(1) / 512);
	put32(BAT_AT + 12, BLOCK_AT(2) / 512);
	file_bytes = FILE_BYTES;
	seal_all();
}

static int open_file(struct layer **ret)
{
	static const struct open_options options;
	struct source *src = NULL;

	*ret = NULL;
	err = (struct error){ 0 };
	must(memory_source_new(file, file_bytes, &src, &err), err);
	return layer_open(src, "IMAGE", NULL, "vhd", true, &options, ret, &err);
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

#define F(at) (FOOTER_AT + (at))
#define H(at) (HEADER_AT + (at))

/* A field, what is put there, and how that is refused, where. */
static const struct {
	size_t at, bytes;
	uint64_t value;
	int code;
	uint64_t off;
	const char *says;
} hostile[] = {
	{ F(12), 4, 0x20000, -ENOTSUP, F(12), "version 2.0" },
	{ F(60), 4, 0, -ENOTSUP, F(60), "disk type 0" },
	{ F(60), 4, 1, -ENOTSUP, F(60), "disk type 1" },
	{ F(60), 4, 5, -ENOTSUP, F(60), "disk type 5" },
	{ F(60), 4, 2, -EBADMSG, 0, NULL }, /* fixed, too short for it */
	{ F(48), 8, (2040ULL << 30) + 512, -EFBIG, F(48), "limit" },
	{ F(48), 8, UINT64_MAX, -EFBIG, F(48), "limit" },
	{ F(48), 8, 6 * BLOCK + 1, -EBADMSG, H(28), "needs 7" },
	{ F(16), 8, FILE_BYTES - 1023, -EBADMSG, F(16), "past the file" },
	{ F(16), 8, UINT64_MAX, -EBADMSG, F(16), "past the file" },
	{ F(16), 8, BAT_AT, -EBADMSG, BAT_AT, "no dynamic header" },
	{ H(24), 4, 0x20000, -ENOTSUP, H(24), "version 2.0" },
	{ H(32), 4, 0, -EBADMSG, H(32), "block size 0" },
	{ H(32), 4, 256, -EBADMSG, H(32), "block size 256" },
	{ H(32), 4, 4096 + 512, -EBADMSG, H(32), "block size 4608" },
	{ H(28), 4, 5, -EBADMSG, H(28), "needs 6" },
	{ H(16), 8, FILE_BYTES - 23, -EBADMSG, H(16), "past the file" },
	{ H(16), 8, UINT64_MAX - 3, -EBADMSG, H(16), "past the file" },
};

START_TEST(open_refuses_hostile_field)
{
	struct layer *l;

	build(3);
	if (hostile[_i].value == 2 && hostile[_i].at == F(60))
		put64(F(48), FOOTER_AT + 1);
	if (hostile[_i].bytes == 8)
		put64(hostile[_i].at, hostile[_i].value);
	else
		put32(hostile[_i].at, (uint32_t)hostile[_i].value);
	seal_all();
	ck_assert_int_eq(open_file(&l), hostile[_i].code);
	if (!hostile[_i].says)
		return;
	ck_assert_uint_eq(err.off, hostile[_i].off);
	unit_says(&err, hostile[_i].says);
}
END_TEST

START_TEST(a_file_without_a_sound_footer_is_refused)
{
	struct layer *l;

	build(3);
	file[F(200)] ^= 1;
	file[200] ^= 1;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "checksum of the footer");
	build(3);
	file[H(200)] ^= 1;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "checksum of the dynamic header");
	/* The copy at the start of a fixed disk is none. */
	build(2);
	file_bytes -= 512;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	unit_says(&err, "without a footer at its end");
	build(3);
	memset(file, 0, 512);
	memset(file + FOOTER_AT, 0, 512);
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	file_bytes = 100;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
	file_bytes = 0;
	ck_assert_int_eq(open_file(&l), -EBADMSG);
}
END_TEST

START_TEST(the_copy_serves_where_the_end_is_lost_or_damaged)
{
	struct layer *l;
	struct extent e;

	build(3);
	file[F(0)] ^= 1;
	l = open_good();
	ck_assert_uint_eq(l->bytes, DISK_BYTES);
	layer_unref(l);
	build(3);
	file_bytes -= 512;
	l = open_good();
	e = map(l, 3 * BLOCK, BLOCK);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.len, BLOCK);
	layer_unref(l);
}
END_TEST

START_TEST(an_old_footer_has_511_bytes)
{
	const struct format_ops *ops = NULL;
	struct source *src = NULL;
	struct layer *l;

	build(2);
	put64(F(48), FOOTER_AT);
	seal_all();
	memset(file, 7, 8); /* a fixed disk has no copy */
	file_bytes--;
	l = open_good();
	ck_assert_uint_eq(l->bytes, FOOTER_AT);
	ck_assert_uint_eq(map(l, 0, FOOTER_AT).len, FOOTER_AT);
	layer_unref(l);
	must(memory_source_new(file, file_bytes, &src, &err), err);
	must(format_probe(src, &ops, &err), err);
	ck_assert_ptr_eq(ops, &vhd_format);
	source_unref(src);
}
END_TEST

START_TEST(runs_of_one_answer_are_one_extent)
{
	struct layer *l;
	struct extent e;

	build(3);
	l = open_good();
	e = map(l, 0, DISK_BYTES);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(0) + 512);
	ck_assert_uint_eq(e.len, BLOCK); /* a bitmap comes next */
	e = map(l, BLOCK + 1000, 100);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(1) + 512 + 1000);
	ck_assert_uint_eq(e.len, 100);
	e = map(l, 2 * BLOCK + 5, DISK_BYTES - 2 * BLOCK - 5);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, BLOCK - 5);
	e = map(l, 4 * BLOCK, DISK_BYTES - 4 * BLOCK);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, BLOCK + 3 * 512);
	layer_unref(l);
}
END_TEST

START_TEST(the_first_sector_is_the_most_significant_bit)
{
	struct layer *l;
	struct extent e;

	build(3);
	file[BLOCK_AT(0)] = 0xb0; /* 1011 0000 */
	l = open_good();
	e = map(l, 100, BLOCK - 100);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.len, 412);
	e = map(l, 512, BLOCK - 512);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, 512);
	e = map(l, 1024, BLOCK - 1024);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.host_off, BLOCK_AT(0) + 512 + 1024);
	ck_assert_uint_eq(e.len, 1024);
	e = map(l, 2048, BLOCK);
	ck_assert_int_eq(e.kind, EXTENT_HOLE);
	ck_assert_uint_eq(e.len, 2048);
	layer_unref(l);
}
END_TEST

/* BAT entries of block 1 that are damage. */
static const uint32_t bad_entries[] = { 0, FOOTER_AT / 512, FILE_BYTES / 512,
					0xfffffffe };

START_TEST(a_block_outside_the_data_is_damaged_and_the_rest_reads)
{
	struct layer *l;
	struct extent e;

	build(3);
	put32(BAT_AT + 4, bad_entries[_i]);
	l = open_good();
	e = map(l, BLOCK + 512, BLOCK);
	ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
	ck_assert_uint_eq(e.len, BLOCK - 512);
	ck_assert_int_eq(map(l, 0, 1).kind, EXTENT_DATA);
	ck_assert_int_eq(map(l, 3 * BLOCK, 1).kind, EXTENT_DATA);
	layer_unref(l);
}
END_TEST

static const struct {
	uint32_t entry;
	const char *says;
} over[] = {
	{ 0, "over the copy of the footer" },
	{ HEADER_AT / 512, "over the dynamic header" },
	{ BAT_AT / 512, "over the BAT" },
};

START_TEST(a_block_over_another_part_is_damage)
{
	struct layer *l;

	build(3);
	put32(BAT_AT, over[_i].entry);
	l = open_good();
	ck_assert_int_eq(map(l, 0, BLOCK).kind, EXTENT_DAMAGED);
	unit_says(&err, over[_i].says);
	layer_unref(l);
}
END_TEST

START_TEST(a_block_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;
	struct extent e;

	build(3);
	file_bytes = BLOCK_AT(2) + 512 + 1000;
	l = open_good();
	e = map(l, 3 * BLOCK, BLOCK);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.len, 1000);
	e = map(l, 3 * BLOCK + 1000, BLOCK - 1000);
	ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
	ck_assert_uint_eq(e.len, BLOCK - 1000);
	layer_unref(l);
	file_bytes = BLOCK_AT(2) + 512; /* nothing is left but the bitmap */
	l = open_good();
	ck_assert_int_eq(map(l, 3 * BLOCK, 1).kind, EXTENT_DAMAGED);
	layer_unref(l);
	file[BLOCK_AT(2)] = 0x01; /* sectors that were not lost neither */
	l = open_good();
	ck_assert_int_eq(map(l, 3 * BLOCK, 1).kind, EXTENT_DAMAGED);
	layer_unref(l);
	/* A footer is not the block's data. */
	build(3);
	put32(BAT_AT + 12, (FOOTER_AT - 1024) / 512);
	memset(file + FOOTER_AT - 1024, 0xff, 512);
	l = open_good();
	ck_assert_uint_eq(map(l, 3 * BLOCK, BLOCK).len, 512);
	ck_assert_int_eq(map(l, 3 * BLOCK + 512, 1).kind, EXTENT_DAMAGED);
	layer_unref(l);
}
END_TEST

/* Who made it, its geometry, and whether that is its size. */
static const struct {
	const char *creator;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint64_t bytes;
} sizes[] = {
	{ "vpc ", 2, 3, 4, 24 * 512 },		{ "vpc ", 0, 0, 0, DISK_BYTES },
	{ "vpc ", 65535, 16, 255, DISK_BYTES }, { "vs  ", 2, 3, 4, DISK_BYTES },
	{ "qemu", 2, 3, 4, DISK_BYTES },	{ "xyz ", 2, 3, 4, DISK_BYTES },
};

START_TEST(who_made_it_tells_which_size_counts)
{
	struct layer *l;

	build(3);
	memcpy(file + F(28), sizes[_i].creator, 4);
	file[F(56)] = (uint8_t)(sizes[_i].cylinders >> 8);
	file[F(57)] = (uint8_t)sizes[_i].cylinders;
	file[F(58)] = sizes[_i].heads;
	file[F(59)] = sizes[_i].sectors;
	seal_all();
	l = open_good();
	ck_assert_uint_eq(l->bytes, sizes[_i].bytes);
	layer_unref(l);
}
END_TEST

/* A locator's code and data, and the name that comes out. */
static const struct {
	const char *code, *data;
	size_t bytes;
	const char *name;
} locators[] = {
	{ "W2ru", "a\0\\\0b\0.\0v\0h\0d\0", 14, "a/b.vhd" },
	{ "W2ku", "C\0:\0\\\0b\0", 8, "C:\\b" },
	{ "W2ru", "\x3d\xd8\xbe\xdc.\0v\0", 8, "\xf0\x9f\x92\xbe.v" },
	{ "W2ru", "\xbe\xdc.\0v\0", 6, NULL }, /* half a surrogate */
	{ "MacX", "file://localhost/a%20b.vhd", 26, "/a b.vhd" },
	{ "MacX", "file://./b%2fc%zz", 17, "./b/c%zz" },
	{ "MacX", "http://host/b.vhd", 17, NULL },
	{ "Wi2r", "b.vhd", 5, NULL },
};

START_TEST(a_locator_names_the_parent)
{
	struct layer *l;

	build(4);
	memcpy(file + BAT_AT + 100, locators[_i].data, locators[_i].bytes);
	memcpy(file + H(576), locators[_i].code, 4);
	put32(H(576 + 8), (uint32_t)locators[_i].bytes);
	put64(H(576 + 16), BAT_AT + 100);
	seal_all();
	l = open_good();
	ck_assert(l->parent.wanted);
	ck_assert(l->parent.stale_ok);
	if (locators[_i].name)
		ck_assert_str_eq(l->parent.name, locators[_i].name);
	else
		ck_assert_ptr_null(l->parent.name);
	layer_unref(l);
}
END_TEST

START_TEST(a_locator_outside_the_file_is_passed_by)
{
	struct layer *l;

	build(4);
	memcpy(file + H(576), "W2ru", 4);
	put32(H(576 + 8), 100);
	put64(H(576 + 16), UINT64_MAX - 10);
	memcpy(file + H(64), "\0b\0.\0v", 6);
	seal_all();
	l = open_good();
	ck_assert_str_eq(l->parent.name, "b.v");
	layer_unref(l);
}
END_TEST

START_TEST(a_parent_has_the_id_and_is_not_newer)
{
	struct layer *child, *parent;
	static uint8_t copy[FILE_BYTES];
	struct source *src = NULL;
	static const struct open_options options;

	build(3);
	memcpy(file + F(68), "the parent's id.", 16);
	seal_all();
	memcpy(copy, file, sizeof(copy));
	must(memory_source_new(copy, sizeof(copy), &src, &err), err);
	must(layer_open(source_ref(src), "P", NULL, "vhd", false, &options,
			&parent, &err),
	     err);
	build(4);
	child = open_good();
	must(vhd_format.check_parent(child, parent, &err), err);
	ck_assert(vhd_format.is_parent(child, src));
	ck_assert(!vhd_format.is_parent(child, child->src));
	layer_unref(child);

	put32(H(56), 1000);
	seal_all();
	child = open_good();
	must(vhd_format.check_parent(child, parent, &err), err);
	layer_unref(child);
	put32(H(56), 999);
	seal_all();
	child = open_good();
	ck_assert_int_eq(vhd_format.check_parent(child, parent, &err),
			 -EBADMSG);
	unit_says(&err, "time stamp");
	layer_unref(child);

	file[H(40)] ^= 1;
	seal_all();
	child = open_good();
	ck_assert_int_eq(vhd_format.check_parent(child, parent, &err),
			 -EBADMSG);
	unit_says(&err, "unique id");
	ck_assert(!vhd_format.is_parent(child, src));
	layer_unref(child);
	layer_unref(parent);
	source_unref(src);
}
END_TEST

static unsigned int lines;

static void count(struct check_report *r, const char *line)
{
	lines++;
}

static struct check_report check(void)
{
	struct check_report r = { .say = count };
	struct layer *l = open_good();

	lines = 0;
	must(vhd_format.check(l, &r, &err), err);
	layer_unref(l);
	return r;
}

START_TEST(check_finds_a_parent_of_a_disk_that_has_none)
{
	build(3);
	memcpy(file + HEADER_AT + 40, "the parent's id.", 16);
	seal_all();
	ck_assert_uint_eq(check().corruptions, 1);
}
END_TEST

START_TEST(check_finds_overlaps_and_leaks)
{
	struct check_report r;

	build(3);
	r = check();
	ck_assert_uint_eq(r.corruptions + r.leaks, 0);
	ck_assert_uint_eq(r.total_units, 6);
	ck_assert_uint_eq(r.allocated_units, 3);
	ck_assert_uint_eq(r.fragmented_units, 0);
	ck_assert_uint_eq(r.image_end_off, FOOTER_AT);
	put32(BAT_AT + 4, BLOCK_AT(0) / 512 + 1);
	r = check();
	ck_assert_uint_eq(r.corruptions, 1);
	put32(BAT_AT + 4, 0xffffffff);
	r = check();
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.leaks, 1);
	put32(BAT_AT + 4, 2); /* over header and BAT, and block 0 */
	r = check();
	ck_assert_uint_eq(r.corruptions, 2);
	ck_assert_uint_eq(lines, 2);
	build(3);
	put32(BAT_AT + 12, BLOCK_AT(2) / 512 + 1); /* into the footer */
	ck_assert_uint_eq(check().corruptions, 1);
	build(3);
	file[100] ^= 1;
	ck_assert_uint_eq(check().corruptions, 1);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, a_file_without_a_sound_footer_is_refused);
	tcase_add_test(tc, the_copy_serves_where_the_end_is_lost_or_damaged);
	tcase_add_test(tc, an_old_footer_has_511_bytes);
	tcase_add_test(tc, runs_of_one_answer_are_one_extent);
	tcase_add_test(tc, the_first_sector_is_the_most_significant_bit);
	LOOP(tc, a_block_outside_the_data_is_damaged_and_the_rest_reads,
	     bad_entries);
	LOOP(tc, a_block_over_another_part_is_damage, over);
	tcase_add_test(tc, a_block_that_the_end_cuts_is_damage_behind_it);
	LOOP(tc, who_made_it_tells_which_size_counts, sizes);
	LOOP(tc, a_locator_names_the_parent, locators);
	tcase_add_test(tc, a_locator_outside_the_file_is_passed_by);
	tcase_add_test(tc, a_parent_has_the_id_and_is_not_newer);
	tcase_add_test(tc, check_finds_a_parent_of_a_disk_that_has_none);
	tcase_add_test(tc, check_finds_overlaps_and_leaks);
}

int main(void)
{
	return unit_main("vhd", add);
}
