/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "formats/drivers/vmdk-inside.h"
#include "tests/lib/unit.h"

#define AT 512U /* where the text is said to lie */

static struct error err;

static int parse(struct vmdk_descriptor *ret, const char *text)
{
	size_t len = strlen(text);
	char *copy = malloc(len + 1);

	memcpy(copy, text, len);
	error_clear(&err);
	return vmdk_descriptor_parse(ret, copy, len, AT, &err);
}

/* The same disk as different hands write it. */
static const char *const spellings[] = {
	"CID=1a\nparentCID=2b\ncreateType=\"vmfs\"\nRW 7 FLAT \"a b\" 3\n",
	"CID=0000001a\r\nparentCID=0000002b\r\ncreateType=\"vmfs\"\r\n"
	"RW 7 FLAT \"a b\" 3\r\n",
	"\xef\xbb\xbf"
	"CID = 1A\nparentCID = 0x2B\ncreateType = vmfs\n"
	"\tRW\t7\tFLAT\t\"a b\"\t3\t",
	"cid=1a\nPARENTCID=2b\n# CID=ffff\nCREATETYPE= \"vmfs\" \n"
	"#RW 9 ZERO\n  rw  7  flat  \"a b\"  3  uuid\n",
	"CID=1a\nCID=ff\nparentCID=2b\nparentCID=1\ncreateType=\"vmfs\"\n"
	"createType=\"custom\"\nRW 7 FLAT \"a b\" 3",
};

START_TEST(every_spelling_says_the_same)
{
	struct vmdk_descriptor d;

	must(parse(&d, spellings[_i]), err);
	ck_assert(d.has_cid);
	ck_assert_uint_eq(d.cid, 0x1a);
	ck_assert_uint_eq(d.parent_cid, 0x2b);
	ck_assert_str_eq(d.create_type, "vmfs");
	ck_assert_uint_eq(d.n_lines, 1);
	ck_assert_int_eq(d.lines[0].access, VMDK_RW);
	ck_assert_int_eq(d.lines[0].type, VMDK_FLAT);
	ck_assert_uint_eq(d.lines[0].sectors, 7);
	ck_assert_uint_eq(d.lines[0].offset, 3);
	ck_assert_str_eq(d.lines[0].name, "a b");
	vmdk_descriptor_done(&d);
}
END_TEST

START_TEST(names_may_hold_what_else_has_a_meaning)
{
	struct vmdk_descriptor d;

	must(parse(&d, "RW 1 FLAT \"say \"RW 2 ZERO\" = # .vmdk\" 0\n"
		       "parentFileNameHint=\"a \"b\" = c\"\n"
		       "ddb.comment = \"x = \"y\"\"\n"),
	     err);
	ck_assert_str_eq(d.lines[0].name, "say \"RW 2 ZERO\" = # .vmdk");
	ck_assert_str_eq(d.parent_hint, "a \"b\" = c");
	ck_assert_str_eq(d.ddb[0].value, "x = \"y\"");
	vmdk_descriptor_done(&d);
}
END_TEST

START_TEST(the_text_ends_at_a_nul)
{
	struct vmdk_descriptor d;
	char *copy = calloc(1, 101);

	strcpy(copy, "CID=1\n");
	strcpy(copy + 8, "parentCID=5\nRW 1 ZERO\n");
	must(vmdk_descriptor_parse(&d, copy, 100, AT, &err), err);
	ck_assert_uint_eq(d.parent_cid, VMDK_NO_PARENT);
	ck_assert_uint_eq(d.n_lines, 0);
	vmdk_descriptor_done(&d);
}
END_TEST

START_TEST(a_nul_that_stands_for_a_byte_is_damage)
{
	struct vmdk_descriptor d;
	char *copy = calloc(1, 101);

	strcpy(copy, "CID=1\nRW");
	strcpy(copy + 9, "1 ZERO\n");
	ck_assert_int_eq(vmdk_descriptor_parse(&d, copy, 100, AT, &err),
			 -EBADMSG);
	ck_assert_uint_eq(err.off, AT + 8);
	vmdk_descriptor_done(&d);
}
END_TEST

/* As QEMU leaves it when a CID has fewer digits than the one before. */
START_TEST(the_end_may_be_there_twice)
{
	static const char end[] = "ddb.adapterType = \"ide\"\n";
	struct vmdk_descriptor d;
	char *copy = calloc(1, 101);
	size_t rest = (size_t)_i, n;

	strcpy(copy, "CID=1\n");
	strcat(copy, end);
	n = strlen(copy);
	strcpy(copy + n + 1, end + strlen(end) - rest);
	ck_assert_int_eq(vmdk_descriptor_parse(&d, copy, 100, AT, &err),
			 rest < 8 ? 0 : -EBADMSG);
	error_clear(&err);
	vmdk_descriptor_done(&d);
}
END_TEST

static const struct {
	const char *text, *lacks;
} keys[] = {
	{ "version=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\n", NULL },
	{ "vesion=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\n", "version" },
	{ "version=1\nCIE=1\nparentCID=2\ncreateType=\"vmfs\"\n", "CID" },
	{ "version=1\nCID=1\nparantCID=2\ncreateType=\"vmfs\"\n", "parentCID" },
	{ "version=1\nCID=1\nparentCID=2\ncreatetYpo=\"vmfs\"\n",
	  "createType" },
	{ "", "version" },
	{ "version=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\nRW 1 ZERO",
	  "cut off" },
	{ "version=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\nddb.x=\"1\"\n"
	  "RW 1 ZERO",
	  NULL },
};

START_TEST(what_every_descriptor_has_must_be_there)
{
	struct vmdk_descriptor d;

	must(parse(&d, keys[_i].text), err);
	if (!keys[_i].lacks) {
		must(vmdk_descriptor_check(&d, &err), err);
	} else {
		ck_assert_int_eq(vmdk_descriptor_check(&d, &err), -EBADMSG);
		unit_says(&err, keys[_i].lacks);
	}
	vmdk_descriptor_done(&d);
}
END_TEST

static const struct {
	const char *text;
	int code;
	uint64_t off;
	const char *says;
} refused[] = {
	{ "CID=\n", -EBADMSG, AT, "CID" },
	{ "CID=xyz\n", -EBADMSG, AT, "\"xyz\"" },
	{ "\nCID=123456789\n", -EBADMSG, AT + 1, "32 bits" },
	{ "CID=-1\n", -EBADMSG, AT, "CID" },
	{ "parentCID=1 2\n", -EBADMSG, AT, "parentCID" },
	{ "#\n\n  RW x ZERO\n", -EBADMSG, AT + 5, "number of sectors" },
	{ "RW 18446744073709551616 ZERO\n", -EBADMSG, AT, "number" },
	{ "RW -5 ZERO\n", -EBADMSG, AT, "number" },
	{ "RW 5\n", -EBADMSG, AT, "no type" },
	{ "RW 5 FLAT\n", -EBADMSG, AT, "names no file" },
	{ "RW 5 FLAT \"\"\n", -EBADMSG, AT, "names no file" },
	{ "RW 5 FLAT \"a\n", -EBADMSG, AT, "names no file" },
	{ "RW 5 FLAT \"a\" -1\n", -EBADMSG, AT, "offset" },
	{ "RW 5 VMFSRDM \"a\"\n", -ENOTSUP, AT, "VMFSRDM" },
	{ "RW 5 VMFSRAW \"a\"\n", -ENOTSUP, AT, "VMFSRAW" },
	{ "encryptionKeys=\"x\"\n", -ENOTSUP, AT, "encrypted" },
	{ "SW 5 ZERO\n", -EBADMSG, AT, "no extent" },
	{ "SW 5 FLAT \"a=b\" 0\n", -EBADMSG, AT, "no extent" },
	{ "RW`5 FLAT \"a\" 0\n", -EBADMSG, AT, "no extent" },
	{ "no pair\n", -EBADMSG, AT, "no key" },
	{ "=\n", -EBADMSG, AT, "no key" },
	{ "# Extent description*RW 5 ZERO\n", -EBADMSG, AT, "in the comment" },
};

START_TEST(a_wrong_line_is_told_with_its_place)
{
	struct vmdk_descriptor d;

	ck_assert_int_eq(parse(&d, refused[_i].text), refused[_i].code);
	ck_assert_uint_eq(err.off, refused[_i].off);
	unit_says(&err, refused[_i].says);
	vmdk_descriptor_done(&d);
}
END_TEST

START_TEST(extents_have_a_limit)
{
	static const char line[] = "RW 1 ZERO\n";
	size_t n = VMDK_EXTENTS_MAX + 1, i;
	struct vmdk_descriptor d;
	char *text = malloc(n * 10 + 1);

	for (i = 0; i < n; i++)
		memcpy(text + 10 * i, line, 10);
	ck_assert_int_eq(vmdk_descriptor_parse(&d, text, n * 10, 0, &err),
			 -EFBIG);
	ck_assert_uint_eq(d.n_lines, VMDK_EXTENTS_MAX);
	vmdk_descriptor_done(&d);
}
END_TEST

static const char fillers[] = { '\n', '\r', ' ', '"', '#', '=', 'x' };

START_TEST(a_million_bytes_of_anything_take_no_time)
{
	size_t len = VMDK_DESCRIPTOR_MAX;
	char *text = malloc(len + 1);
	struct vmdk_descriptor d;
	clock_t start = clock();

	memset(text, fillers[_i], len);
	memcpy(text, "CID=1\nRW 5 FLAT ", 16);
	vmdk_descriptor_parse(&d, text, len, 0, &err);
	ck_assert_int_lt(clock() - start, CLOCKS_PER_SEC);
	vmdk_descriptor_done(&d);
}
END_TEST

static const struct {
	const char *head;
	bool is;
} heads[] = {
	{ "# Disk DescriptorFile\n", true },
	{ "\n\n#x\n  # disk descriptorfile\r\n", true },
	{ "\xef\xbb\xbf# Disk DescriptorFile", true },
	{ "version=1\nCID=5\n", true },
	{ "# a comment\nversion = 1\r\nCID=5\n", true },
	{ "version=1\nname=x\n", false },
	{ "versions=1\nCID=5\n", false },
	{ "# Disk Descriptor\n", false },
	{ "CID=5\nversion=1\n", false },
	{ "", false },
	{ "\n\n\n", false },
};

START_TEST(a_descriptor_is_known_by_its_head)
{
	const char *head = heads[_i].head;

	ck_assert_int_eq(
		vmdk_is_descriptor((const uint8_t *)head, strlen(head)),
		heads[_i].is);
}
END_TEST

static const struct {
	const char *encoding, *name, *utf8;
} names[] = {
	{ "windows-1252", "K\xe4se", "K\xc3\xa4se" },
	{ "WINDOWS-1252", "K\xe4se", "K\xc3\xa4se" },
	{ "GBK", "\xd6\xd0", "\xe4\xb8\xad" },
	{ "windows-1252", "plain", NULL },
	{ "UTF-8", "K\xc3\xa4se", NULL },
	{ "../../x//TRANSLIT", "K\xe4se", NULL },
	{ "GBK", "\xff\xff", NULL }, /* not of that encoding */
	{ NULL, "K\xe4se", NULL },
};

START_TEST(names_in_a_declared_encoding_become_utf8)
{
	struct vmdk_descriptor d = { .encoding = names[_i].encoding };
	CLEANUP(freep) char *utf8 = vmdk_name_to_utf8(&d, names[_i].name);

	ck_assert_pstr_eq(utf8, names[_i].utf8);
}
END_TEST

static void add_tests(TCase *tc)
{
	LOOP(tc, every_spelling_says_the_same, spellings);
	tcase_add_test(tc, names_may_hold_what_else_has_a_meaning);
	tcase_add_test(tc, the_text_ends_at_a_nul);
	tcase_add_test(tc, a_nul_that_stands_for_a_byte_is_damage);
	tcase_add_loop_test(tc, the_end_may_be_there_twice, 0, 9);
	LOOP(tc, what_every_descriptor_has_must_be_there, keys);
	LOOP(tc, a_wrong_line_is_told_with_its_place, refused);
	tcase_add_test(tc, extents_have_a_limit);
	LOOP(tc, a_million_bytes_of_anything_take_no_time, fillers);
	LOOP(tc, a_descriptor_is_known_by_its_head, heads);
	LOOP(tc, names_in_a_declared_encoding_become_utf8, names);
}

int main(void)
{
	return unit_main("vmdk-descriptor", add_tests);
}
