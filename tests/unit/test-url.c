/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "iouring/sources/url.h"
#include "tests/lib/unit.h"

static struct url parsed(const char *text)
{
	struct error err = { 0 };
	struct url u = { 0 };

	must(url_parse(text, &u, &err), err);
	return u;
}

static const struct {
	const char *text, *scheme, *host, *login;
	unsigned int port;
	const char *path, *query, *asked;
} good[] = {
	{ "http://a", "http", "a", NULL, 80, "/", NULL, "http://a/" },
	{ "HTTP://A.Example:8080/Path?q=1#f", "http", "a.example", NULL, 8080,
	  "/Path", "q=1", "http://a.example:8080/Path?q=1" },
	{ "https://me:p%40ss@h:443/x", "https", "h", "me:p@ss", 443, "/x", NULL,
	  "https://h/x" },
	/* What is before the last '@' is the login. */
	{ "http://a@b@c/x", "http", "c", "a@b", 80, "/x", NULL, "http://c/x" },
	{ "http://[::1]:81/", "http", "[::1]", NULL, 81, "/", NULL,
	  "http://[::1]:81/" },
	{ "http://h?a@b", "http", "h", NULL, 80, "/", "a@b", "http://h/?a@b" },
	{ "s3://My.Bucket/a/b", "s3", "My.Bucket", NULL, 0, "/a/b", NULL,
	  "s3://My.Bucket/a/b" },
	{ "glance://4f-1", "glance", "4f-1", NULL, 0, "/", NULL,
	  "glance://4f-1/" },
	{ "http://h:/x", "http", "h", NULL, 80, "/x", NULL, "http://h/x" },
};

START_TEST(a_url_is_taken_apart)
{
	CLEANUP(url_done) struct url u = parsed(good[_i].text);
	CLEANUP(freep) char *text = url_text(&u);

	ck_assert_str_eq(u.scheme, good[_i].scheme);
	ck_assert_str_eq(u.host, good[_i].host);
	ck_assert_pstr_eq(u.login, good[_i].login);
	ck_assert_uint_eq(u.port, good[_i].port);
	ck_assert_str_eq(u.path, good[_i].path);
	ck_assert_pstr_eq(u.query, good[_i].query);
	ck_assert_str_eq(text, good[_i].asked);
}
END_TEST

static const char *const bad[] = {
	"",
	"a",
	"ftp://a/",
	"file:///etc/passwd",
	"http:/a",
	"http://",
	"http:///x",
	"http://a b/",
	"http://a/\r\nX: y",
	"http://a/\x7f",
	"http://a:0/",
	"http://a:65536/",
	"http://a:8x/",
	"http://a:-1/",
	"http://[::1/",
	"http://[::1]x/",
	"http://a%2fb/",
	"http://a\\b/",
};

START_TEST(what_is_no_url_is_refused)
{
	struct error err = { 0 };
	struct url u;

	ck_assert_msg(url_parse(bad[_i], &u, &err) == -EINVAL, "%s", bad[_i]);
}
END_TEST

START_TEST(a_url_has_a_length)
{
	static char text[URL_BYTES_MAX + 2];
	struct error err = { 0 };
	struct url u;

	memset(text, 'x', URL_BYTES_MAX);
	memcpy(text, "http://a/", 9);
	must(url_parse(text, &u, &err), err);
	url_done(&u);
	text[URL_BYTES_MAX] = 'x';
	ck_assert_int_eq(url_parse(text, &u, &err), -EINVAL);
}
END_TEST

static const struct {
	const char *url, *prefix;
	bool is;
} beneath[] = {
	{ "http://h/a/b", "http://h/a", true },
	{ "http://h/a/b", "http://h/a/", true },
	{ "http://h/a", "http://h/a", true },
	{ "http://H:80/a?x", "http://h/", true },
	{ "http://h/ab", "http://h/a", false },
	{ "http://h/a", "http://h/a/", false },
	{ "https://h/a", "http://h/", false },
	{ "http://h:81/a", "http://h/", false },
	{ "http://h.evil/a", "http://h/", false },
	{ "http://h/a/../b", "http://h/a", false },
	{ "http://h/a/..", "http://h/a", false },
	{ "http://h/a/./b", "http://h/a", false },
	{ "http://h/a/..;/b", "http://h/a", false },
	{ "http://h/a/%2e%2e/b", "http://h/a", false },
	{ "http://h/a/%2E./b", "http://h/a", false },
	{ "http://h/a%2f../b", "http://h/a", false },
	{ "http://h/a/\\..\\b", "http://h/a", false },
	{ "http://h/a/..b/c..", "http://h/a", true },
};

START_TEST(what_lies_beneath_is_told_by_servers_and_folders)
{
	CLEANUP(url_done) struct url u = parsed(beneath[_i].url);
	CLEANUP(url_done) struct url p = parsed(beneath[_i].prefix);

	ck_assert_msg(url_is_beneath(&u, &p) == beneath[_i].is, "%s",
		      beneath[_i].url);
}
END_TEST

static const struct {
	const char *url, *shown, *name;
} secrets[] = {
	{ "http://me:secret@h/a", "http://h/a", "http://h/a" },
	{ "http://h/a?sig=secret", "http://h/a?...", "http://h/a" },
	{ "http://h/a?id=7&X-Amz-Signature=secret&b", "http://h/a?...",
	  "http://h/a?id=7&b" },
	{ "http://h/a?Signature=x&Expires=3&signature=y", "http://h/a?...",
	  "http://h/a?signature=y" },
	{ "http://h/a#secret", "http://h/a", "http://h/a" },
	{ "http://h/a@b?c@d", "http://h/a@b?...", "http://h/a@b?c@d" },
};

static const struct {
	const char *name, *shown;
} named[] = {
	{ "http://h/a", "http://h/a" },
	{ "http://h/a?", "http://h/a?" },
	{ "http://h/a?id=7&token=secret&versionId=b",
	  "http://h/a?id=7&token=...&versionId=b" },
	{ "http://h/a?secret&secret&", "http://h/a?...&...&" },
	{ "http://h/a?x&id&ids=1&=secret", "http://h/a?...&id&ids=...&=..." },
	{ "http://h/a?token=id=7", "http://h/a?token=..." },
};

START_TEST(what_may_be_a_secret_in_a_name_is_not_shown)
{
	CLEANUP(freep) char *shown = url_name_shown(named[_i].name);

	ck_assert_str_eq(shown, named[_i].shown);
}
END_TEST

START_TEST(secrets_are_neither_shown_nor_part_of_the_name)
{
	CLEANUP(url_done) struct url u = parsed(secrets[_i].url);
	CLEANUP(freep) char *shown = url_for_people(secrets[_i].url);
	CLEANUP(freep) char *name = url_name(&u);

	ck_assert_str_eq(shown, secrets[_i].shown);
	ck_assert_str_eq(name, secrets[_i].name);
}
END_TEST

static const struct {
	const char *name, *url; /* NULL: refused */
} joins[] = {
	{ "b", "http://h:8/d/b" },
	{ "./b", "http://h:8/d/b" },
	{ "s/b.img", "http://h:8/d/s/b.img" },
	{ "a b%#?", "http://h:8/d/a%20b%25%23%3F" },
	{ "//x/b", NULL },
	{ "/b", NULL },
	{ "../b", NULL },
	{ "s/../../b", NULL },
	{ "..\\b", NULL },
	{ "%2e%2e/b", NULL },
	{ "", NULL },
	{ "./", NULL },
	{ "s/", NULL },
	{ "http://x/b", "http://h:8/d/http://x/b" },
};

START_TEST(names_are_joined_inside_the_folder)
{
	CLEANUP(url_done) struct url base = parsed("http://me:x@h:8/d/a?q");
	CLEANUP(freep) char *url = NULL;
	int r = url_join(&base, joins[_i].name, &url);

	ck_assert_int_eq(r, joins[_i].url ? 0 : -EXDEV);
	ck_assert_pstr_eq(url, joins[_i].url);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_url_is_taken_apart, good);
	LOOP(tc, what_is_no_url_is_refused, bad);
	tcase_add_test(tc, a_url_has_a_length);
	LOOP(tc, what_lies_beneath_is_told_by_servers_and_folders, beneath);
	LOOP(tc, secrets_are_neither_shown_nor_part_of_the_name, secrets);
	LOOP(tc, what_may_be_a_secret_in_a_name_is_not_shown, named);
	LOOP(tc, names_are_joined_inside_the_folder, joins);
}

int main(void)
{
	return unit_main("url", add);
}
