/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "iouring/net.h"
#include "glance/http/origin.h"

/* A part of a text. */
struct part {
	const char *text;
	size_t len;
};

static bool same(struct part a, struct part b)
{
	return a.len == b.len && !strncasecmp(a.text, b.text, a.len);
}

static bool ends_in(struct part p, const char *end)
{
	size_t len = strlen(end);

	return p.len >= len && !strncasecmp(p.text + p.len - len, end, len);
}

/* "NAME:PORT", "[V6]:PORT"; no port, an empty one: @ret_port is empty. */
static struct part split_port(const char *authority, struct part *ret_port)
{
	const char *from = strrchr(authority, ']');
	const char *colon = strchr(from ? from : authority, ':');
	struct part name = { authority, colon ? (size_t)(colon - authority)
					      : strlen(authority) };

	*ret_port = (struct part){ colon ? colon + 1 : "",
				   colon ? strlen(colon + 1) : 0 };
	return name;
}

static bool is_loopback(struct part name)
{
	static const struct part localhost = { "localhost", 9 };
	char text[NET_TEXT_BYTES];
	struct net n;

	if (same(name, localhost) || ends_in(name, ".localhost"))
		return true;
	if (name.len > 2 && name.text[0] == '[') {
		name.text++;
		name.len -= 2;
	}
	if (name.len >= sizeof(text))
		return false;
	memcpy(text, name.text, name.len);
	text[name.len] = '\0';
	return net_parse_address(text, &n) && net_is_loopback(n.addr);
}

bool origin_host_ok(const char *host, const char *names)
{
	struct part port, name = split_port(host, &port);

	/* The root may be named, too. */
	if (name.len > 1 && name.text[name.len - 1] == '.')
		name.len--;
	if (is_loopback(name))
		return true;
	while (names && *names) {
		const struct part one = { names, strcspn(names, ",") };

		if (one.len && same(name, one))
			return true;
		names += one.len + (names[one.len] == ',');
	}
	return false;
}

bool origin_is_host(const char *origin, const char *host)
{
	static const struct {
		const char *scheme;
		struct part port;
	} schemes[] = { { "http://", { "80", 2 } },
			{ "https://", { "443", 3 } } };
	struct part a_name, a_port, b_name, b_port;
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(schemes); i++) {
		len = strlen(schemes[i].scheme);
		if (strncasecmp(origin, schemes[i].scheme, len) != 0)
			continue;
		a_name = split_port(origin + len, &a_port);
		b_name = split_port(host, &b_port);
		if (!a_port.len)
			a_port = schemes[i].port;
		if (!b_port.len)
			b_port = schemes[i].port;
		return same(a_name, b_name) && same(a_port, b_port);
	}
	return false;
}

int origin_check(const struct origin_rules *r, const char *host,
		 const char *origin, struct error *err)
{
	if (r->check_host && host && !origin_host_ok(host, r->names))
		return error_set(err, -EPERM, 0,
				 "Host \"%.128s\" is neither this machine's "
				 "loopback nor in glance-hosts",
				 host);
	if (origin && !(host && origin_is_host(origin, host)))
		return error_set(err, -EPERM, 0,
				 "Origin \"%.128s\" is another server's, and "
				 "with auth=none nobody is asked who he is",
				 origin);
	return 0;
}
