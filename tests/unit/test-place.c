/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images in a place that is no folder, as a container is: its members are the
 * only names that there are.
 */
#include <errno.h>
#include <string.h>

#include "formats/chain.h"
#include "formats/image.h"
#include "formats/place.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define CLUSTER 4096U
#define DISK	(8 * CLUSTER)

static struct error err;

struct member {
	const char *name;
	const void *data;
	size_t bytes;
};

struct members {
	struct place place;
	const struct member *list; /* ended by one without a name */
	const char *text;
	unsigned int opened;
	bool freed;
};

static int member_open(struct place *p, const struct place_ask *ask,
		       struct place_file *ret,
		       enum reference_verdict *ret_verdict, struct error *e)
{
	struct members *m = container_of(p, struct members, place);
	const struct member *at = m->list;
	int r;

	while (at->name && strcmp(at->name, ask->name))
		at++;
	if (!at->name) {
		*ret_verdict = REFERENCE_MISSING;
		return error_set(e, -ENOENT, 0, "%s \"%s\" is no member",
				 ask->what, ask->name);
	}
	r = memory_source_new(at->data, at->bytes, &ret->src, e);
	ret->place = place_ref(p);
	ret->path = strdup(at->name);
	m->opened++;
	return r;
}

static int member_each(struct place *p,
		       int (*each)(void *opaque, const char *name),
		       void *opaque)
{
	const struct member *at = container_of(p, struct members, place)->list;
	int r = 0;

	for (; !r && at->name; at++)
		r = each(opaque, at->name);
	return r;
}

static const char *member_text(const struct place *p)
{
	return container_of(p, struct members, place)->text;
}

static void member_free(struct place *p)
{
	container_of(p, struct members, place)->freed = true;
}

static const struct place_ops member_ops = {
	.open = member_open,
	.for_each = member_each,
	.text = member_text,
	.free = member_free,
};

static uint8_t base[DISK];
static const struct open_options options;

/* Opens a qcow2 over @backing, in @m. */
static int open_over(struct members *m, const char *backing, struct chain *ret)
{
	struct source *s = NULL;
	struct qb q;
	int r;

	qb_init(&q, DISK, 12, backing, "raw");
	must(memory_source_new(q.buf, q.len, &s, &err), err);
	r = chain_open_source(s, "top", m ? &m->place : NULL, &options, ret,
			      &err);
	if (!r) {
		/* The top's bytes are gone with it. */
		CLEANUP(image_unrefp) struct image *img = NULL;
		static uint8_t got[DISK];

		ck_assert_uint_eq(ret->depth, 2);
		must(image_from_chain(ret, &img, &err), err);
		must(image_read(img, got, DISK, 0, &err), err);
		ck_assert_mem_eq(got, base, DISK);
	}
	qb_done(&q);
	return r;
}

START_TEST(names_in_an_image_resolve_where_it_lies)
{
	const struct member list[] = { { "disk/base.raw", base, DISK }, { 0 } };
	struct members m = { .list = list, .text = "here.ova" };
	struct chain c = { 0 };

	unit_fill(base, DISK, 1);
	place_init(&m.place, &member_ops);
	must(open_over(&m, "disk/base.raw", &c), err);
	ck_assert_uint_eq(m.opened, 1);
	/* The file system has these; the place has not. */
	unit_write(unit_path("base.raw"), base, DISK);
	ck_assert_int_eq(open_over(&m, unit_path("base.raw"), &c), -ENOENT);
	unit_says(&err, "backing file");
	unit_says(&err, "is no member");
	error_clear(&err);
	ck_assert_int_eq(open_over(&m, "../base.raw", &c), -ENOENT);
	ck_assert_uint_eq(m.opened, 1);
	ck_assert(!m.freed);
	place_unref(&m.place);
	ck_assert(m.freed);
}
END_TEST

START_TEST(where_there_is_no_place_every_name_is_outside)
{
	struct place_ask ask = { .name = "x", .what = "extent" };
	enum reference_verdict v = REFERENCE_OK;
	struct place_file f = { 0 };
	struct chain c = { 0 };

	ck_assert_int_eq(place_open(NULL, &ask, &f, &v, &err), -EPERM);
	ck_assert_int_eq(v, REFERENCE_OUTSIDE);
	ck_assert_ptr_null(f.src);
	unit_says(&err, "extent");
	ck_assert_int_eq(open_over(NULL, "base.raw", &c), -EPERM);
	ck_assert_str_eq(place_text(NULL), "");
	ck_assert_int_eq(place_for_each(NULL, NULL, NULL), 0);
	place_unref(place_ref(NULL));
}
END_TEST

static const struct {
	const char *name;
	bool url;
} names[] = {
	{ "nbd://host/x", true },
	{ "nbd+unix:///?socket=s", true },
	{ "https://h/a.qcow2", true },
	{ "http:/x", false },
	{ "/a/http://b", false },
	{ "a/nbd://b", false },
	{ "://x", false },
	{ "", false },
	{ "disk.raw", false },
	{ "file:disk.raw", false },
	{ "json:{\"x\": \"y://\"}", false },
};

START_TEST(a_url_begins_with_a_scheme)
{
	ck_assert_int_eq(place_is_url(names[_i].name), names[_i].url);
}
END_TEST

START_TEST(a_url_is_not_taken_for_a_path)
{
	struct layer *l = NULL;

	ck_assert_int_eq(chain_open_top("ssh://h/x", &options, &l, &err),
			 -ENOTSUP);
	unit_says(&err, "ssh://h/x");
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, names_in_an_image_resolve_where_it_lies);
	tcase_add_test(tc, where_there_is_no_place_every_name_is_outside);
	LOOP(tc, a_url_begins_with_a_scheme, names);
	tcase_add_test(tc, a_url_is_not_taken_for_a_path);
}

int main(void)
{
	return unit_main("place", add);
}
