/* SPDX-License-Identifier: BSD-3-Clause */
/* For whom a proxy speaks: X-Forwarded-For, of proxies that are believed. */
#ifndef GLANCE_HTTP_FORWARDED_H
#define GLANCE_HTTP_FORWARDED_H

#include <stdbool.h>

#include "iouring/net.h"
#include "iouring/error.h"

#define PROXIES_MAX 64

/* Zeroed: none. */
struct proxies {
	struct net nets[PROXIES_MAX];
	size_t n;
	bool unix_socket; /* who comes by it is one */
};

/* @list: "ADDRESS", "ADDRESS/BITS", "unix", by commas; NULL: none. */
int proxies_parse(const char *list, struct proxies *ret, struct error *err);
/* @peer NULL: it came by a unix socket. */
bool proxies_have(const struct proxies *p, const struct net *peer);

/*
 * Takes a header X-Forwarded-For, in the order they came. *ret becomes the last
 * address so far that is no proxy's, for each proxy adds whom it saw; false,
 * and *ret_known: there is none, or something else is in its place.
 */
void forwarded_take(const struct proxies *p, const char *value, struct net *ret,
		    bool *ret_known);

#endif
