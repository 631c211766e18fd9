/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/drivers/vmdk-check.c: a sound file, and what is said when one number of it
 * is wrong.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/vmdk-inside.h"
#include "tests/lib/unit.h"

/*
 * In sectors: header, descriptor, redundant directory and its two tables of 4
 * entries, the first ones, four grains of 4 sectors.
 */
enum {
	TEXT = 1,
	RGD = 2,
	RGT = 3,
	GD = 5,
	GT = 6,
	GRAINS = 8,
	GRAIN = 4,
	FILE_SECTORS = GRAINS + 4 * GRAIN,
};

#define SECTOR 512U

#define HEAD                                                            \
	"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n" \
	"createType=\"monolithicSparse\"\nddb.adapterType=\"ide\"\n"

static struct error err;
static uint8_t file[(FILE_SECTORS + 2 * GRAIN) * SECTOR];
static size_t file_bytes;
static char said[4096];

static void put(size_t at, unsigned int width, uint64_t value)
{
	unsigned int i;

	for (i = 0; i < width; i++)
		file[at + i] = (uint8_t)(value >> 8 * i);
}

static void build(void)
{
	static const char text[] = HEAD "RW 32 SPARSE \"x\"\n";
	unsigned int i;

	err = (struct error){ 0 };
	said[0] = 0;
	memset(file, 0, sizeof(file));
	file_bytes = FILE_SECTORS * SECTOR;
	memcpy(file, "KDMV", 4);
	memcpy(file + SECTOR, text, sizeof(text));
	put(4, 4, 1);
	put(8, 4, 2);
	put(12, 8, 8 * GRAIN);
	put(20, 8, GRAIN);
	put(28, 8, TEXT);
	put(36, 8, 1);
	put(44, 4, 4);
	put(48, 8, RGD);
	put(56, 8, GD);
	put(64, 8, GRAINS);
	for (i = 0; i < 2; i++) {
		put(RGD * SECTOR + 4 * i, 4, RGT + i);
		put(GD * SECTOR + 4 * i, 4, GT + i);
	}
	for (i = 0; i < 4; i++) {
		size_t at = (i / 2) * SECTOR + i % 2 * 4;

		put(GT * SECTOR + at, 4, GRAINS + i * GRAIN);
		put(RGT * SECTOR + at, 4, GRAINS + i * GRAIN);
	}
}

static void say(struct check_report *r, const char *line)
{
	strncat(said, line, sizeof(said) - strlen(said) - 2);
	strcat(said, "\n");
}

static struct check_report check(void)
{
	static const struct open_options options;
	CLEANUP(layer_unrefp) struct layer *l = NULL;
	struct check_report r = { .say = say };
	struct source *s = NULL;

	must(memory_source_new(file, file_bytes, &s, &err), err);
	must(layer_open(s, "NAME", NULL, "vmdk", true, &options, &l, &err),
	     err);
	must(l->ops->check(l, &r, &err), err);
	return r;
}

START_TEST(a_sound_file_is_found_sound)
{
	struct check_report r;

	build();
	r = check();
	ck_assert_str_eq(said, "");
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.leaks, 0);
	ck_assert_uint_eq(r.total_units, 8);
	ck_assert_uint_eq(r.allocated_units, 4);
	ck_assert_uint_eq(r.fragmented_units, 0);
	ck_assert_uint_eq(r.image_end_off, FILE_SECTORS * SECTOR);
}
END_TEST

static const struct {
	size_t at;
	uint32_t value;
	unsigned int corruptions, leaks;
	const char *says;
} damage[] = {
	{ GD * SECTOR, 1000, 1, 0, "grain directory entry 0: grain table" },
	{ RGD * SECTOR, 1000, 1, 0, "redundant grain directory entry 0" },
	{ RGD * SECTOR, 0, 1, 0, "the redundant one differs" },
	{ GD * SECTOR, 0, 1, 0, "the redundant one differs" },
	{ GD * SECTOR + 4, GT, 1, 2, "are both at" },
	{ RGD * SECTOR + 4, RGT, 2, 0, "table 1: the redundant one differs" },
	{ RGT * SECTOR, 16, 1, 0, "table 0: the redundant one differs" },
	{ GT * SECTOR, 1000, 2, 1, "grain 0: grain at" },
	{ GT * SECTOR, GRAINS + GRAIN, 2, 1, "grain at" },
	{ GT * SECTOR, GRAINS + 1, 2, 0, "overlaps grain" },
	{ GT * SECTOR, 0, 1, 1, "nothing uses 2048 bytes" },
	{ GT * SECTOR, GT, 2, 1, "lies over the metadata" },
	{ 64, 0, 0, 0, "" }, /* then none is known to be before them */
	{ 56, 1U << 20, 1, 0, "grain directory at" },
};

START_TEST(a_wrong_number_is_found)
{
	struct check_report r;

	build();
	put(damage[_i].at, 4, damage[_i].value);
	r = check();
	ck_assert_msg(strstr(said, damage[_i].says) != NULL,
		      "\"%s\" is not in: %s", damage[_i].says, said);
	ck_assert_msg(r.corruptions == damage[_i].corruptions &&
			      r.leaks == damage[_i].leaks,
		      "%u corruptions, %u leaks: %s",
		      (unsigned int)r.corruptions, (unsigned int)r.leaks, said);
}
END_TEST

START_TEST(room_behind_the_last_grain_is_a_leak)
{
	struct check_report r;

	build();
	file_bytes = (FILE_SECTORS + 2 * GRAIN) * SECTOR;
	r = check();
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.leaks, 2);
}
END_TEST

START_TEST(a_flat_file_that_is_cut_off_is_found)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	static const struct open_options options;
	static const char text[] = HEAD "RW 3 FLAT \"flat.raw\" 0\n";
	struct check_report r = { .say = say };
	struct source *s = NULL;

	build();
	unit_write(unit_path("flat.raw"), file, 3 * SECTOR - (_i ? 1 : 0));
	must(folder_open(unit_path("."), &folder, &err), err);
	must(memory_source_new(text, sizeof(text) - 1, &s, &err), err);
	must(layer_open(s, "NAME", folder_place(folder), "vmdk", true, &options,
			&l, &err),
	     err);
	must(l->ops->check(l, &r, &err), err);
	ck_assert_uint_eq(r.corruptions, _i);
}
END_TEST

START_TEST(a_descriptor_without_a_data_base_is_found)
{
	char *at;

	build();
	at = strstr((char *)file + SECTOR, "ddb.");
	ck_assert_ptr_nonnull(at);
	*at = '#';
	ck_assert_uint_eq(check().corruptions, 1);
	ck_assert_ptr_nonnull(strstr(said, "its end may be lost"));
}
END_TEST

static const struct {
	const char *lines;
	unsigned int leaks;
} rests[] = {
	{ "RW 3 FLAT \"flat.raw\" 0\n", 0 },
	{ "RW 2 FLAT \"flat.raw\" 0\n", 1 },
	{ "RW 1 FLAT \"flat.raw\" 0\nRW 5 ZERO\nRW 1 FLAT \"flat.raw\" 1\n",
	  0 },
};

START_TEST(what_no_extent_has_of_a_flat_file_is_found)
{
	CLEANUP(layer_unrefp) struct layer *l = NULL;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	static const struct open_options options;
	struct check_report r = { .say = say };
	struct source *s = NULL;
	char text[512];

	build();
	unit_write(unit_path("flat.raw"), file, 3 * SECTOR + 511);
	must(folder_open(unit_path("."), &folder, &err), err);
	snprintf(text, sizeof(text), "%s%s", HEAD, rests[_i].lines);
	must(memory_source_new(text, strlen(text), &s, &err), err);
	must(layer_open(s, "NAME", folder_place(folder), "vmdk", true, &options,
			&l, &err),
	     err);
	must(l->ops->check(l, &r, &err), err);
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.leaks, rests[_i].leaks);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, a_sound_file_is_found_sound);
	LOOP(tc, a_wrong_number_is_found, damage);
	tcase_add_test(tc, room_behind_the_last_grain_is_a_leak);
	tcase_add_loop_test(tc, a_flat_file_that_is_cut_off_is_found, 0, 2);
	LOOP(tc, what_no_extent_has_of_a_flat_file_is_found, rests);
	tcase_add_test(tc, a_descriptor_without_a_data_base_is_found);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("vmdk-check", add_tests);
}
