/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/http/forwarded.h"
#include "tests/lib/unit.h"

static const struct {
	const char *header;
	const char *client; /* NULL: nobody is believed */
} headers[] = {
	{ "203.0.113.9", "203.0.113.9" },
	{ "1.1.1.1, 203.0.113.9, 10.1.2.3", "203.0.113.9" },
	{ "1.1.1.1,203.0.113.9", "203.0.113.9" },
	{ "  203.0.113.9:4711 ,\t10.0.0.1", "203.0.113.9" },
	{ "[2001:db8::5]:80", "2001:db8::5" },
	{ "2001:db8::5", "2001:db8::5" },
	/* Who is no address may hide another. */
	{ "203.0.113.9, unknown", NULL },
	{ "203.0.113.9, unknown, 10.1.2.3", NULL },
	{ "203.0.113.9, [::1", NULL },
	{ "unknown, 203.0.113.9", "203.0.113.9" },
	{ "10.1.2.3", NULL },
	{ "", NULL },
	{ ",,", NULL },
};

START_TEST(the_last_who_is_no_proxy_is_the_client)
{
	char text[NET_TEXT_BYTES];
	struct error err = { 0 };
	struct proxies p;
	struct net client;
	bool known = false;

	must(proxies_parse("10.0.0.0/8,2001:db8:1::/48,unix", &p, &err), err);
	forwarded_take(&p, headers[_i].header, &client, &known);
	ck_assert_msg(known == !!headers[_i].client, "%s", headers[_i].header);
	if (known)
		ck_assert_str_eq(net_text(client.addr, text),
				 headers[_i].client);
}
END_TEST

START_TEST(a_second_header_goes_on)
{
	struct proxies p = { 0 };
	char text[NET_TEXT_BYTES];
	struct net client;
	bool known = false;

	forwarded_take(&p, "1.1.1.1", &client, &known);
	forwarded_take(&p, "203.0.113.9", &client, &known);
	ck_assert(known);
	ck_assert_str_eq(net_text(client.addr, text), "203.0.113.9");
}
END_TEST

START_TEST(proxies_are_addresses_or_the_unix_socket)
{
	struct error err = { 0 };
	struct proxies p;
	struct net n;

	must(proxies_parse(NULL, &p, &err), err);
	ck_assert(!proxies_have(&p, NULL));
	must(proxies_parse("127.0.0.1,unix", &p, &err), err);
	ck_assert(proxies_have(&p, NULL));
	ck_assert(net_parse_address("127.0.0.1", &n));
	ck_assert(proxies_have(&p, &n));
	ck_assert(net_parse_address("127.0.0.2", &n));
	ck_assert(!proxies_have(&p, &n));
	ck_assert_int_eq(proxies_parse("10.0.0.0/33", &p, &err), -EINVAL);
	unit_says(&err, "10.0.0.0/33");
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, the_last_who_is_no_proxy_is_the_client, headers);
	tcase_add_test(tc, a_second_header_goes_on);
	tcase_add_test(tc, proxies_are_addresses_or_the_unix_socket);
}

int main(void)
{
	return unit_main("forwarded", add);
}
