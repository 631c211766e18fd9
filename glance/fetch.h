/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data from a web server that a client names. The client must not reach by us
 * what he cannot reach himself: only http and https, only the ports and hosts
 * that the operator lists, and no address of the machine or of its networks
 * unless the operator lists those too. The address is looked at when it is
 * connected to, so that a name that changes its mind does not help; every
 * redirect is looked at as the first URL is.
 */
#ifndef GLANCE_FETCH_H
#define GLANCE_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define FETCH_REDIRECTS_MAX 5
#define FETCH_LIST_MAX	    64
/* Bytes a second, and over how many seconds, that a transfer must bring. */
#define FETCH_RATE	    16384U
#define FETCH_RATE_SEC	    60U
#define FETCH_RATE_SEC_MAX  3600U
#define FETCH_ASK_SEC	    30

struct fetch_rules;

/*
 * Lists by commas. @hosts: that may be named; NULL: any. @ports: NULL: 80 and
 * 443. @nets: "ADDRESS/BITS" that may be reached though they are not public;
 * NULL: none. -EINVAL: the parameter and what is wrong.
 */
int fetch_rules_new(const char *hosts, const char *ports, const char *nets,
		    struct fetch_rules **ret, struct error *err);
/*
 * @text: "BYTES", "BYTES:SECONDS", with K or M behind the bytes: a transfer
 * that brings less than BYTES a second on the average of SECONDS is given up.
 */
int fetch_rules_set_rate(struct fetch_rules *r, const char *text,
			 struct error *err);
void fetch_rules_free(struct fetch_rules *r); /* NULL is fine */

/* Does @url pass? -EINVAL: no. Addresses are looked at later. */
int fetch_check(const struct fetch_rules *r, const char *url,
		struct error *err);

struct fetch_sink {
	int (*add)(void *opaque, const void *data, size_t len,
		   struct error *err);
	/* Asked about once a second: true ends it with -ECANCELED. */
	bool (*stop)(void *opaque);
	void *opaque;
};

/* All of @url, in order. */
int fetch(const struct fetch_rules *r, const char *url,
	  const struct fetch_sink *to, struct error *err);

/*
 * All of @url, in order, which the operator has named and no client: it may be
 * anywhere, whatever @r says of hosts, ports and addresses. @header, a line of
 * the request, goes to it and nowhere else: to be redirected is an error.
 */
int fetch_as(const struct fetch_rules *r, const char *url, const char *header,
	     const struct fetch_sink *to, struct error *err);

/*
 * [@off, @off + @len) of @url, which has at least that much; @len > 0. The
 * server is asked for no more, and what it sends beside is dropped. -EIO: it
 * ends early.
 */
int fetch_part(const struct fetch_rules *r, const char *url, uint64_t off,
	       uint64_t len, const struct fetch_sink *to, struct error *err);
/*
 * The size that the server of @url tells of it, without any of its data; takes
 * up to FETCH_ASK_SEC for each redirect. -EIO: it tells none.
 */
int fetch_size(const struct fetch_rules *r, const char *url, uint64_t *ret,
	       struct error *err);

/*
 * Is @text, an IPv4 or IPv6 address, one that @r lets be reached? For tests;
 * false: it is no address.
 */
bool fetch_address_ok(const struct fetch_rules *r, const char *text);

#endif
