/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/layer.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/unit.h"

#define UNIT 4096U

static struct error err;
static uint8_t bytes[10 * UNIT + 100];

/* A driver that answers what the test wants. */
static struct extent answer;
static int answer_code;

static int fake_open(struct layer *l, struct error *e)
{
	l->bytes = 1 << 20;
	l->unit_bytes = UNIT;
	return 0;
}

static int fake_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *e)
{
	*ret = answer;
	return answer_code ? error_set(e, answer_code, 5, "wrong \x1b entry")
			   : 0;
}

static const struct format_ops fake = { .name = "fake",
					.open = fake_open,
					.map = fake_map };

static struct source *memory(void)
{
	struct source *s = NULL;

	unit_fill(bytes, sizeof(bytes), 1);
	must(memory_source_new(bytes, sizeof(bytes), &s, &err), err);
	return s;
}

static struct layer *fake_layer(void)
{
	static const struct open_options options;
	struct layer *l = NULL;

	must(layer_open(memory(), "NAME", NULL, "raw", true, &options, &l,
			&err),
	     err);
	l->ops = &fake;
	fake_open(l, NULL);
	return l;
}

/* Wrong answers to a question for 8192 bytes. SRC: the layer's own source. */
#define SRC ((struct source *)1)
static const struct extent unsound[] = {
	{ .kind = EXTENT_DATA, .src = SRC },
	{ .kind = EXTENT_ZERO, .len = 8193 },
	{ .kind = EXTENT_HOLE, .len = 0 },
	{ .kind = EXTENT_DATA, .len = 512 },
	{ .kind = EXTENT_DATA,
	  .len = 512,
	  .src = SRC,
	  .host_off = sizeof(bytes) - 511 },
	{ .kind = EXTENT_DATA, .len = 512, .src = SRC, .host_off = UINT64_MAX },
	{ .kind = EXTENT_COMPRESSED,
	  .len = 512,
	  .comp_bytes = 10,
	  .unit_bytes = 512 },
	{ .kind = EXTENT_COMPRESSED,
	  .len = 512,
	  .src = SRC,
	  .unit_bytes = 512 },
	{ .kind = EXTENT_COMPRESSED,
	  .len = 512,
	  .src = SRC,
	  .comp_bytes = 10,
	  .unit_bytes = 511 },
	{ .kind = EXTENT_COMPRESSED,
	  .len = 512,
	  .src = SRC,
	  .comp_bytes = 10,
	  .unit_bytes = 1024,
	  .unit_off = 513 },
	{ .kind = EXTENT_COMPRESSED,
	  .len = 512,
	  .src = SRC,
	  .comp_bytes = 10,
	  .unit_bytes = 512,
	  .host_off = sizeof(bytes) - 9 },
};

START_TEST(an_unsound_answer_is_damage)
{
	CLEANUP(layer_unrefp) struct layer *l = fake_layer();
	struct extent e;

	answer = unsound[_i];
	if (answer.src)
		answer.src = l->src;
	ck_assert_int_eq(layer_map(l, 1000, 8192, &e, &err), 0);
	ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
	ck_assert_uint_eq(e.len, UNIT - 1000);
	unit_says(&err, "unsound");
}
END_TEST

static const struct {
	uint64_t off, len;
	int code;
	int r; /* of layer_map() */
	uint64_t damaged; /* bytes */
	uint64_t reaches; /* as the driver says */
} failures[] = {
	{ 0, 100000, -EBADMSG, 0, UNIT },   { 0, 100000, -EIO, 0, UNIT },
	{ 4095, 100000, -EIO, 0, 1 },	    { 5000, 10, -EBADMSG, 0, 10 },
	{ 0, 100, -EIO, 0, 10, 10 },	    { 4000, 9999, -EIO, 0, 96, 512 },
	{ 0, 100000, -ENOMEM, -ENOMEM, 0 }, { 0, 100000, -EACCES, -EACCES, 0 },
};

START_TEST(a_failure_is_damage_to_the_end_of_its_unit)
{
	CLEANUP(layer_unrefp) struct layer *l = fake_layer();
	struct extent e;

	answer_code = failures[_i].code;
	answer.len = failures[_i].reaches;
	ck_assert_int_eq(
		layer_map(l, failures[_i].off, failures[_i].len, &e, &err),
		failures[_i].r);
	ck_assert_int_eq(err.code, failures[_i].code);
	ck_assert_uint_eq(err.off, 5);
	unit_says(&err, "NAME: guest offset ");
	unit_says(&err, "wrong \\x1b entry");
	if (!failures[_i].r) {
		ck_assert_int_eq(e.kind, EXTENT_DAMAGED);
		ck_assert_uint_eq(e.len, failures[_i].damaged);
	}
}
END_TEST

/* A file of 10 units and 100 bytes. */
static const struct {
	uint64_t unit_off, in_unit, len;
	int code;
	enum extent_kind kind;
	uint64_t ret_len;
} placed[] = {
	{ 0, 0, UNIT, 0, EXTENT_DATA, UNIT },
	{ UNIT, 17, UNIT - 17, 0, EXTENT_DATA, UNIT - 17 },
	{ 10 * UNIT, 0, UNIT, 0, EXTENT_DATA, 100 },
	{ 10 * UNIT, 99, UNIT - 99, 0, EXTENT_DATA, 1 },
	{ 10 * UNIT, 100, UNIT - 100, 0, EXTENT_ZERO, UNIT - 100 },
	{ 10 * UNIT, 2000, 10, 0, EXTENT_ZERO, 10 },
	{ 10 * UNIT + 100, 0, 10, -EBADMSG, EXTENT_HOLE, 0 },
	{ 11 * UNIT, 0, 10, -EBADMSG, EXTENT_HOLE, 0 },
	{ UINT64_MAX - 1, 0, 10, -EBADMSG, EXTENT_HOLE, 0 },
};

START_TEST(a_ragged_unit_that_runs_past_the_end_is_zeroes_from_there)
{
	CLEANUP(source_unrefp) struct source *s = memory();
	struct extent e = { 0 };

	ck_assert_int_eq(extent_set_ragged_data(&e, s, placed[_i].unit_off,
						placed[_i].in_unit,
						placed[_i].len, &err),
			 placed[_i].code);
	ck_assert_int_eq(e.kind, placed[_i].kind);
	ck_assert_uint_eq(e.len, placed[_i].ret_len);
	if (e.kind == EXTENT_DATA)
		ck_assert_uint_eq(e.host_off,
				  placed[_i].unit_off + placed[_i].in_unit);
}
END_TEST

/* The same file. */
static const struct {
	uint64_t unit_off, in_unit, len;
	int code;
	uint64_t ret_len;
} whole[] = {
	{ 0, 0, UNIT, 0, UNIT },
	{ UNIT, 17, UNIT - 17, 0, UNIT - 17 },
	{ 9 * UNIT, 0, 2 * UNIT, 0, UNIT + 100 },
	{ 9 * UNIT, UNIT + 100, 512, -EBADMSG, 0 },
	{ 10 * UNIT, 0, UNIT, 0, 100 },
	{ 10 * UNIT, 60, 41, 0, 40 },
	{ 10 * UNIT, 100, UNIT - 100, -EBADMSG, 0 },
	{ 10 * UNIT, 2000, 10, -EBADMSG, 0 },
	{ 10 * UNIT + 100, 0, 10, -EBADMSG, 0 },
	{ UINT64_MAX - 1, 0, 10, -EBADMSG, 0 },
};

START_TEST(a_unit_that_runs_past_the_end_is_damage_from_there)
{
	CLEANUP(source_unrefp) struct source *s = memory();
	struct extent e = { 0 };

	ck_assert_int_eq(extent_set_data(&e, s, whole[_i].unit_off,
					 whole[_i].in_unit, whole[_i].len,
					 &err),
			 whole[_i].code);
	ck_assert_uint_eq(e.len, whole[_i].ret_len);
	if (!whole[_i].code)
		ck_assert_uint_eq(e.host_off,
				  whole[_i].unit_off + whole[_i].in_unit);
}
END_TEST

START_TEST(what_cannot_be_opened_is_told_with_the_files_name)
{
	static const struct open_options plain, snap = { .snapshot = "s" };
	struct fault_source *f = fault_source_new(bytes, sizeof(bytes));
	struct layer *l = NULL;

	ck_assert_int_eq(layer_open(memory(), "NAME", NULL, "vmdk5", true,
				    &plain, &l, &err),
			 -ENOTSUP);
	unit_says(&err, "NAME: ");
	unit_says(&err, "vmdk5");
	error_clear(&err);
	ck_assert_int_eq(layer_open(memory(), "NAME", NULL, "qcow2", true,
				    &plain, &l, &err),
			 -EBADMSG);
	unit_says(&err, "NAME: ");
	error_clear(&err);
	ck_assert_int_eq(layer_open(memory(), "NAME", NULL, "raw", true, &snap,
				    &l, &err),
			 -ENOENT);
	unit_says(&err, "\"s\"");
	error_clear(&err);
	f->fail_call = 1;
	f->fail_code = -EIO;
	ck_assert_int_eq(layer_open(&f->base, "NAME", NULL, NULL, true, &plain,
				    &l, &err),
			 -EIO);
	ck_assert_ptr_null(l);
	layer_unref(NULL);
}
END_TEST

START_TEST(a_lower_layer_that_was_guessed_may_not_refer)
{
	struct open_options options = { 0 };
	CLEANUP(layer_unrefp) struct layer *l = fake_layer();
	int i;

	/* guessed, top, allowed */
	for (i = 0; i < 8; i++) {
		l->guessed = i & 1;
		l->top = i & 2;
		options.allow.guessed = i & 4;
		l->options = &options;
		error_clear(&err);
		free(l->parent.name);
		free(l->parent.format);
		l->parent.name = l->parent.format = NULL;
		ck_assert_int_eq(layer_set_parent(l, "base", "raw", 7, &err),
				 i == 1 ? -EPERM : 0);
		if (i == 1) {
			ck_assert_uint_eq(err.off, 7);
			unit_says(&err, "allow=guessed");
			ck_assert_ptr_null(l->parent.name);
		} else {
			ck_assert_str_eq(l->parent.name, "base");
			ck_assert_str_eq(l->parent.format, "raw");
		}
	}
}
END_TEST

START_TEST(a_data_file_is_opened_beside_the_image)
{
	static const struct open_options options;
	CLEANUP(layer_unrefp) struct layer *l = fake_layer();
	struct folder *folder = NULL;
	struct source *s = NULL;

	unit_write(unit_path("data.raw"), bytes, 100);
	must(folder_of_file(unit_path("data.raw"), &folder, &err), err);
	l->place = folder_place(folder);
	l->options = &options;
	must(layer_open_file(l, "data.raw", "extent", 3, &s, &err), err);
	ck_assert_uint_eq(s->bytes, 100);
	ck_assert_uint_eq(l->n_files, 1);
	ck_assert_ptr_eq(l->files[0].src, s);
	ck_assert_str_eq(l->files[0].name, "data.raw");
	ck_assert_int_eq(layer_open_file(l, "none", "extent", 3, &s, &err),
			 -ENOENT);
	unit_says(&err, "extent \"none\"");
	ck_assert_int_eq(
		layer_open_file(l, "/etc/passwd", "extent", 3, &s, NULL),
		-EPERM);
	ck_assert_uint_eq(l->n_files, 1);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, an_unsound_answer_is_damage, unsound);
	LOOP(tc, a_failure_is_damage_to_the_end_of_its_unit, failures);
	LOOP(tc, a_ragged_unit_that_runs_past_the_end_is_zeroes_from_there,
	     placed);
	LOOP(tc, a_unit_that_runs_past_the_end_is_damage_from_there, whole);
	tcase_add_test(tc, what_cannot_be_opened_is_told_with_the_files_name);
	tcase_add_test(tc, a_lower_layer_that_was_guessed_may_not_refer);
	tcase_add_test(tc, a_data_file_is_opened_beside_the_image);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("layer", add);
}
