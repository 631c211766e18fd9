/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "glance/http/net.h"

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

const char *net_text(const uint8_t addr[16], char ret[NET_TEXT_BYTES])
{
	bool v4 = !memcmp(addr, v4_prefix, sizeof(v4_prefix));

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, ret,
		  NET_TEXT_BYTES);
	return ret;
}
