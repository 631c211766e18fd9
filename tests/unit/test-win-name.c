/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "formats/drivers/win-name.h"
#include "tests/lib/unit.h"

static struct error err;

/* UTF-16LE and what it is; NULL: nothing. */
static const struct {
	const char *from;
	size_t bytes;
	const char *to;
} texts[] = {
	{ "a\0.\0v\0", 6, "a.v" },
	{ "a\0.\0v\0\0\0x\0", 10, "a.v" },
	{ "a\0b\0c", 5, "ab" },
	{ "\xfc\0\xac\x20", 4, "\xc3\xbc\xe2\x82\xac" },
	{ "\x3d\xd8\xbe\xdc", 4, "\xf0\x9f\x92\xbe" },
	{ "\x3d\xd8", 2, NULL },
	{ "\x3d\xd8"
	  "a\0",
	  4, NULL },
	{ "\xbe\xdc\x3d\xd8", 4, NULL },
	{ "a\0\xbe\xdc", 4, NULL },
	{ "", 0, NULL },
	{ "\0\0a\0", 4, NULL },
};

START_TEST(utf16_becomes_utf8)
{
	uint8_t swapped[16];
	CLEANUP(freep) char *le = NULL;
	CLEANUP(freep) char *be = NULL;
	size_t i;

	le = win_name_from_utf16((const uint8_t *)texts[_i].from,
				 texts[_i].bytes, false);
	for (i = 0; i + 1 < texts[_i].bytes; i += 2) {
		swapped[i] = (uint8_t)texts[_i].from[i + 1];
		swapped[i + 1] = (uint8_t)texts[_i].from[i];
	}
	be = win_name_from_utf16(swapped, i, true);
	if (texts[_i].to) {
		ck_assert_str_eq(le, texts[_i].to);
		ck_assert_str_eq(be, texts[_i].to);
	} else {
		ck_assert_ptr_null(le);
		ck_assert_ptr_null(be);
	}
}
END_TEST

START_TEST(a_name_that_is_too_long_is_none)
{
	static uint8_t buf[WIN_NAME_BYTES_MAX + 2];
	char *name;

	memset(buf, 'a', sizeof(buf));
	name = win_name_from_utf16(buf, WIN_NAME_BYTES_MAX, false);
	ck_assert_uint_eq(strlen(name), WIN_NAME_BYTES_MAX / 2 * 3);
	free(name);
	ck_assert_ptr_null(win_name_from_utf16(buf, sizeof(buf), false));
}
END_TEST

static const char *const locals[][2] = {
	{ ".\\a\\b.vhd", "./a/b.vhd" },
	{ "..\\b", "../b" },
	{ "a\\b", "a/b" },
	{ "C:\\a\\b", "C:\\a\\b" },
	{ "\\\\srv\\b", "\\\\srv\\b" },
	{ "/a\\b", "/a\\b" },
};

START_TEST(relative_names_get_slashes)
{
	char name[32];

	strcpy(name, locals[_i][0]);
	win_name_to_local(name);
	ck_assert_str_eq(name, locals[_i][1]);
}
END_TEST

/* Spellings, and which of them is taken; only "here" is a file. */
static const struct {
	const char *names[3];
	const char *chosen;
} choices[] = {
	{ { "gone", "here" }, "here" },
	{ { "here", "gone" }, "here" },
	{ { "gone", "C:\\x\\here", "here" }, "C:\\x\\here" },
	{ { "gone", "/x/gone" }, "gone" },
	{ { "x\\", "here" }, "here" },
	{ { "gone" }, "gone" },
	{ { NULL }, NULL },
};

START_TEST(the_spelling_that_leads_to_a_file_is_taken)
{
	static const struct open_options options;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	struct layer l = { .ops = format_by_name("raw"),
			   .options = &options,
			   .top = true };
	struct win_names names = { 0 };
	unsigned int fds, i;

	unit_write(unit_path("here"), "x", 1);
	must(folder_of_file(unit_path("here"), &folder, &err), err);
	l.place = folder_place(folder);
	fds = unit_open_fds();
	for (i = 0; i < 3 && choices[_i].names[i]; i++)
		win_names_add(&names, strdup(choices[_i].names[i]), i + 1);
	win_names_add(&names, NULL, 0);
	win_names_add(&names, strdup(""), 0);
	ck_assert_uint_eq(names.n, i);
	must(win_names_set_parent(&l, &names, "vhd", &err), err);
	win_names_done(&names);
	ck_assert(l.parent.wanted && l.parent.stale_ok);
	ck_assert_str_eq(l.parent.format, "vhd");
	if (choices[_i].chosen)
		ck_assert_str_eq(l.parent.name, choices[_i].chosen);
	else
		ck_assert_ptr_null(l.parent.name);
	ck_assert_uint_eq(unit_open_fds(), fds);
	free(l.parent.name);
	free(l.parent.format);
}
END_TEST

START_TEST(one_name_too_many_is_let_go)
{
	struct win_names names = { 0 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names.list) + 1; i++)
		win_names_add(&names, strdup("x"), i);
	ck_assert_uint_eq(names.n, ARRAY_SIZE(names.list));
	win_names_done(&names);
	ck_assert_uint_eq(names.n, 0);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, utf16_becomes_utf8, texts);
	tcase_add_test(tc, a_name_that_is_too_long_is_none);
	LOOP(tc, relative_names_get_slashes, locals);
	LOOP(tc, the_spelling_that_leads_to_a_file_is_taken, choices);
	tcase_add_test(tc, one_name_too_many_is_let_go);
}

int main(void)
{
	return unit_main("win-name", add);
}
