/* SPDX-License-Identifier: BSD-3-Clause */
/* Layers as states; snapshots' are in tests/diff, with files of qemu's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/history.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define BITS	12U
#define CLUSTER (1U << BITS)

static struct error err;
static const struct open_options options;

/* An image of @clusters, whose cluster @idx is data of unit_fill(@idx). */
static void write_image(const char *name, unsigned int clusters,
			const char *backing, unsigned int idx)
{
	uint8_t data[CLUSTER];
	struct qb q;

	qb_init(&q, clusters * CLUSTER, BITS, backing,
		backing ? "qcow2" : NULL);
	unit_fill(data, sizeof(data), idx);
	qb_data(&q, idx, data);
	unit_write(unit_path("%s", name), q.buf, q.len);
	qb_done(&q);
}

static struct image *open_image(const char *name)
{
	struct image *img = NULL;

	must(image_open(unit_path("%s", name), &options, &img, &err), err);
	return img;
}

/* What history_each() tells, one state a line. */
static char listed[4096];

static int list(void *opaque, const struct history_state *s)
{
	size_t at = strlen(listed);

	snprintf(listed + at, sizeof(listed) - at, "%s %s %u %u\n", s->name,
		 s->format, (unsigned int)s->bytes / CLUSTER, s->depth);
	return 0;
}

static const char *list_of(struct image *img)
{
	listed[0] = '\0';
	must(history_each(&img->chain, list, NULL, &err), err);
	return listed;
}

static void reads_as(struct image *img, unsigned int idx, bool data)
{
	uint8_t got[CLUSTER], want[CLUSTER] = { 0 };

	if (data)
		unit_fill(want, sizeof(want), idx);
	must(image_read(img, got, CLUSTER, idx * CLUSTER, &err), err);
	ck_assert_mem_eq(got, want, CLUSTER);
}

START_TEST(each_layer_below_the_top_is_a_state_of_its_own_size)
{
	struct image *live, *mid = NULL, *base = NULL;

	write_image("base", 4, NULL, 1);
	write_image("mid", 6, "base", 2);
	write_image("top", 5, "mid", 3);
	live = open_image("top");
	ck_assert_str_eq(list_of(live), "mid qcow2 6 1\nbase qcow2 4 2\n");
	must(history_open(live, &options, "mid", &mid, &err), err);
	must(history_open(live, &options, "#2", &base, &err), err);
	ck_assert_uint_eq(mid->bytes, 6 * CLUSTER);
	ck_assert_uint_eq(base->bytes, 4 * CLUSTER);
	ck_assert_ptr_eq(base->chain.layers[0], live->chain.layers[2]);
	/* They hold what they share. */
	image_unref(live);
	reads_as(mid, 1, true);
	reads_as(mid, 2, true);
	reads_as(mid, 3, false);
	image_unref(mid);
	reads_as(base, 1, true);
	reads_as(base, 2, false);
	image_unref(base);
}
END_TEST

START_TEST(a_state_of_a_state_is_shared_on)
{
	struct image *live, *mid = NULL, *base = NULL;

	write_image("base", 4, NULL, 1);
	write_image("mid", 4, "base", 2);
	write_image("top", 4, "mid", 3);
	live = open_image("top");
	must(history_open(live, &options, "mid", &mid, &err), err);
	must(history_open(mid, &options, "base", &base, &err), err);
	image_unref(live);
	image_unref(mid);
	reads_as(base, 1, true);
	image_unref(base);
}
END_TEST

START_TEST(layers_of_one_name_are_called_by_number)
{
	struct image *live, *img = NULL;

	ck_assert_int_eq(mkdir(unit_path("d"), 0700), 0);
	ck_assert_int_eq(mkdir(unit_path("d/d"), 0700), 0);
	write_image("d/d/x", 4, NULL, 1);
	write_image("d/x", 4, "d/x", 2);
	write_image("d/y", 4, "x", 2);
	write_image("top", 4, "d/y", 3);
	live = open_image("top");
	ck_assert_str_eq(list_of(live),
			 "y qcow2 4 1\n#2 qcow2 4 2\n#3 qcow2 4 3\n");
	ck_assert_int_eq(history_open(live, &options, "x", &img, &err),
			 -ENOENT);
	unit_says(&err, "2 layers are called \"x\"");
	must(history_open(live, &options, "#3", &img, &err), err);
	reads_as(img, 1, true);
	reads_as(img, 2, false);
	image_unref(img);
	image_unref(live);
}
END_TEST

START_TEST(a_number_comes_before_a_file_of_that_name)
{
	struct image *live, *img = NULL;

	write_image("#1", 7, NULL, 1);
	write_image("two\n", 6, "#1", 2);
	write_image("top", 4, "two\n", 3);
	live = open_image("top");
	/* Neither can be called by its file's name. */
	ck_assert_str_eq(list_of(live), "#1 qcow2 6 1\n#2 qcow2 7 2\n");
	must(history_open(live, &options, "#1", &img, &err), err);
	ck_assert_uint_eq(img->bytes, 6 * CLUSTER);
	image_unref(img);
	image_unref(live);
}
END_TEST

static const char *const unknown[] = { "",   "top", "none",    "#0",   "#",
				       "#2", "#01", "../base", "base/" };

START_TEST(what_is_no_state_is_not_there)
{
	struct image *live, *img = NULL;

	write_image("base", 4, NULL, 1);
	write_image("top", 4, "base", 3);
	live = open_image("top");
	ck_assert_int_eq(history_open(live, &options, unknown[_i], &img, &err),
			 -ENOENT);
	unit_says(&err, "top: there is no snapshot or layer \"");
	ck_assert_ptr_null(img);
	image_unref(live);
}
END_TEST

static void add(TCase *tc)
{
	unit_need_openat2();
	tcase_add_test(tc, each_layer_below_the_top_is_a_state_of_its_own_size);
	tcase_add_test(tc, a_state_of_a_state_is_shared_on);
	tcase_add_test(tc, layers_of_one_name_are_called_by_number);
	tcase_add_test(tc, a_number_comes_before_a_file_of_that_name);
	LOOP(tc, what_is_no_state_is_not_there, unknown);
}

int main(void)
{
	return unit_main("history", add);
}
