/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/fetch.h"
#include "tests/lib/unit.h"

static struct fetch_rules *rules(const char *hosts, const char *ports,
				 const char *nets)
{
	struct fetch_rules *r = NULL;
	struct error err = { 0 };

	must(fetch_rules_new(hosts, ports, nets, &r, &err), err);
	return r;
}

static const struct {
	const char *address;
	bool ok;
} addresses[] = {
	{ "8.8.8.8", true },
	{ "2a00:1450:4001::1", true },
	{ "::ffff:8.8.8.8", true },
	{ "172.15.255.255", true },
	{ "172.32.0.0", true },
	{ "0.0.0.0", false },
	{ "10.1.2.3", false },
	{ "100.64.0.1", false },
	{ "127.0.0.1", false },
	{ "127.255.0.1", false },
	{ "169.254.169.254", false },
	{ "172.16.0.0", false },
	{ "172.31.255.255", false },
	{ "192.168.0.1", false },
	{ "198.19.0.1", false },
	{ "224.0.0.1", false },
	{ "255.255.255.255", false },
	{ "::", false },
	{ "::1", false },
	{ "::127.0.0.1", false },
	{ "::ffff:127.0.0.1", false },
	{ "::ffff:10.0.0.1", false },
	{ "64:ff9b::7f00:1", false },
	{ "2002:7f00:1::", false },
	{ "2001:db8::1", false },
	{ "fc00::1", false },
	{ "fd12::1", false },
	{ "fe80::1", false },
	{ "ff02::1", false },
};

START_TEST(only_public_addresses_are_reached)
{
	struct fetch_rules *r = rules(NULL, NULL, NULL);

	ck_assert_msg(fetch_address_ok(r, addresses[_i].address) ==
			      addresses[_i].ok,
		      "%s", addresses[_i].address);
	fetch_rules_free(r);
}
END_TEST

START_TEST(nets_that_are_listed_are_reached)
{
	struct fetch_rules *r =
		rules(NULL, NULL, "10.1.0.0/17, fd00::/8 ,127.0.0.1");

	ck_assert(fetch_address_ok(r, "10.1.127.255"));
	ck_assert(!fetch_address_ok(r, "10.1.128.0"));
	ck_assert(fetch_address_ok(r, "fdff::1"));
	ck_assert(!fetch_address_ok(r, "fc00::1"));
	ck_assert(fetch_address_ok(r, "127.0.0.1"));
	ck_assert(!fetch_address_ok(r, "127.0.0.2"));
	fetch_rules_free(r);
}
END_TEST

static const struct {
	const char *url;
	const char *says; /* NULL: it passes */
} urls[] = {
	{ "http://example.org/a", NULL },
	{ "HTTPS://EXAMPLE.org/a", NULL },
	{ "http://example.org:8080/a", NULL },
	{ "http://example.org:22/a", "port 22 is not in import-ports" },
	{ "http://example.org:99999/a", "not an absolute URL" },
	{ "http://example.com/a", "host example.com is not in import-hosts" },
	{ "http://example.org@example.com/", "host example.com" },
	{ "http://example.com#@example.org/", "host example.com" },
	{ "ftp://example.org/a", "its scheme is ftp" },
	{ "file:///etc/passwd", "not an absolute URL" },
	{ "gopher://example.org/", "scheme is gopher" },
	{ "//example.org/a", "not an absolute URL" },
	{ "http:///example.org/a", "not an absolute URL" },
	{ "http:/example.org/a", "not an absolute URL" },
	{ "http:example.org/a", "not an absolute URL" },
	{ "example.org", "not an absolute URL" },
	{ "", "not an absolute URL" },
};

START_TEST(urls_pass_by_scheme_host_and_port)
{
	struct fetch_rules *r =
		rules("a.org, example.org", "80, 443 ,8080", NULL);
	struct error err = { 0 };
	int code = fetch_check(r, urls[_i].url, &err);

	ck_assert_msg(code == (urls[_i].says ? -EINVAL : 0), "%s: %d %s",
		      urls[_i].url, code, err.msg);
	if (urls[_i].says)
		ck_assert_msg(strstr(err.msg, urls[_i].says), "%s", err.msg);
	fetch_rules_free(r);
}
END_TEST

static const struct {
	const char *ports, *nets, *says;
} lists[] = {
	{ "0", NULL, "import-ports: \"0\"" },
	{ "65536", NULL, "import-ports: \"65536\"" },
	{ "80,x", NULL, "import-ports: \"x\"" },
	{ "-1", NULL, "import-ports: \"-1\"" },
	{ NULL, "10.0.0.0/33", "import-nets: \"10.0.0.0/33\"" },
	{ NULL, "10.0.0.0/", "import-nets: \"10.0.0.0/\"" },
	{ NULL, "::/129", "import-nets: \"::/129\"" },
	{ NULL, "localhost", "import-nets: \"localhost\"" },
};

START_TEST(lists_that_cannot_be_understood_are_refused)
{
	struct fetch_rules *r = NULL;
	struct error err = { 0 };

	ck_assert_int_eq(fetch_rules_new(NULL, lists[_i].ports, lists[_i].nets,
					 &r, &err),
			 -EINVAL);
	ck_assert_msg(strstr(err.msg, lists[_i].says), "%s", err.msg);
}
END_TEST

START_TEST(a_list_has_a_maximum)
{
	char ports[4 * FETCH_LIST_MAX + 8] = "80";
	struct fetch_rules *r = NULL;
	struct error err = { 0 };
	int i;

	for (i = 1; i < FETCH_LIST_MAX; i++)
		strcat(ports, ",80");
	r = rules(NULL, ports, NULL);
	fetch_rules_free(r);
	strcat(ports, ",80");
	ck_assert_int_eq(fetch_rules_new(NULL, ports, NULL, &r, &err), -EINVAL);
}
END_TEST

static const struct {
	const char *text;
	int code;
} rates[] = {
	{ "1", 0 },
	{ "16K", 0 },
	{ "4M:3600", 0 },
	{ "100:1", 0 },
	{ "", -EINVAL },
	{ "0", -EINVAL },
	{ "-1", -EINVAL },
	{ "16k", -EINVAL },
	{ "16K:", -EINVAL },
	{ "16K:0", -EINVAL },
	{ "16K:3601", -EINVAL },
	{ "16K:-5", -EINVAL },
	{ "K", -EINVAL },
	{ "99999999999999999999", -EINVAL },
};

START_TEST(a_rate_is_bytes_and_seconds)
{
	struct fetch_rules *r = rules(NULL, NULL, NULL);
	struct error err = { 0 };

	ck_assert_msg(fetch_rules_set_rate(r, rates[_i].text, &err) ==
			      rates[_i].code,
		      "%s: %s", rates[_i].text, err.msg);
	fetch_rules_free(r);
}
END_TEST

static bool never(void *opaque)
{
	return false;
}

static int nothing(void *opaque, const void *data, size_t len,
		   struct error *err)
{
	return 0;
}

START_TEST(an_address_is_looked_at_however_it_is_written)
{
	static const char *const hosts[] = {
		"127.0.0.1", "127.1",	  "2130706433",	       "0x7f.1",
		"[::1]",     "localhost", "[::ffff:127.0.0.1]"
	};
	struct fetch_rules *r = rules(NULL, NULL, NULL);
	const struct fetch_sink sink = { nothing, never, NULL };
	char url[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct error err = { 0 };

		snprintf(url, sizeof(url), "http://%s/", hosts[i]);
		ck_assert_msg(fetch(r, url, &sink, &err) == -EPERM, "%s: %s",
			      url, err.msg);
	}
	fetch_rules_free(r);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, only_public_addresses_are_reached, addresses);
	tcase_add_test(tc, nets_that_are_listed_are_reached);
	LOOP(tc, urls_pass_by_scheme_host_and_port, urls);
	LOOP(tc, lists_that_cannot_be_understood_are_refused, lists);
	tcase_add_test(tc, a_list_has_a_maximum);
	LOOP(tc, a_rate_is_bytes_and_seconds, rates);
	tcase_add_test(tc, an_address_is_looked_at_however_it_is_written);
}

int main(void)
{
	return unit_main("fetch", add);
}
