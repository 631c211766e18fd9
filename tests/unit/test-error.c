/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/unit.h"

START_TEST(the_first_failure_wins)
{
	struct error err = { 0 };

	ck_assert_int_eq(error_set(&err, -EBADMSG, 7, "one %d", 1), -EBADMSG);
	ck_assert_int_eq(error_set(&err, -EIO, 9, "two"), -EIO);
	ck_assert_int_eq(err.code, -EBADMSG);
	ck_assert_uint_eq(err.off, 7);
	ck_assert_str_eq(err.msg, "one 1");
	error_clear(&err);
	ck_assert_int_eq(error_set(&err, -EIO, 9, "two"), -EIO);
	ck_assert_str_eq(err.msg, "two");
}
END_TEST

START_TEST(nobody_need_listen)
{
	ck_assert_int_eq(error_set(NULL, -EIO, 0, "unheard"), -EIO);
	error_prefix(NULL, "unheard");
	error_clear(NULL);
}
END_TEST

START_TEST(a_prefix_goes_in_front)
{
	struct error err = { 0 };

	error_prefix(&err, "early");
	ck_assert_str_eq(err.msg, "");
	ck_assert_int_eq(err.code, 0);
	error_set(&err, -EIO, 0, "fault");
	error_prefix(&err, "%s", "inner");
	error_prefix(&err, "outer\n");
	ck_assert_str_eq(err.msg, "outer\\x0a: inner: fault");
	ck_assert_int_eq(err.code, -EIO);
}
END_TEST

START_TEST(what_is_too_long_is_cut)
{
	char big[3 * ERROR_MSG_BYTES];
	struct error err = { 0 };

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	error_set(&err, -EIO, 0, "%s", big);
	ck_assert_uint_ge(strlen(err.msg), ERROR_MSG_BYTES - 5);
	error_prefix(&err, "%s", big);
	ck_assert_uint_lt(strlen(err.msg), ERROR_MSG_BYTES);
	error_prefix(&err, "name");
	ck_assert_int_eq(strncmp(err.msg, "name: xxx", 9), 0);
	ck_assert_uint_lt(strlen(err.msg), ERROR_MSG_BYTES);
}
END_TEST

static const struct {
	const char *in, *out;
} texts[] = {
	{ "", "" },
	{ "plain ~", "plain ~" },
	{ "\x1b[31mred", "\\x1b[31mred" },
	{ "a\nb\r\t", "a\\x0ab\\x0d\\x09" },
	{ "\x7f", "\\x7f" },
	{ "\xc3\xa9", "\xc3\xa9" }, /* U+00E9 */
	{ "\xe2\x82\xac", "\xe2\x82\xac" }, /* U+20AC */
	{ "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" }, /* U+1F600 */
	{ "\xc2\x9b"
	  "0m",
	  "\\xc2\\x9b0m" }, /* C1 */
	{ "\xc0\xaf", "\\xc0\\xaf" }, /* overlong */
	{ "\xe0\x80\xaf", "\\xe0\\x80\\xaf" }, /* overlong */
	{ "\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf" }, /* overlong */
	{ "\xed\xa0\x80", "\\xed\\xa0\\x80" }, /* surrogate */
	{ "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80" }, /* > U+10FFFF */
	{ "\xe2\x82", "\\xe2\\x82" }, /* cut off */
	{ "\xe2(\xa1", "\\xe2(\\xa1" }, /* broken */
	{ "\x80", "\\x80" },
	{ "\xff", "\\xff" },
};

START_TEST(what_could_drive_a_terminal_is_escaped)
{
	struct error err = { 0 };
	char out[128];

	text_escape(out, sizeof(out), texts[_i].in);
	ck_assert_str_eq(out, texts[_i].out);
	error_set(&err, -EIO, 0, "<%s>", texts[_i].in);
	snprintf(out, sizeof(out), "<%s>", texts[_i].out);
	ck_assert_str_eq(err.msg, out);
}
END_TEST

START_TEST(a_cut_is_never_inside_a_character)
{
	static const char text[] = "a\xc3\xa9\x1b\xe2\x82\xacz";
	static const char whole[] = "a\xc3\xa9\\x1b\xe2\x82\xacz";
	char out[32];
	size_t n, len;

	for (n = 5; n < sizeof(out); n++) {
		memset(out, '#', sizeof(out));
		text_escape(out, n, text);
		len = strlen(out);
		ck_assert_uint_lt(len, n);
		ck_assert_int_eq(strncmp(out, whole, len), 0);
		/* Where characters end in @whole. */
		ck_assert_msg(len == 1 || len == 3 || len == 7 || len == 10 ||
				      len == 11,
			      "%zu: cut at %zu", n, len);
	}
	ck_assert_str_eq(out, whole);
}
END_TEST

START_TEST(a_prefix_cuts_no_character_either)
{
	struct error err = { 0 };
	char big[ERROR_MSG_BYTES], out[4 * ERROR_MSG_BYTES];
	size_t i, pad;

	for (pad = 0; pad < 3; pad++) {
		for (i = 0; i + 3 < sizeof(big); i += 3)
			memcpy(big + i, "\xe2\x82\xac", 3);
		big[i] = '\0';
		error_clear(&err);
		error_set(&err, -EIO, 0, "%s", big);
		error_prefix(&err, "%.*s", (int)pad + 1, "xyz");
		text_escape(out, sizeof(out), err.msg);
		ck_assert_str_eq(out, err.msg);
	}
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, the_first_failure_wins);
	tcase_add_test(tc, nobody_need_listen);
	tcase_add_test(tc, a_prefix_goes_in_front);
	tcase_add_test(tc, what_is_too_long_is_cut);
	LOOP(tc, what_could_drive_a_terminal_is_escaped, texts);
	tcase_add_test(tc, a_cut_is_never_inside_a_character);
	tcase_add_test(tc, a_prefix_cuts_no_character_either);
}

int main(void)
{
	return unit_main("error", add);
}
