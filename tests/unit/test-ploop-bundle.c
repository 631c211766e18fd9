/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/ploop-bundle.c: each refusal has a row. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/ploop-bundle.h"
#include "tests/lib/unit.h"

#define A   "{aaaaaaaa-0000-0000-0000-000000000001}"
#define B   "{bbbbbbbb-0000-0000-0000-000000000002}"
#define TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define NIL "{00000000-0000-0000-0000-000000000000}"

#define IMAGE(guid, type, file)                                        \
	"<Image><GUID>" guid "</GUID><Type>" type "</Type><File>" file \
	"</File></Image>"
#define STORAGE(start, end, images)                                  \
	"<Storage><Start>" start "</Start><End>" end "</End>" images \
	"</Storage>"
#define SHOT(guid, parent)                                               \
	"<Shot><GUID>" guid "</GUID><ParentGUID>" parent "</ParentGUID>" \
	"</Shot>"
#define DISK(params, storages, shots)                               \
	"<Parallels_disk_image><Disk_Parameters>" params            \
	"</Disk_Parameters><StorageData>" storages "</StorageData>" \
	"<Snapshots>" shots "</Snapshots></Parallels_disk_image>"

#define SIZE   "<Disk_size>100</Disk_size>"
#define IMG_A  IMAGE(A, "Compressed", "a.hds")
#define STOR_A STORAGE("0", "100", IMG_A)

static struct error err;

static int parse(const char *xml, struct bundle *b)
{
	int r;

	err = (struct error){ 0 };
	*b = (struct bundle){ 0 };
	r = bundle_parse((const uint8_t *)xml, strlen(xml), b, &err);
	ck_assert_int_eq(r, err.code);
	return r;
}

static const struct {
	const char *xml;
	int code;
	const char *says;
} hostile[] = {
	{ "", -EBADMSG, "well-formed" },
	{ "<Parallels_disk_image>", -EBADMSG, "well-formed" },
	{ "<!DOCTYPE a>" DISK(SIZE, STOR_A, ""), -EPERM, "DTD" },
	{ DISK(SIZE "&x;", STOR_A, ""), -EBADMSG, "well-formed" },
	{ "<Disk/>", -EBADMSG, "root element is Disk" },
	{ "<Parallels_disk_image/>", -EBADMSG, "no Disk_Parameters" },
	{ DISK("", STOR_A, ""), -EBADMSG, "has no Disk_size" },
	{ DISK("<Disk_size/>", STOR_A, ""), -EBADMSG, "Disk_size \"\"" },
	{ DISK("<Disk_size>-1</Disk_size>", STOR_A, ""), -EBADMSG, "\"-1\"" },
	{ DISK("<Disk_size>1x</Disk_size>", STOR_A, ""), -EBADMSG, "\"1x\"" },
	{ DISK("<Disk_size>18014398509481984</Disk_size>", STOR_A, ""),
	  -EBADMSG, "not a number of sectors" },
	{ DISK("<Disk_size>99999999999999999999</Disk_size>", STOR_A, ""),
	  -EBADMSG, "not a number of sectors" },
	{ DISK(SIZE "<Padding>1</Padding>", STOR_A, ""), -ENOTSUP,
	  "Padding 1" },
	{ DISK(SIZE "<Encryption><Engine>" A "</Engine></Encryption>", STOR_A,
	       ""),
	  -ENOTSUP, "encryption engine" },
	{ DISK(SIZE, "", ""), -EBADMSG, "no Storage" },
	{ DISK(SIZE, STORAGE("0", "100", ""), ""), -EBADMSG, "no Image" },
	{ DISK(SIZE, STORAGE("9", "8", IMG_A), ""), -EBADMSG, "begins at 9" },
	{ DISK(SIZE, STORAGE("0", "9", IMG_A) STORAGE("8", "10", IMG_A), ""),
	  -EBADMSG, "overlap at sector 8" },
	{ DISK(SIZE, STORAGE("0", "100", IMG_A IMG_A), ""), -EBADMSG,
	  "two images" },
	{ DISK(SIZE, STORAGE("0", "9", IMAGE("{a}", "Plain", "x")), ""),
	  -EBADMSG, "not a GUID" },
	{ DISK(SIZE, STORAGE("0", "9", IMAGE(A, "Sparse", "x")), ""), -ENOTSUP,
	  "type \"Sparse\"" },
	{ DISK(SIZE, STORAGE("0", "9", IMAGE(A, "Plain", "")), ""), -EBADMSG,
	  "file name" },
	{ DISK(SIZE, STOR_A, SHOT(A, NIL) SHOT(A, NIL)), -EBADMSG,
	  "two shots" },
	{ DISK(SIZE, STOR_A, SHOT(A, "")), -EBADMSG, "not a GUID" },
	{ DISK(SIZE, STOR_A, "<TopGUID>x</TopGUID>"), -EBADMSG, "TopGUID" },
	{ DISK(SIZE "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>x"
		    "</a></a></a></a></a></a></a></a></a></a></a></a></a></a>"
		    "</a></a>",
	       STOR_A, ""),
	  -EFBIG, "16 deep" },
};

START_TEST(parse_refuses)
{
	struct bundle b;
	int r = parse(hostile[_i].xml, &b);

	ck_assert_msg(r == hostile[_i].code, "row %d: %d, \"%s\"", _i, r,
		      err.msg);
	unit_says(&err, hostile[_i].says);
	bundle_done(&b);
}
END_TEST

START_TEST(a_list_has_a_maximum)
{
	size_t room = 1 << 20, used;
	char *xml = malloc(room);
	struct bundle b;
	unsigned int i;

	used = (size_t)sprintf(xml,
			       "<Parallels_disk_image><Disk_Parameters>" SIZE
			       "</Disk_Parameters><StorageData>");
	for (i = 0; i <= BUNDLE_STORAGES_MAX; i++)
		used += (size_t)sprintf(xml + used,
					"<Storage><Start>%u</Start><End>%u"
					"</End>" IMG_A "</Storage>",
					i, i + 1);
	sprintf(xml + used, "</StorageData></Parallels_disk_image>");
	ck_assert_int_eq(parse(xml, &b), -EFBIG);
	unit_says(&err, "more than 512 storages");
	bundle_done(&b);
	free(xml);
}
END_TEST

START_TEST(a_descriptor_has_a_greatest_size)
{
	char *xml = calloc(1, BUNDLE_XML_MAX + 2);
	struct bundle b;

	memset(xml, ' ', BUNDLE_XML_MAX + 1);
	ck_assert_int_eq(parse(xml, &b), -EFBIG);
	free(xml);
}
END_TEST

START_TEST(storages_stand_by_their_start)
{
	struct bundle b;

	must(parse(DISK(SIZE,
			STORAGE("50", "100", IMG_A)
				STORAGE("0", "50", IMAGE(A, "Plain", "b")),
			""),
		   &b),
	     err);
	ck_assert_uint_eq(b.disk_sectors, 100);
	ck_assert_uint_eq(b.n_storages, 2);
	ck_assert_uint_eq(b.storages[1].start, 50);
	ck_assert(b.storages[0].images[0].plain);
	ck_assert(!b.storages[1].images[0].plain);
	ck_assert_str_eq(b.storages[1].images[0].file, "a.hds");
	bundle_done(&b);
}
END_TEST

static const struct {
	const char *xml, *top;
} tops[] = {
	{ DISK(SIZE, STOR_A, ""), A }, /* the only one */
	{ DISK(SIZE, STORAGE("0", "9", IMG_A IMAGE(B, "Plain", "b")), ""),
	  TOP },
	{ DISK(SIZE, STORAGE("0", "9", IMG_A IMAGE(TOP, "Plain", "b")), ""),
	  TOP },
	{ DISK(SIZE, STORAGE("0", "9", IMG_A IMAGE(TOP, "Plain", "b")),
	       "<TopGUID>{AAAAAAAA-0000-0000-0000-000000000001}</TopGUID>"),
	  A },
};

START_TEST(the_top_is_named_predefined_or_the_only_one)
{
	struct guid want;
	struct bundle b;

	must(parse(tops[_i].xml, &b), err);
	ck_assert(guid_parse(&want, tops[_i].top));
	ck_assert_str_eq(b.top.text, want.text);
	bundle_done(&b);
}
END_TEST

START_TEST(parents_come_from_the_shots)
{
	struct guid a, b_guid, parent;
	struct bundle b;

	must(parse(DISK(SIZE, STOR_A, SHOT(A, B) SHOT(B, NIL)), &b), err);
	guid_parse(&a, A);
	guid_parse(&b_guid, B);
	parent = bundle_parent(&b, &a);
	ck_assert(guid_equal(&parent, &b_guid));
	parent = bundle_parent(&b, &b_guid);
	ck_assert_str_eq(parent.text, "");
	bundle_done(&b);
}
END_TEST

static int parse_names(const char *xml, struct bundle *b)
{
	err = (struct error){ 0 };
	return bundle_parse_names((const uint8_t *)xml, strlen(xml), b, &err);
}

#define STATES(items) "<ParallelsSavedStates>" items "</ParallelsSavedStates>"
#define ITEM(guid, name, items)                                        \
	"<SavedStateItem guid=\"" guid "\" current=\"no\"><Name>" name \
	"</Name>" items "</SavedStateItem>"

START_TEST(shots_are_called_as_the_machine_s_states_are)
{
	struct bundle b;

	must(parse(DISK(SIZE, STOR_A, SHOT(A, B) SHOT(B, NIL)), &b), err);
	must(parse_names(STATES(ITEM("", "root",
				     ITEM(B, " b &amp; c ",
					  ITEM(TOP, "not of this disk",
					       ITEM(A, "a", ""))))),
			 &b),
	     err);
	ck_assert_str_eq(b.shots[0].name, "a");
	ck_assert_str_eq(b.shots[1].name, "b & c");
	/* The first name stays. */
	must(parse_names(STATES(ITEM(A, "again", "")), &b), err);
	ck_assert_str_eq(b.shots[0].name, "a");
	bundle_done(&b);
}
END_TEST

static const struct {
	const char *xml;
	int code;
	const char *says;
} no_names[] = {
	{ "", -EBADMSG, "Snapshots.xml is not well-formed" },
	{ "<a/>", -EBADMSG, "root element is a" },
	{ "<!DOCTYPE a>" STATES(""), -EPERM, "DTD" },
	{ STATES(ITEM("&x;", "x", "")), -EBADMSG, "well-formed" },
};

START_TEST(what_is_no_list_of_names_gives_none)
{
	struct bundle b;

	must(parse(DISK(SIZE, STOR_A, SHOT(A, NIL)), &b), err);
	ck_assert_int_eq(parse_names(no_names[_i].xml, &b), no_names[_i].code);
	unit_says(&err, no_names[_i].says);
	ck_assert_ptr_null(b.shots[0].name);
	/* Without a name, or of nobody. */
	must(parse_names(STATES("<SavedStateItem guid=\"" A "\"/>"
				"<SavedStateItem/>" ITEM("x", "y", "")),
			 &b),
	     err);
	ck_assert_ptr_null(b.shots[0].name);
	bundle_done(&b);
}
END_TEST

START_TEST(states_lie_in_each_other_to_a_limit)
{
	static char xml[1 << 16];
	struct bundle b = { 0 };
	unsigned int depth, i, used;

	for (depth = BUNDLE_NAMES_DEPTH - 10; depth < 240; depth += 20) {
		used = (unsigned int)sprintf(xml, "<ParallelsSavedStates>");
		for (i = 0; i < depth; i++)
			used += (unsigned int)sprintf(xml + used,
						      "<SavedStateItem>");
		for (i = 0; i < depth; i++)
			used += (unsigned int)sprintf(xml + used,
						      "</SavedStateItem>");
		sprintf(xml + used, "</ParallelsSavedStates>");
		ck_assert_int_eq(parse_names(xml, &b),
				 depth < BUNDLE_NAMES_DEPTH ? 0 : -EFBIG);
	}
}
END_TEST

static const struct {
	const char *head;
	bool is;
} heads[] = {
	{ "<Parallels_disk_image Version=\"1.0\">", true },
	{ "<?xml version='1.0'?>\n<!-- x -->\n<Virtuozzo_disk_image>", true },
	{ "\xef\xbb\xbf \n<Parallels_disk_image>", true },
	{ "Parallels_disk_image", false },
	{ "text <Parallels_disk_image>", false },
	{ "<Parallels_disk_imag", false },
	{ "<domain/>", false },
	{ "", false },
};

START_TEST(a_descriptor_is_known_by_its_root)
{
	const char *head = heads[_i].head;

	ck_assert(bundle_probe((const uint8_t *)head, strlen(head)) ==
		  heads[_i].is);
}
END_TEST

START_TEST(guids_come_with_and_without_braces)
{
	struct guid g;

	ck_assert(guid_parse(&g, "AAAAAAAA-0000-0000-0000-00000000000F"));
	ck_assert_str_eq(g.text, "aaaaaaaa-0000-0000-0000-00000000000f");
	ck_assert(guid_parse(&g, A));
	ck_assert(!guid_parse(&g, ""));
	ck_assert(!guid_parse(&g, "{aaaaaaaa-0000-0000-0000-00000000000f"));
	ck_assert(!guid_parse(&g, "aaaaaaaa-0000-0000-0000-00000000000g"));
	ck_assert(!guid_parse(&g, "aaaaaaaa00000-0000-0000-00000000000f"));
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, parse_refuses, hostile);
	tcase_add_test(tc, a_list_has_a_maximum);
	tcase_add_test(tc, a_descriptor_has_a_greatest_size);
	tcase_add_test(tc, storages_stand_by_their_start);
	LOOP(tc, the_top_is_named_predefined_or_the_only_one, tops);
	tcase_add_test(tc, parents_come_from_the_shots);
	tcase_add_test(tc, shots_are_called_as_the_machine_s_states_are);
	LOOP(tc, what_is_no_list_of_names_gives_none, no_names);
	tcase_add_test(tc, states_lie_in_each_other_to_a_limit);
	LOOP(tc, a_descriptor_is_known_by_its_root, heads);
	tcase_add_test(tc, guids_come_with_and_without_braces);
}

int main(void)
{
	return unit_main("ploop-bundle", add);
}
