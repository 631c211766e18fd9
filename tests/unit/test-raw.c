/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "formats/image.h"
#include "tests/lib/unit.h"

static struct error err;
static uint8_t data[100001], got[100001];

static const struct open_options options = { .format = "raw" };

static struct image *open_raw(size_t len)
{
	struct image *img = NULL;

	unit_fill(data, sizeof(data), 1);
	memcpy(data, "QFI\xfb", 4); /* raw all the same: it is declared */
	unit_write(unit_path("disk"), data, len);
	must(image_open(unit_path("disk"), &options, &img, &err), err);
	return img;
}

static const size_t sizes[] = { 0, 1, 511, 512, 513, 65536, sizeof(data) };

START_TEST(the_disk_is_the_file_to_the_byte)
{
	CLEANUP(image_unrefp) struct image *img = open_raw(sizes[_i]);

	ck_assert_uint_eq(img->bytes, sizes[_i]);
	ck_assert_str_eq(img->chain.layers[0]->ops->name, "raw");
	must(image_read(img, got, sizes[_i], 0, &err), err);
	ck_assert_int_eq(memcmp(got, data, sizes[_i]), 0);
	ck_assert_int_eq(image_read(img, got, 1, sizes[_i], NULL), -EINVAL);
	ck_assert_int_eq(image_read(img, got, sizes[_i] + 1, 0, NULL), -EINVAL);
	ck_assert_int_eq(image_read(img, got, 2, UINT64_MAX, NULL), -EINVAL);
}
END_TEST

struct told {
	uint64_t off, len;
	int kind;
} told[8];
static size_t n_told;

static int note(void *opaque, uint64_t off, const struct extent *e)
{
	ck_assert_uint_lt(n_told, ARRAY_SIZE(told));
	told[n_told++] = (struct told){ off, e->len, e->kind };
	return 0;
}

START_TEST(holes_of_the_file_are_told_as_zeroes)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	uint64_t end;
	int fd = open(unit_path("holes"), O_RDWR | O_CREAT, 0600);

	unit_fill(data, sizeof(data), 1);
	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	ck_assert_int_eq(pwrite(fd, data, 65536, 131072), 65536);
	fsync(fd);
	close(fd);
	must(image_open(unit_path("holes"), &options, &img, &err), err);
	must(image_walk(img, 0, 1 << 20, note, NULL, &end, &err), err);
	ck_assert_uint_eq(end, 1 << 20);
	ck_assert_uint_eq(n_told, 3);
	ck_assert(told[0].off == 0 && told[0].len == 131072 &&
		  told[0].kind == EXTENT_ZERO);
	ck_assert(told[1].off == 131072 && told[1].len == 65536 &&
		  told[1].kind == EXTENT_DATA);
	ck_assert(told[2].off == 196608 && told[2].len == (1 << 20) - 196608 &&
		  told[2].kind == EXTENT_ZERO);
	n_told = 0;
	must(image_walk(img, 131000, 200, note, NULL, &end, &err), err);
	ck_assert_uint_eq(n_told, 2);
	ck_assert_uint_eq(told[0].len, 72);
	ck_assert_uint_eq(told[1].len, 128);
	must(image_read(img, got, 100000, 131072 - 5000, &err), err);
	ck_assert_mem_eq(got + 5000, data, 65536);
	ck_assert_uint_eq(got[4999] | got[0] | got[5000 + 65536], 0);
}
END_TEST

START_TEST(what_was_cut_off_meanwhile_is_eio_and_the_rest_reads)
{
	CLEANUP(image_unrefp) struct image *img = open_raw(sizeof(data));

	ck_assert_int_eq(truncate(unit_path("disk"), 50000), 0);
	must(image_read(img, got, 50000, 0, &err), err);
	ck_assert_mem_eq(got, data, 50000);
	ck_assert_int_eq(image_read(img, got, 10, 49995, &err), -EIO);
	ck_assert_int_eq(image_read(img, got, 10, 90000, NULL), -EIO);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, the_disk_is_the_file_to_the_byte, sizes);
	tcase_add_test(tc, holes_of_the_file_are_told_as_zeroes);
	tcase_add_test(tc,
		       what_was_cut_off_meanwhile_is_eio_and_the_rest_reads);
}

int main(void)
{
	return unit_main("raw", add);
}
