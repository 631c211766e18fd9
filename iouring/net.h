/* SPDX-License-Identifier: BSD-3-Clause */
/* Internet addresses and prefixes, as parameters and headers name them. */
#ifndef IOURING_NET_H
#define IOURING_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* IPv4 as ::ffff:a.b.c.d, so that one comparison does for both. */
struct net {
	uint8_t addr[16];
	unsigned int bits; /* 0 to 128 */
};

/* "ADDRESS": all of its bits. false: it is none. */
bool net_parse_address(const char *text, struct net *ret);
/* "ADDRESS" or "ADDRESS/BITS" */
bool net_parse(const char *text, struct net *ret);
/* false: it is neither IPv4's nor IPv6's. */
bool net_of_sockaddr(const struct sockaddr *sa, struct net *ret);
bool net_has(const struct net *n, const uint8_t addr[16]);
/* 127.0.0.0/8 and ::1 */
bool net_is_loopback(const uint8_t addr[16]);

/* One that the whole Internet routes: none of the machine or of its networks. */
bool net_is_public(const uint8_t addr[16]);

/* With the ending NUL. */
#define NET_TEXT_BYTES 46
const char *net_text(const uint8_t addr[16], char ret[NET_TEXT_BYTES]);

#endif
