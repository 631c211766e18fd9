/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/backing-name.h"
#include "tests/lib/unit.h"

static const char *prefixes[] = { "json:", "file:", "nbd:", "ftp:" };
static const char *urls[] = { "http://h/d/" };
static const struct allow all = {
	.prefixes = prefixes, .n_prefixes = 4, .urls = urls, .n_urls = 1
};
static const struct allow none;
static struct error err;

static const struct {
	const char *name, *declared;
	const char *path, *format;
	bool window;
	uint64_t off, bytes;
} good[] = {
	{ "base.qcow2", NULL, "base.qcow2", NULL },
	{ "base.qcow2", "qcow2", "base.qcow2", "qcow2" },
	{ "/abs/base", "raw", "/abs/base", "raw" },
	{ "a b:c", NULL, "a b:c", NULL }, /* a blank is in no prefix */
	{ "./json:x", NULL, "./json:x", NULL },
	{ "1:x", NULL, "1:x", NULL },
	{ "file:base.raw", "raw", "base.raw", "raw" },
	{ "http://h/d/b", "raw", "http://h/d/b", "raw" },
	{ "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"https\","
	  "\"url\":\"http://h/d/b\"}}",
	  NULL, "http://h/d/b", "qcow2" },
	{ "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
	  "\"filename\":\"b\"}}",
	  NULL, "b", "qcow2" },
	{ "json:{\"driver\":\"qcow2\",\"file.driver\":\"file\","
	  "\"file.filename\":\"b\"}",
	  NULL, "b", "qcow2" },
	/* The name's own word counts, not the header's. */
	{ "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\","
	  "\"filename\":\"b\"}}",
	  "qcow2", "b", "raw" },
	{ "json:{\"driver\":\"file\",\"filename\":\"b\"}", NULL, "b", NULL },
	{ "json:{\"driver\":\"raw\",\"offset\":512,\"size\":\"1024\","
	  "\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}",
	  NULL, "b", "raw", true, 512, 1024 },
	{ "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\","
	  "\"offset\":\"7\",\"file\":{\"driver\":\"file\",\"filename\":"
	  "\"b\"}}}",
	  NULL, "b", "qcow2", true, 7, UINT64_MAX },
	/* Raw around a format is that format. */
	{ "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"qcow2\",\"file\":"
	  "{\"driver\":\"file\",\"filename\":\"b\"}}}",
	  NULL, "b", "qcow2" },
};

START_TEST(a_name_is_taken_apart)
{
	CLEANUP(backing_name_done) struct backing_name n = { 0 };

	must(backing_name_parse(&n, good[_i].name, good[_i].declared, &all,
				&err),
	     err);
	ck_assert_str_eq(n.path, good[_i].path);
	ck_assert_pstr_eq(n.format, good[_i].format);
	ck_assert_int_eq(n.window, good[_i].window);
	if (n.window) {
		ck_assert_uint_eq(n.off, good[_i].off);
		ck_assert_uint_eq(n.bytes, good[_i].bytes);
	}
}
END_TEST

/* All are permitted: what is refused is what we do not understand. */
static const struct {
	const char *name, *says;
} bad[] = {
	{ "nbd:localhost:1", "nbd:" },
	{ "ftp://host/x", "ftp:" },
	{ "json:", "JSON" },
	{ "json:{", "JSON" },
	{ "json:[]", "JSON" },
	{ "json:\"x\"", "JSON" },
	{ "json:{}", "no file name" },
	{ "json:{\"driver\":\"qcow2\",\"file\":\"node\"}", "no file name" },
	{ "json:{\"driver\":\"nbd\",\"host\":\"x\"}", "no file name" },
	{ "json:{\"driver\":\"host_device\",\"filename\":\"/dev/sda\"}",
	  "no file name" },
	{ "json:{\"driver\":\"qcow2\",\"driver\":\"raw\"}", "JSON" },
	{ "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"vmdk\",\"file\":"
	  "{\"driver\":\"file\",\"filename\":\"b\"}}}",
	  "two formats" },
	{ "json:{\"driver\":\"raw\",\"offset\":-1,\"file\":{\"driver\":"
	  "\"file\",\"filename\":\"b\"}}",
	  "not a number" },
	{ "json:{\"driver\":\"raw\",\"size\":\"12x\",\"file\":{\"driver\":"
	  "\"file\",\"filename\":\"b\"}}",
	  "not a number" },
	{ "json:{\"driver\":\"raw\",\"size\":\"99999999999999999999\","
	  "\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}",
	  "not a number" },
	{ "json:{\"driver\":\"raw\",\"offset\":1,\"file\":{\"driver\":\"raw\","
	  "\"offset\":2,\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}}",
	  "more than one" },
	/* The window is of the disk in the qcow2, not of the file. */
	{ "json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":"
	  "\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}}",
	  "window" },
};

START_TEST(what_is_not_understood_is_refused)
{
	struct backing_name n = { 0 };

	ck_assert_int_eq(backing_name_parse(&n, bad[_i].name, NULL, &all, &err),
			 -ENOTSUP);
	unit_says(&err, bad[_i].says);
	ck_assert_ptr_null(n.path);
	ck_assert_ptr_null(n.format);
}
END_TEST

static const char *const pseudo[] = { "json:{}",
				      "file:x",
				      "nbd:x",
				      "http://x",
				      "nbd+unix:///x",
				      "fat:rw:/tmp",
				      "a:",
				      "Json:{}",
				      "jso:x",
				      "jsonx:x",
				      "json:{\"a\":\"\x1b\"}" };

START_TEST(a_pseudo_name_needs_permission)
{
	struct backing_name n = { 0 };

	ck_assert_int_eq(backing_name_parse(&n, pseudo[_i], NULL, &none, &err),
			 -EPERM);
	/* What is of no use is not advised. */
	unit_says(&err, !strncmp(pseudo[_i], "json:", 5) ||
					strstr(pseudo[_i], "://") ||
					!strncmp(pseudo[_i], "file:", 5)
				? "allow="
				: "not supported");
	ck_assert_ptr_null(n.path);
}
END_TEST

START_TEST(permission_for_one_prefix_is_for_no_other)
{
	static const char *one[] = { "file:" };
	const struct allow a = { .prefixes = one, .n_prefixes = 1 };
	CLEANUP(backing_name_done) struct backing_name n = { 0 };

	ck_assert_int_eq(backing_name_parse(&n, "json:{}", NULL, &a, NULL),
			 -EPERM);
	ck_assert_int_eq(backing_name_parse(&n, "fil:x", NULL, &a, NULL),
			 -EPERM);
	must(backing_name_parse(&n, "file:x", NULL, &a, &err), err);
}
END_TEST

/* A file of 100 bytes; what is left of it, or -1: refused. */
static const struct {
	struct backing_name name;
	int bytes;
} windows[] = {
	{ { .window = false, .off = 50 }, 100 },
	{ { .window = true, .off = 10, .bytes = 20 }, 20 },
	{ { .window = true, .off = 10, .bytes = UINT64_MAX }, 90 },
	{ { .window = true, .off = 100, .bytes = UINT64_MAX }, 0 },
	{ { .window = true, .off = 0, .bytes = 100 }, 100 },
	{ { .window = true, .off = 101, .bytes = UINT64_MAX }, -1 },
	{ { .window = true, .off = 10, .bytes = 91 }, -1 },
	{ { .window = true, .off = UINT64_MAX, .bytes = 2 }, -1 },
};

START_TEST(a_window_lies_inside_its_file)
{
	static uint8_t data[100], got[100];
	CLEANUP(source_unrefp) struct source *s = NULL;
	int r;

	unit_fill(data, sizeof(data), 1);
	must(memory_source_new(data, sizeof(data), &s, &err), err);
	r = backing_name_window(&windows[_i].name, &s, &err);
	if (windows[_i].bytes < 0) {
		ck_assert_int_eq(r, -EBADMSG);
		ck_assert_uint_eq(s->bytes, 100);
		return;
	}
	must(r, err);
	ck_assert_uint_eq(s->bytes, windows[_i].bytes);
	must(source_read(s, got, s->bytes, 0, &err), err);
	ck_assert_int_eq(
		memcmp(got,
		       data + (windows[_i].name.window ? windows[_i].name.off
						       : 0),
		       s->bytes),
		0);
}
END_TEST

static const char *const files[] = {
	"base.qcow2",
	"/abs/base",
	"a b:c",
	"json:{}",
	"file:foo.qcow2",
	"colon:b",
	"-dash",
	"100%41",
	"new\nline",
	"gr\xc3\xbc\xc3\x9f"
	"e",
	"./x",
	"u:b/y",
	"s/u:b",
	":",
	"nbd:h:1",
	"1:x",
	"file:/etc/passwd",
	"..",
	"x:",
	"~",
};

/* By us: the file of that name and no other. By QEMU, too: no protocol. */
START_TEST(a_name_that_is_written_is_read_as_it_was_meant)
{
	CLEANUP(backing_name_done) struct backing_name n = { 0 };
	CLEANUP(freep) char *name = NULL, *again = NULL;
	const char *path;

	must(backing_name_write(files[_i], &name, &err), err);
	must(backing_name_parse(&n, name, "raw", &all, &err), err);
	path = n.path;
	if (!strncmp(path, "./", 2) && strncmp(files[_i], "./", 2) != 0)
		path += 2;
	ck_assert_str_eq(path, files[_i]);
	ck_assert_int_ne(name[strcspn(name, ":/")], ':');
	/* What is written once need not be written again. */
	must(backing_name_write(name, &again, &err), err);
	ck_assert_str_eq(name, again);
}
END_TEST

START_TEST(a_name_that_does_not_fit_is_refused)
{
	char name[1025];
	char *ret;

	ck_assert_int_eq(backing_name_write("", &ret, &err), -EINVAL);
	error_clear(&err);
	memset(name, 'x', sizeof(name));
	name[1023] = '\0';
	must(backing_name_write(name, &ret, &err), err);
	free(ret);
	/* With what has to be put in front. */
	name[5] = ':';
	ck_assert_int_eq(backing_name_write(name, &ret, &err), -EINVAL);
	unit_says(&err, "over the limit of 1023");
	error_clear(&err);
	name[5] = name[1023] = 'x';
	name[1024] = '\0';
	ck_assert_int_eq(backing_name_write(name, &ret, &err), -EINVAL);
	error_clear(&err);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_name_that_is_written_is_read_as_it_was_meant, files);
	tcase_add_test(tc, a_name_that_does_not_fit_is_refused);
	LOOP(tc, a_name_is_taken_apart, good);
	LOOP(tc, what_is_not_understood_is_refused, bad);
	LOOP(tc, a_pseudo_name_needs_permission, pseudo);
	tcase_add_test(tc, permission_for_one_prefix_is_for_no_other);
	LOOP(tc, a_window_lies_inside_its_file, windows);
}

int main(void)
{
	return unit_main("backing-name", add);
}
