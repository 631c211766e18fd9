/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/difference.h"
#include "formats/history.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define BITS	9U
#define CLUSTER (1U << BITS)
#define UNITS	600U /* more than are looked at together */

static struct error err;
static const struct open_options options;

static void save(const char *name, struct qb *q)
{
	unit_write(unit_path("%s", name), q->buf, q->len);
	qb_done(q);
}

static struct image *open_image(const char *name)
{
	struct image *img = NULL;

	must(image_open(unit_path("%s", name), &options, &img, &err), err);
	return img;
}

static struct image *open_state(struct image *live, const char *name)
{
	struct image *img = NULL;

	must(history_open(live, &options, name, &img, &err), err);
	return img;
}

/* Clusters of every kind, some as @seed has them and some that are there. */
static void mix(struct qb *q, unsigned int seed)
{
	uint8_t data[CLUSTER];
	uint32_t dice;
	unsigned int i;

	for (i = 0; i < q->size / CLUSTER; i++) {
		unit_fill(&dice, sizeof(dice), seed * 10007 + i);
		unit_fill(data, sizeof(data), dice % 5);
		memset(data + 8, (int)(dice >> 8) % 3, CLUSTER / 2);
		switch (dice % 11) {
		case 0:
			qb_entry(q, i, QB_ZERO);
			break;
		case 1:
			qb_compressed(q, i, data);
			break;
		case 2:
			memset(data, 0, sizeof(data)); /* yet data */
			/* fallthrough */
		case 3:
			qb_data(q, i, data);
			break;
		default:
			break;
		}
	}
}

static void write_mixed(const char *name, unsigned int clusters,
			const char *backing, unsigned int seed)
{
	struct qb q;

	qb_init(&q, clusters * CLUSTER, BITS, backing,
		backing ? "qcow2" : NULL);
	mix(&q, seed);
	save(name, &q);
}

/* What is told of each unit. */
static uint8_t told[UNITS + 64];
static unsigned int runs;

static int note(void *opaque, uint64_t off, uint64_t len, enum change change)
{
	uint64_t *next = opaque;
	unsigned int i;

	ck_assert_uint_eq(off, *next);
	ck_assert_uint_gt(len, 0);
	*next += len;
	for (i = 0; i < len / CLUSTER; i++)
		told[off / CLUSTER + i] = (uint8_t)change;
	runs++;
	return 0;
}

static void walk(struct image *from, struct image *to, bool compare)
{
	struct difference d = { .from = from, .to = to, .compare = compare };
	uint64_t off = 0, next = 0;

	runs = 0;
	memset(told, 0xff, sizeof(told));
	while (off < to->bytes)
		must(difference_walk(&d, off, to->bytes - off, note, &next,
				     &off, &err),
		     err);
	ck_assert_uint_eq(next, to->bytes);
}

static void read_unit(struct image *img, unsigned int i, uint8_t *ret)
{
	memset(ret, 0, CLUSTER);
	if ((uint64_t)i * CLUSTER < img->bytes)
		must(image_read(img, ret, CLUSTER, (uint64_t)i * CLUSTER, &err),
		     err);
}

/* What is told is true; with @exact, it is all there is to tell. */
static unsigned int is_true(struct image *from, struct image *to, bool exact)
{
	static const uint8_t zeroes[CLUSTER];
	uint8_t a[CLUSTER], b[CLUSTER];
	unsigned int i, changed = 0;

	for (i = 0; i < to->bytes / CLUSTER; i++) {
		read_unit(from, i, a);
		read_unit(to, i, b);
		if (told[i] == CHANGE_NONE || exact)
			ck_assert_int_eq(told[i] != CHANGE_NONE,
					 memcmp(a, b, CLUSTER) != 0);
		if (told[i] == CHANGE_ZERO)
			ck_assert_mem_eq(b, zeroes, CLUSTER);
		changed += told[i] != CHANGE_NONE;
	}
	return changed;
}

/* Clusters of base, mid and top; the two states, NULL: the live one. */
static const struct {
	unsigned int base, mid, top;
	const char *from, *to;
} pairs[] = {
	{ UNITS, UNITS, UNITS, "base", "mid" },
	{ UNITS, UNITS, UNITS, "base", NULL },
	{ UNITS, UNITS, UNITS, NULL, "base" },
	{ UNITS, UNITS, UNITS, "mid", "mid" },
	{ 100, 300, UNITS, "base", NULL },
	{ 100, 300, UNITS, NULL, "mid" },
	{ UNITS, 100, UNITS, "base", NULL },
	{ UNITS, 100, 300, NULL, "base" },
};

START_TEST(what_is_told_of_layers_is_true)
{
	struct image *live, *from, *to;
	unsigned int said, changed;

	write_mixed("base", pairs[_i].base, NULL, 1);
	write_mixed("mid", pairs[_i].mid, "base", 2);
	write_mixed("top", pairs[_i].top, "mid", 3);
	live = open_image("top");
	from = pairs[_i].from ? open_state(live, pairs[_i].from)
			      : image_ref(live);
	to = pairs[_i].to ? open_state(live, pairs[_i].to) : image_ref(live);
	walk(from, to, false);
	said = is_true(from, to, false);
	walk(from, to, true);
	changed = is_true(from, to, true);
	ck_assert_uint_le(changed, said);
	ck_assert_int_eq(said > 0,
			 from->chain.layers[0] != to->chain.layers[0]);
	image_unref(from);
	image_unref(to);
	image_unref(live);
}
END_TEST

START_TEST(the_same_file_opened_twice_is_the_same)
{
	struct image *a, *b;

	write_mixed("base", UNITS, NULL, 1);
	write_mixed("top", UNITS, "base", 2);
	a = open_image("top");
	b = open_image("top");
	walk(a, b, false);
	ck_assert_uint_eq(runs, 1);
	ck_assert_uint_eq(is_true(a, b, false), 0);
	image_unref(a);
	image_unref(b);
}
END_TEST

START_TEST(images_that_share_nothing_are_compared_by_their_data)
{
	struct image *a, *b;

	write_mixed("a", UNITS, NULL, 1);
	write_mixed("b", UNITS + 50, NULL, 2);
	a = open_image("a");
	b = open_image("b");
	walk(a, b, true);
	ck_assert_uint_gt(is_true(a, b, true), 0);
	walk(b, a, true);
	ck_assert_uint_gt(is_true(b, a, true), 0);
	image_unref(a);
	image_unref(b);
}
END_TEST

static int stop(void *opaque, uint64_t off, uint64_t len, enum change change)
{
	unsigned int *calls = opaque;

	(*calls)++;
	return -7;
}

START_TEST(a_walk_ends_when_it_is_told_to)
{
	struct difference d = { 0 };
	unsigned int calls = 0;
	uint64_t end;

	write_mixed("a", UNITS, NULL, 1);
	write_mixed("b", UNITS, NULL, 2);
	d.from = open_image("a");
	d.to = open_image("b");
	ck_assert_int_eq(
		difference_walk(&d, 0, d.to->bytes, stop, &calls, &end, &err),
		-7);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_lt(end, d.to->bytes);
	ck_assert_uint_gt(end, 0);
	image_unref(d.from);
	image_unref(d.to);
}
END_TEST

/* The last cluster's entry leads behind the file's end. */
START_TEST(damage_is_a_change_until_it_is_read)
{
	struct difference d = { .compare = true };
	uint64_t end, next = 0;
	struct qb q;

	qb_init(&q, 4 * CLUSTER, BITS, NULL, NULL);
	qb_entry(&q, 3, QB_COPIED | 1ULL << 30);
	save("damaged", &q);
	write_mixed("sound", 4, NULL, 1);
	d.from = open_image("sound");
	d.to = open_image("damaged");
	walk(d.from, d.to, false);
	ck_assert_int_eq(told[3], CHANGE_DATA);
	ck_assert_int_eq(
		difference_walk(&d, 0, d.to->bytes, note, &next, &end, &err),
		-EIO);
	image_unref(d.from);
	image_unref(d.to);
}
END_TEST

static void add(TCase *tc)
{
	unit_need_openat2();
	LOOP(tc, what_is_told_of_layers_is_true, pairs);
	tcase_add_test(tc, the_same_file_opened_twice_is_the_same);
	tcase_add_test(tc,
		       images_that_share_nothing_are_compared_by_their_data);
	tcase_add_test(tc, a_walk_ends_when_it_is_told_to);
	tcase_add_test(tc, damage_is_a_change_until_it_is_read);
}

int main(void)
{
	return unit_main("difference", add);
}
