/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "iouring/util.h"
#include "nbd/export-name.h"
#include "tests/lib/unit.h"

static struct error err;

/* NULL: the part is not there. */
struct parts {
	const char *image, *member, *at, *overlay, *overlay_at, *grant;
	/* "": there is a difference, from the live state */
	const char *from, *overlay_from;
	uint64_t epoch;
};

static const struct {
	const char *text;
	struct parts parts;
	const char *written; /* by us; NULL: the same */
} good[] = {
	{ "", { .image = "" } },
	{ "debian12", { .image = "debian12" } },
	{ "a.b..c", { .image = "a.b..c" }, "a.b.%2Ec" },
	{ "x.ova/disk2", { .image = "x.ova", .member = "disk2" } },
	{ "@s", { .image = "", .at = "s" } },
	{ "i@s", { .image = "i", .at = "s" } },
	{ "i@v1.0", { .image = "i", .at = "v1.0" } },
	{ "i@a..b", { .image = "i", .at = "b", .from = "a" } },
	{ "i@..b", { .image = "i", .at = "b", .from = "" } },
	{ "i@a..", { .image = "i", .from = "a" } },
	{ "@1.2..3.4", { .image = "", .at = "3.4", .from = "1.2" } },
	{ "@a%2E..%2eb",
	  { .image = "", .at = ".b", .from = "a." },
	  "@a%2E..%2Eb" },
	{ "@a%2E%2Eb", { .image = "", .at = "a..b" }, "@a.%2Eb" },
	{ "@%2e", { .image = "", .at = "." }, "@%2E" },
	{ "+vm7", { .image = "", .overlay = "vm7" } },
	{ "i+vm7@s", { .image = "i", .overlay = "vm7", .overlay_at = "s" } },
	{ "+vm7=9@s",
	  { .image = "", .overlay = "vm7", .overlay_at = "s", .epoch = 9 } },
	{ "i+vm7=9223372036854775807~g",
	  { .image = "i",
	    .overlay = "vm7",
	    .grant = "g",
	    .epoch = INT64_MAX } },
	{ "i=3+vm7=003",
	  { .image = "i=3", .overlay = "vm7", .epoch = 3 },
	  "i=3+vm7=3" },
	{ "+vm7=0", { .image = "", .overlay = "vm7" }, "+vm7" },
	{ "+p%3D1", { .image = "", .overlay = "p=1" } },
	{ "i@s+vm7", { .image = "i", .at = "s", .overlay = "vm7" } },
	{ "i@s+o@a..b",
	  { .image = "i",
	    .at = "s",
	    .overlay = "o",
	    .overlay_at = "b",
	    .overlay_from = "a" } },
	{ "i~g", { .image = "i", .grant = "g" } },
	{ "i/m@a..b+o@c..~g",
	  { .image = "i",
	    .member = "m",
	    .at = "b",
	    .from = "a",
	    .overlay = "o",
	    .overlay_from = "c",
	    .grant = "g" } },
	{ "%40%2B%2f%25%7E", { .image = "@+/%~" }, "%40%2B%2F%25%7E" },
	{ "%41 \xc3\xa9%C3%A9",
	  { .image = "A \xc3\xa9\xc3\xa9" },
	  "A \xc3\xa9\xc3\xa9" },
	{ "%ff", { .image = "\xff" }, "\xff" },
};

static void same(const char *got, const char *want)
{
	ck_assert_msg(!got == !want, "%s, not %s", got ? got : "nothing",
		      want ? want : "nothing");
	if (want)
		ck_assert_str_eq(got, want);
}

static void state_is(const struct export_state *s, const char *at,
		     const char *from)
{
	same(s->at, at);
	ck_assert_int_eq(s->difference, from != NULL);
	same(s->from, from && *from ? from : NULL);
}

START_TEST(a_name_is_taken_apart_and_put_together)
{
	const struct parts *p = &good[_i].parts;
	struct export_name n, again;
	char *text;

	must(export_name_parse(good[_i].text, &n, &err), err);
	same(n.image, p->image);
	same(n.member, p->member);
	state_is(&n.state, p->at, p->from);
	same(n.overlay, p->overlay);
	ck_assert_uint_eq(n.epoch, p->epoch);
	state_is(&n.overlay_state, p->overlay_at, p->overlay_from);
	same(n.grant, p->grant);

	text = export_name_format(&n);
	same(text, good[_i].written ? good[_i].written : good[_i].text);
	must(export_name_parse(text, &again, &err), err);
	same(again.image, p->image);
	state_is(&again.state, p->at, p->from);
	state_is(&again.overlay_state, p->overlay_at, p->overlay_from);
	free(text);
	export_name_done(&n);
	export_name_done(&again);
}
END_TEST

static const char *const bad[] = {
	"@", /* a part that is empty */
	"i@",	      "i/",	   "i+",       "i~",
	"i@+o",	      "i+o@",	   "i@~g",     "/@s",
	"i@..", /* from the live state to the live state */
	"i@...b", /* which two dots? */
	"i@a...b",    "i@a..b..c", "i@a..b..", "i/a/b", /* a part twice */
	"i@a@b",      "i+a+b",	   "i+a@b@c",  "i~a~b",
	"i@s/m", /* parts in the wrong order */
	"i+o/m",      "i~g@s",	   "i~g+o",    "i~g/m",
	"%", /* not well encoded */
	"a%4",	      "a%4g",	   "a%g4",     "a%%41",
	"a%\xc3\xa9", "a%00b", /* control characters */
	"a%0Ab",      "@a%1bb",	   "+a%7fb",   "a\nb",
	"a\x7f",
};

START_TEST(what_is_no_name_is_an_export_that_there_is_not)
{
	struct export_name n = { .image = (char *)"as it was" };

	ck_assert_int_eq(export_name_parse(bad[_i], &n, &err), -ENOENT);
	unit_says(&err, "there is no export \"");
	ck_assert_str_eq(n.image, "as it was");
}
END_TEST

/* @n letters behind @before. To be freed. */
static char *letters(const char *before, size_t n)
{
	size_t head = strlen(before);
	char *s = malloc(head + n + 1);

	memcpy(s, before, head);
	memset(s + head, 'x', n);
	s[head + n] = '\0';
	return s;
}

START_TEST(a_name_is_as_long_as_nbd_permits)
{
	char *longest = letters("@", EXPORT_NAME_MAX - 1);
	char *longer = letters("@", EXPORT_NAME_MAX), *text;
	struct export_name n;

	must(export_name_parse(longest, &n, &err), err);
	text = export_name_format(&n);
	same(text, longest);
	free(text);
	/* The same part, with a byte that takes three. */
	n.state.at[0] = '@';
	ck_assert_ptr_null(export_name_format(&n));
	export_name_done(&n);
	ck_assert_int_eq(export_name_parse(longer, &n, &err), -ENOENT);
	free(longest);
	free(longer);
}
END_TEST

START_TEST(a_part_with_control_characters_has_no_name)
{
	struct export_name n = { .image = (char *)"",
				 .state.at = (char *)"a\nb" };

	ck_assert_ptr_null(export_name_format(&n));
}
END_TEST

START_TEST(a_message_shows_the_beginning_of_a_name)
{
	char *name = letters("/", 4000);

	ck_assert_int_eq(export_name_unknown(name, &err), -ENOENT);
	ck_assert_uint_lt(strlen(err.msg), 300);
	free(name);
}
END_TEST

START_TEST(a_grant_is_not_told)
{
	static const char *const names[] = { "i~w1-GRANT+vm1", "i+vm1=x~GRANT",
					     "i+vm1~GRANT~GRANT" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct export_name n;

		error_clear(&err);
		ck_assert_int_eq(export_name_parse(names[i], &n, &err),
				 -ENOENT);
		ck_assert_ptr_null(strstr(err.msg, "GRANT"));
		ck_assert_ptr_nonnull(strstr(err.msg, "~..."));
	}
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_name_is_taken_apart_and_put_together, good);
	LOOP(tc, what_is_no_name_is_an_export_that_there_is_not, bad);
	tcase_add_test(tc, a_name_is_as_long_as_nbd_permits);
	tcase_add_test(tc, a_part_with_control_characters_has_no_name);
	tcase_add_test(tc, a_message_shows_the_beginning_of_a_name);
	tcase_add_test(tc, a_grant_is_not_told);
}

int main(void)
{
	return unit_main("export-name", add);
}
