/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "iouring/sources/credentials.h"
#include "tests/lib/unit.h"

static const struct {
	const char *file;
	bool named;
	const char *bearer, *login;
	const char *says; /* NULL: it is right */
} files[] = {
	{ "bearer one\n", true, "one", NULL, NULL },
	{ "  bearer\tone  \r\n", true, "one", NULL, NULL },
	{ "bearer one", false, NULL, NULL, NULL },
	{ "basic me:it\n", true, NULL, "me:it", NULL },
	{ "# bearer two\n\n \nbearer one\n", true, "one", NULL, NULL },
	{ "http://h/ bearer one\n", false, "one", NULL, NULL },
	{ "http://g/ bearer one\n", true, NULL, NULL, NULL },
	{ "http://h/d/ bearer deep\nhttp://h/ bearer one\nbearer any\n", true,
	  "deep", NULL, NULL },
	{ "http://h/ bearer one\nhttp://h/d basic me:it\n", false, NULL,
	  "me:it", NULL },
	{ "http://h/do bearer one\n", false, NULL, NULL, NULL },
	{ "bearer\n", true, NULL, NULL, "a line is not" },
	{ "tokens one\n", true, NULL, NULL, "a line is not" },
	{ "token one\nhttp://h/d bearer one", true, "one", NULL, NULL },
	{ "bearer one\nhttp://h/d token two", true, NULL, NULL, NULL },
	{ "bearer one\nhttp://h/d s3 a:b", true, NULL, NULL, NULL },
	{ "s3 a\n", true, NULL, NULL, "a line is not" },
	{ "s3 a:b c\n", true, NULL, NULL, "a line is not" },
	{ "s3 a:b region=\n", true, NULL, NULL, "a line is not" },
	{ "bearer a endpoint=http://h\n", true, NULL, NULL, "a line is not" },
	{ "basic me\n", true, NULL, NULL, "a line is not" },
	{ "http://h/ bearer one two\n", true, NULL, NULL, "a line is not" },
	{ "ftp://h/ bearer one\n", true, NULL, NULL, "not a URL" },
};

START_TEST(the_nearest_line_counts)
{
	const char *path = unit_path("credentials");
	CLEANUP(credentials_done) struct credentials c = { 0 };
	CLEANUP(url_done) struct url u = { 0 };
	struct error err = { 0 };
	int r;

	must(url_parse("http://h/d/x", &u, &err), err);
	unit_write(path, files[_i].file, strlen(files[_i].file));
	r = credentials_read(path, &u, files[_i].named, &c, &err);
	ck_assert_int_eq(r, files[_i].says ? -EINVAL : 0);
	if (r < 0)
		unit_says(&err, files[_i].says);
	ck_assert_pstr_eq(c.bearer, files[_i].bearer);
	ck_assert_pstr_eq(c.login, files[_i].login);
}
END_TEST

START_TEST(a_file_that_is_none_is_refused)
{
	static char much[CREDENTIALS_BYTES_MAX + 1];
	const char *path = unit_path("credentials");
	CLEANUP(url_done) struct url u = { 0 };
	struct credentials c;
	struct error err = { 0 };

	must(url_parse("http://h/", &u, &err), err);
	ck_assert_int_eq(
		credentials_read(unit_path("none"), &u, true, &c, &err),
		-EINVAL);
	error_clear(&err);
	ck_assert_int_eq(credentials_read("/dev/null", &u, true, &c, &err),
			 -EINVAL);
	unit_says(&err, "not a regular file");
	error_clear(&err);
	memset(much, '\n', sizeof(much));
	unit_write(path, much, sizeof(much));
	ck_assert_int_eq(credentials_read(path, &u, true, &c, &err), -EINVAL);
	unit_says(&err, "the limit is 65536");
}
END_TEST

START_TEST(what_a_store_needs_is_taken)
{
	static const char file[] = "swift://C/ token t endpoint=http://h/v1\n"
				   "s3://b/d s3 a:b:c style=host region=r "
				   "endpoint=https://e\n"
				   "glance:// keystone u:p auth=http://k/v3 "
				   "project=x domain=y\n";
	const char *path = unit_path("credentials");
	CLEANUP(credentials_done) struct credentials c = { 0 }, d = { 0 };
	CLEANUP(url_done) struct url s3 = { 0 };
	CLEANUP(url_done) struct url swift = { 0 };
	CLEANUP(url_done) struct url glance = { 0 };
	struct error err = { 0 };

	unit_write(path, file, strlen(file));
	must(url_parse("s3://b/d/x", &s3, &err), err);
	must(credentials_read(path, &s3, true, &c, &err), err);
	ck_assert_str_eq(c.keys, "a:b:c");
	ck_assert_str_eq(c.endpoint, "https://e");
	ck_assert_str_eq(c.region, "r");
	ck_assert(c.by_host);
	must(url_parse("swift://C/x", &swift, &err), err);
	must(credentials_read(path, &swift, true, &d, &err), err);
	ck_assert_str_eq(d.token, "t");
	ck_assert_str_eq(d.endpoint, "http://h/v1");
	ck_assert(!d.by_host && !credentials_are_same(&c, &d));
	credentials_done(&d);
	must(credentials_copy(&c, &d), err);
	ck_assert(d.by_host && credentials_are_same(&c, &d));
	credentials_done(&c);
	must(url_parse("glance://id", &glance, &err), err);
	must(credentials_read(path, &glance, false, &c, &err), err);
	ck_assert_str_eq(c.keystone, "u:p");
	ck_assert_str_eq(c.auth, "http://k/v3");
	ck_assert_str_eq(c.project, "x");
	ck_assert_str_eq(c.domain, "y");
	/* A token that it gave says nothing more of who we are. */
	credentials_done(&d);
	must(credentials_copy(&c, &d), err);
	d.token = strdup("t");
	ck_assert(credentials_are_same(&c, &d));
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_a_store_needs_is_taken);
	LOOP(tc, the_nearest_line_counts, files);
	tcase_add_test(tc, a_file_that_is_none_is_refused);
}

int main(void)
{
	return unit_main("credentials", add);
}
