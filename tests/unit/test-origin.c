/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/http/origin.h"
#include "tests/lib/unit.h"

static const struct {
	const char *host;
	const char *names;
	bool ok;
} hosts[] = {
	{ "127.0.0.1:9292", NULL, true },
	{ "127.1.2.3", NULL, true },
	{ "localhost:9292", NULL, true },
	{ "LocalHost.", NULL, true },
	{ "a.localhost", NULL, true },
	{ "[::1]:9292", NULL, true },
	{ "[::1]", NULL, true },
	{ "images.example:80", "x,images.example", true },
	{ "IMAGES.example", "images.example", true },
	{ "images.example.", "images.example,y", true },
	{ "", NULL, false },
	{ "evil.example", NULL, false },
	{ "localhost.evil.example", NULL, false },
	{ "notlocalhost", NULL, false },
	{ "127.0.0.1.evil.example", NULL, false },
	{ "128.0.0.1", NULL, false },
	{ "[::2]", NULL, false },
	{ "images.example", "images.example.org", false },
	{ "images.example.org", "images.example", false },
	{ "example", ",,", false },
};

START_TEST(a_host_is_this_machine_or_named)
{
	ck_assert_msg(origin_host_ok(hosts[_i].host, hosts[_i].names) ==
			      hosts[_i].ok,
		      "%s", hosts[_i].host);
}
END_TEST

static const struct {
	const char *origin, *host;
	bool same;
} origins[] = {
	{ "http://127.0.0.1:9292", "127.0.0.1:9292", true },
	{ "http://[::1]:9292", "[::1]:9292", true },
	{ "https://Glance.example", "glance.example", true },
	{ "https://glance.example", "glance.example:443", true },
	{ "http://glance.example:80", "glance.example", true },
	{ "null", "127.0.0.1:9292", false },
	{ "", "127.0.0.1:9292", false },
	{ "http://127.0.0.1", "127.0.0.1:9292", false },
	{ "http://127.0.0.1:8080", "127.0.0.1:9292", false },
	{ "http://evil.example", "127.0.0.1:9292", false },
	{ "https://glance.example", "glance.example:80", false },
	{ "http://glance.example.evil", "glance.example", false },
	{ "file://", "", false },
};

START_TEST(an_origin_is_the_host_or_another)
{
	ck_assert_msg(origin_is_host(origins[_i].origin, origins[_i].host) ==
			      origins[_i].same,
		      "%s, %s", origins[_i].origin, origins[_i].host);
}
END_TEST

START_TEST(what_no_browser_sends_is_let_through)
{
	const struct origin_rules rules = { .check_host = true };
	const struct origin_rules any = { 0 };
	struct error err = { 0 };

	must(origin_check(&rules, NULL, NULL, &err), err);
	must(origin_check(&rules, "localhost", NULL, &err), err);
	must(origin_check(&any, "any.example", NULL, &err), err);
	must(origin_check(&any, "any.example", "http://any.example", &err),
	     err);
	ck_assert_int_eq(origin_check(&any, "any.example", "null", &err),
			 -EPERM);
	unit_says(&err, "Origin");
	error_clear(&err);
	ck_assert_int_eq(origin_check(&rules, "any.example", NULL, &err),
			 -EPERM);
	unit_says(&err, "glance-hosts");
	error_clear(&err);
	ck_assert_int_eq(origin_check(&any, NULL, "http://a", &err), -EPERM);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_host_is_this_machine_or_named, hosts);
	LOOP(tc, an_origin_is_the_host_or_another, origins);
	tcase_add_test(tc, what_no_browser_sends_is_let_through);
}

int main(void)
{
	return unit_main("origin", add);
}
