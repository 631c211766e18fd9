/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/admit.h"
#include "tests/lib/unit.h"

static struct error err;

/* An image in a few words; "": NULL. */
struct image {
	enum image_status status;
	const char *disk, *container;
	const char *locations; /* a letter each */
	const char *seen_as; /* NULL: the data were not looked at */
};

static void fill(const struct image *i, struct record *r)
{
	const char *l;

	*r = (struct record){ .status = i->status };
	must(record_set(&r->id, "ID", &err), err);
	must(record_set(&r->disk_format, *i->disk ? i->disk : NULL, &err), err);
	must(record_set(&r->container_format,
			*i->container ? i->container : NULL, &err),
	     err);
	must(record_set(&r->seen_as, i->seen_as, &err), err);
	for (l = i->locations ? i->locations : ""; *l; l++) {
		struct location at = { .url = strndup(l, 1),
				       .store = strdup("file"),
				       .metadata = strdup("{}") };

		must(record_insert_location(r, r->n_locations, &at, &err), err);
	}
}

static int admit(const struct image *was, const struct image *is)
{
	CLEANUP(record_done) struct record a = { 0 };
	CLEANUP(record_done) struct record b = { 0 };
	int r;

	if (was)
		fill(was, &a);
	fill(is, &b);
	error_clear(&err);
	r = admit_change(was ? &a : NULL, &b, &err);
	ck_assert_int_eq(err.code, r);
	return r;
}

static const struct {
	struct image is;
	int code;
} new_ones[] = {
	{ { IMAGE_QUEUED, "", "" }, 0 },
	{ { IMAGE_QUEUED, "qcow2", "bare" }, 0 },
	{ { IMAGE_QUEUED, "diskdump", "ova" }, 0 },
	{ { IMAGE_QUEUED, "nonsense", "bare" }, -EINVAL },
	{ { IMAGE_QUEUED, "qcow2", "nonsense" }, -EINVAL },
	{ { IMAGE_QUEUED, "qcow", "bare" }, -EINVAL },
	{ { IMAGE_ACTIVE, "raw", "bare", "a", "raw in bare" }, 0 },
	{ { IMAGE_ACTIVE, "raw", "bare", "a" }, -EPERM },
	{ { IMAGE_ACTIVE, "qcow2", "bare", "a", "raw in bare" }, -EPERM },
	{ { IMAGE_DEACTIVATED, "raw", "bare" }, -EPERM },
};

START_TEST(a_new_image_is_one_of_known_formats_whose_data_were_seen)
{
	ck_assert_int_eq(admit(NULL, &new_ones[_i].is), new_ones[_i].code);
}
END_TEST

static const struct {
	struct image was, is;
	int code;
} changes[] = {
	/* Without data anything that there is may be said. */
	{ { IMAGE_QUEUED, "raw", "bare" },
	  { IMAGE_QUEUED, "qcow2", "ova" },
	  0 },
	{ { IMAGE_SAVING, "raw", "bare" },
	  { IMAGE_SAVING, "qcow2", "ova" },
	  0 },
	{ { IMAGE_QUEUED, "raw", "bare" },
	  { IMAGE_QUEUED, "nonsense", "bare" },
	  -EINVAL },
	/* It was before there was a rule: what else is changed. */
	{ { IMAGE_QUEUED, "nonsense", "bare" },
	  { IMAGE_QUEUED, "nonsense", "bare" },
	  0 },
	{ { IMAGE_ACTIVE, "nonsense", "bare" },
	  { IMAGE_ACTIVE, "nonsense", "bare" },
	  0 },
	{ { IMAGE_ACTIVE, "nonsense", "bare" },
	  { IMAGE_ACTIVE, "qcow2", "bare" },
	  -EPERM },
	/* Data come. */
	{ { IMAGE_SAVING, "raw", "bare" },
	  { IMAGE_ACTIVE, "raw", "bare" },
	  -EPERM },
	{ { IMAGE_SAVING, "raw", "bare" },
	  { IMAGE_ACTIVE, "raw", "bare", "", "raw in bare" },
	  0 },
	{ { IMAGE_IMPORTING, "qcow2", "bare" },
	  { IMAGE_ACTIVE, "qcow2", "bare", "", "raw in bare" },
	  -EPERM },
	/* They are there. */
	{ { IMAGE_ACTIVE, "raw", "bare" }, { IMAGE_ACTIVE, "raw", "bare" }, 0 },
	{ { IMAGE_ACTIVE, "raw", "bare" },
	  { IMAGE_ACTIVE, "qcow2", "bare" },
	  -EPERM },
	{ { IMAGE_ACTIVE, "qcow2", "ova" },
	  { IMAGE_ACTIVE, "qcow2", "bare" },
	  -EPERM },
	{ { IMAGE_ACTIVE, "raw", "bare" },
	  { IMAGE_ACTIVE, "", "bare" },
	  -EPERM },
	{ { IMAGE_ACTIVE, "raw", "bare" },
	  { IMAGE_ACTIVE, "qcow2", "bare", "", "qcow2 in bare" },
	  0 },
	{ { IMAGE_DEACTIVATED, "raw", "bare" },
	  { IMAGE_DEACTIVATED, "qcow2", "bare" },
	  -EPERM },
	/* Out of use, and back. */
	{ { IMAGE_ACTIVE, "raw", "bare" },
	  { IMAGE_DEACTIVATED, "raw", "bare" },
	  0 },
	{ { IMAGE_DEACTIVATED, "raw", "bare" },
	  { IMAGE_ACTIVE, "raw", "bare" },
	  -EPERM },
	{ { IMAGE_DEACTIVATED, "raw", "bare" },
	  { IMAGE_ACTIVE, "raw", "bare", "", "raw in bare" },
	  0 },
	{ { IMAGE_ACTIVE, "raw", "bare" },
	  { IMAGE_DEACTIVATED, "qcow2", "bare" },
	  -EPERM },
	/* Where they lie. */
	{ { IMAGE_ACTIVE, "raw", "bare", "ab" },
	  { IMAGE_ACTIVE, "raw", "bare", "ba" },
	  0 },
	{ { IMAGE_ACTIVE, "raw", "bare", "ab" },
	  { IMAGE_ACTIVE, "raw", "bare", "b" },
	  0 },
	{ { IMAGE_ACTIVE, "raw", "bare", "a" },
	  { IMAGE_ACTIVE, "raw", "bare", "ab" },
	  -EPERM },
	{ { IMAGE_ACTIVE, "raw", "bare", "a" },
	  { IMAGE_ACTIVE, "raw", "bare", "b" },
	  -EPERM },
	{ { IMAGE_ACTIVE, "raw", "bare", "a" },
	  { IMAGE_ACTIVE, "raw", "bare", "b", "raw in bare" },
	  0 },
	{ { IMAGE_ACTIVE, "raw", "bare", "a" },
	  { IMAGE_ACTIVE, "raw", "bare", "" },
	  -EPERM },
	/* Nothing of it is served. */
	{ { IMAGE_ACTIVE, "raw", "bare", "a" },
	  { IMAGE_PENDING_DELETE, "raw", "bare", "" },
	  0 },
};

START_TEST(a_change_keeps_to_what_was_seen)
{
	ck_assert_int_eq(admit(&changes[_i].was, &changes[_i].is),
			 changes[_i].code);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_new_image_is_one_of_known_formats_whose_data_were_seen,
	     new_ones);
	LOOP(tc, a_change_keeps_to_what_was_seen, changes);
}

int main(void)
{
	return unit_main("admit", add);
}
