/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/dmg-plist.c: each refusal has a row. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/dmg-plist.h"
#include "tests/lib/unit.h"

#define DOCTYPE                                                      \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE plist " \
	"PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://x.invalid/\">"
#define FORK(in)                                      \
	"<plist><dict><key>a</key><string>b</string>" \
	"<key>resource-fork</key>" in "</dict></plist>"
#define BLKX(in)   FORK("<dict><key>blkx</key>" in "</dict>")
#define LISTS(in)  BLKX("<array>" in "</array>")
#define LIST(data) "<dict><key>Data</key>" data "</dict>"
#define DATA(text) LIST("<data>" text "</data>")
#define DEEP	   "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>"
#define DEEP_END \
	"</a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a>"

static struct error err;
static char seen[256];

static int take(void *opaque, const uint8_t *list, size_t bytes,
		struct error *e)
{
	size_t used = strlen(seen);

	snprintf(seen + used, sizeof(seen) - used, "%.*s|", (int)bytes,
		 (const char *)list);
	return *(int *)opaque;
}

static int parse(const char *xml, size_t bytes, int answer)
{
	err = (struct error){ 0 };
	seen[0] = '\0';
	return dmg_plist_each((const uint8_t *)xml, bytes, take, &answer, &err);
}

static const struct {
	const char *xml;
	const char *lists;
} sound[] = {
	{ DOCTYPE LISTS(""), "" },
	{ LISTS(DATA("YWJj")), "abc|" },
	{ LISTS(DATA("\n\tYW\n\tJj\n") "<!-- c -->" DATA("YQ==") DATA("YWI=")),
	  "abc|a|ab|" },
	{ LISTS("<dict><key>N</key><string>Data</string><key>Data</key>"
		"<data>YWJj</data></dict>"),
	  "abc|" },
	{ LISTS(DATA("<![CDATA[YWJj]]>")), "abc|" },
	{ LISTS(DATA("")), "|" },
};

START_TEST(lists_are_told_in_order)
{
	must(parse(sound[_i].xml, strlen(sound[_i].xml), 0), err);
	ck_assert_str_eq(seen, sound[_i].lists);
}
END_TEST

static const struct {
	const char *xml;
	int code;
	const char *says;
} hostile[] = {
	{ "", -EBADMSG, "well-formed" },
	{ "<plist>", -EBADMSG, "well-formed" },
	{ "<!DOCTYPE plist [<!ENTITY a \"b\">]>" LISTS(DATA("&a;")), -EPERM,
	  "entities" },
	{ LISTS(DATA("&a;")), -EBADMSG, "well-formed" },
	{ LISTS(DEEP DEEP_END), -EFBIG, "16 deep" },
	{ "<dict/>", -EBADMSG, "no resource-fork" },
	{ "<plist/>", -EBADMSG, "no resource-fork" },
	{ "<plist><array/></plist>", -EBADMSG, "no resource-fork" },
	{ FORK("<array/>"), -EBADMSG, "no resource-fork" },
	{ FORK(""), -EBADMSG, "no resource-fork" },
	{ BLKX("<dict/>"), -EBADMSG, "array blkx" },
	{ BLKX(""), -EBADMSG, "array blkx" },
	{ LISTS("<dict/>"), -EBADMSG, "no Data" },
	{ LISTS(LIST("<string>YWJj</string>")), -EBADMSG, "no Data" },
	{ LISTS(DATA("YW*j")), -EBADMSG, "base64" },
};

START_TEST(what_is_wrong_is_refused)
{
	ck_assert_int_eq(parse(hostile[_i].xml, strlen(hostile[_i].xml), 0),
			 hostile[_i].code);
	ck_assert_int_eq(err.code, hostile[_i].code);
	unit_says(&err, hostile[_i].says);
}
END_TEST

START_TEST(nuls_may_follow_and_nothing_else)
{
	static const char xml[] = LISTS(DATA("YWJj")) "\0\0";
	static const char more[] = LISTS(DATA("YWJj")) "\0x";

	must(parse(xml, sizeof(xml), 0), err);
	ck_assert_str_eq(seen, "abc|");
	ck_assert_int_eq(parse(more, sizeof(more), 0), -EPERM);
	unit_says(&err, "NUL");
}
END_TEST

START_TEST(the_visitor_may_end_it)
{
	static const char xml[] = LISTS(DATA("YWJj") DATA("YWJj"));

	ck_assert_int_eq(parse(xml, strlen(xml), -ENOMEM), -ENOMEM);
	ck_assert_str_eq(seen, "abc|");
}
END_TEST

START_TEST(there_is_a_limit_to_lists_and_to_bytes)
{
	static char xml[64 * (DMG_BLKX_MAX + 2)];
	unsigned int i;

	strcpy(xml, "<plist><dict><key>resource-fork</key><dict>"
		    "<key>blkx</key><array>");
	for (i = 0; i <= DMG_BLKX_MAX; i++)
		strcat(xml, DATA(""));
	strcat(xml, "</array></dict></dict></plist>");
	ck_assert_int_eq(parse(xml, strlen(xml), 0), -EFBIG);
	unit_says(&err, "1024 blkx");
	ck_assert_int_eq(parse(xml, DMG_PLIST_MAX + 1, 0), -EFBIG);
	unit_says(&err, "10000000");
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, lists_are_told_in_order, sound);
	LOOP(tc, what_is_wrong_is_refused, hostile);
	tcase_add_test(tc, nuls_may_follow_and_nothing_else);
	tcase_add_test(tc, the_visitor_may_end_it);
	tcase_add_test(tc, there_is_a_limit_to_lists_and_to_bytes);
}

int main(void)
{
	return unit_main("dmg-plist", add);
}
