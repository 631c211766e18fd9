/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/format.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

static struct error err;
static uint8_t bytes[70000];

static struct source *of_bytes(const void *data, size_t len)
{
	struct source *s = NULL;

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, data, len);
	must(memory_source_new(bytes, len, &s, &err), err);
	return s;
}

static const struct {
	const char *head;
	size_t len;
	const char *format;
} heads[] = {
	{ "", 0, "raw" },
	{ "Q", 1, "raw" },
	{ "QFI", 3, "raw" },
	{ "QFI\xfb", 4, "qcow2" },
	{ "QFI\xfb\0\0\0\x63", 8, "qcow2" },
	{ "\0QFI\xfb", 5, "raw" },
	{ "\xfbIFQ", 4, "raw" },
};

START_TEST(a_format_is_known_by_its_magic_and_raw_is_the_rest)
{
	CLEANUP(source_unrefp)
	struct source *s = of_bytes(heads[_i].head, heads[_i].len);
	const struct format_ops *f = NULL;

	must(format_probe(s, &f, &err), err);
	ck_assert_str_eq(f->name, heads[_i].format);
	must(format_matches(f, s, &err), err);
	/* Raw is whatever the user says is raw. */
	must(format_matches(format_by_name("raw"), s, &err), err);
}
END_TEST

START_TEST(what_is_declared_and_is_not_so_is_refused)
{
	CLEANUP(source_unrefp) struct source *s = of_bytes("raw disk", 8);

	ck_assert_int_eq(format_matches(format_by_name("qcow2"), s, &err),
			 -EBADMSG);
	unit_says(&err, "qcow2");
}
END_TEST

START_TEST(a_head_that_cannot_be_read_is_no_guess)
{
	struct fault_source *s = fault_source_new(bytes, sizeof(bytes));
	const struct format_ops *f = NULL;

	s->fail_call = 1;
	s->fail_calls = 2;
	s->fail_code = -EIO;
	ck_assert_int_eq(format_probe(&s->base, &f, &err), -EIO);
	ck_assert_ptr_null(f);
	ck_assert_int_eq(
		format_matches(format_by_name("qcow2"), &s->base, NULL), -EIO);
	source_unref(&s->base);
}
END_TEST

START_TEST(the_table_ends_with_raw_and_names_each_once)
{
	size_t i, k;

	for (i = 0; format_table[i]; i++) {
		ck_assert_ptr_eq(format_by_name(format_table[i]->name),
				 format_table[i]);
		ck_assert_ptr_nonnull(format_table[i]->open);
		ck_assert_ptr_nonnull(format_table[i]->map);
		for (k = 0; k < i; k++)
			ck_assert_str_ne(format_table[i]->name,
					 format_table[k]->name);
	}
	ck_assert_uint_ge(i, 2);
	ck_assert_str_eq(format_table[i - 1]->name, "raw");
	ck_assert_ptr_null(format_by_name("no such format"));
	ck_assert_ptr_null(format_by_name(""));
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_format_is_known_by_its_magic_and_raw_is_the_rest, heads);
	tcase_add_test(tc, what_is_declared_and_is_not_so_is_refused);
	tcase_add_test(tc, a_head_that_cannot_be_read_is_no_guess);
	tcase_add_test(tc, the_table_ends_with_raw_and_names_each_once);
}

int main(void)
{
	return unit_main("probe", add);
}
