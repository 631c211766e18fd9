/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/net.h"
#include "iouring/util.h"

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

bool net_parse_address(const char *text, struct net *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->bits = 128;
	if (inet_pton(AF_INET6, text, ret->addr) == 1)
		return true;
	memcpy(ret->addr, v4_prefix, sizeof(v4_prefix));
	return inet_pton(AF_INET, text, ret->addr + 12) == 1;
}

bool net_parse(const char *text, struct net *ret)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	unsigned int max;
	unsigned long bits;
	char *end;

	if (len >= sizeof(address))
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	if (!net_parse_address(address, ret))
		return false;
	max = strchr(address, ':') ? 128 : 32;
	if (!slash)
		return true;
	bits = strtoul(slash + 1, &end, 10);
	if (slash[1] < '0' || slash[1] > '9' || *end || bits > max)
		return false;
	ret->bits = (unsigned int)bits + 128 - max;
	return true;
}

bool net_of_sockaddr(const struct sockaddr *sa, struct net *ret)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;

	memset(ret, 0, sizeof(*ret));
	ret->bits = 128;
	if (sa->sa_family == AF_INET6) {
		memcpy(ret->addr, &in6->sin6_addr, 16);
		return true;
	}
	if (sa->sa_family != AF_INET)
		return false;
	memcpy(ret->addr, v4_prefix, sizeof(v4_prefix));
	memcpy(ret->addr + 12, &in->sin_addr, 4);
	return true;
}

bool net_has(const struct net *n, const uint8_t addr[16])
{
	unsigned int bytes = n->bits / 8, rest = n->bits % 8;

	if (memcmp(n->addr, addr, bytes) != 0)
		return false;
	return !rest || !((n->addr[bytes] ^ addr[bytes]) >> (8 - rest));
}

bool net_is_loopback(const uint8_t addr[16])
{
	static const uint8_t v6[16] = { [15] = 1 };

	return !memcmp(addr, v6, 16) ||
	       (!memcmp(addr, v4_prefix, sizeof(v4_prefix)) && addr[12] == 127);
}

/* IANA's special-purpose address registries (RFC 6890), and multicast. */
bool net_is_public(const uint8_t addr[16])
{
	static const char *const special[] = {
		"0.0.0.0/8",	  "10.0.0.0/8",	    "100.64.0.0/10",
		"127.0.0.0/8",	  "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24",	  "192.0.2.0/24",   "192.88.99.0/24",
		"192.168.0.0/16", "198.18.0.0/15",  "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4",
		"2001::/23",	  "2001:db8::/32",  "2002::/16",
		"3fff::/20",
	};
	struct net v4, global, n;
	size_t i;

	/* Of IPv6, 2000::/3 is global unicast; all else is something else. */
	if (!net_parse("0.0.0.0/0", &v4) || !net_parse("2000::/3", &global) ||
	    (!net_has(&v4, addr) && !net_has(&global, addr)))
		return false;
	for (i = 0; i < ARRAY_SIZE(special); i++)
		if (!net_parse(special[i], &n) || net_has(&n, addr))
			return false;
	return true;
}

const char *net_text(const uint8_t addr[16], char ret[NET_TEXT_BYTES])
{
	bool v4 = !memcmp(addr, v4_prefix, sizeof(v4_prefix));

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, ret,
		  NET_TEXT_BYTES);
	return ret;
}
