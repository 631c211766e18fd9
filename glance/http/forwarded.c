/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/http/forwarded.h"

int proxies_parse(const char *list, struct proxies *ret, struct error *err)
{
	CLEANUP(freep) char *copy = list ? strdup(list) : NULL;
	char *part, *rest = NULL;

	*ret = (struct proxies){ 0 };
	if (!list)
		return 0;
	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (part = strtok_r(copy, ",", &rest); part;
	     part = strtok_r(NULL, ",", &rest)) {
		if (!strcmp(part, "unix")) {
			ret->unix_socket = true;
			continue;
		}
		if (ret->n == PROXIES_MAX)
			return error_set(err, -EINVAL, 0,
					 "glance-proxies: over %d entries",
					 PROXIES_MAX);
		if (!net_parse(part, &ret->nets[ret->n++]))
			return error_set(err, -EINVAL, 0,
					 "glance-proxies: \"%.64s\" is neither "
					 "ADDRESS, ADDRESS/BITS nor unix",
					 part);
	}
	return 0;
}

bool proxies_have(const struct proxies *p, const struct net *peer)
{
	size_t i;

	if (!peer)
		return p->unix_socket;
	for (i = 0; i < p->n; i++)
		if (net_has(&p->nets[i], peer->addr))
			return true;
	return false;
}

/* An address, perhaps with a port: "1.2.3.4:5", "[V6]:5", "V6". */
static bool parse_one(const char *text, size_t len, struct net *ret)
{
	char copy[NET_TEXT_BYTES + 8];
	char *start = copy, *end;

	if (!len || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (*copy == '[') {
		start++;
		end = strchr(start, ']');
		if (!end)
			return false;
		*end = '\0';
	} else {
		end = strchr(copy, ':');
		if (end && end == strrchr(copy, ':'))
			*end = '\0';
	}
	return net_parse_address(start, ret);
}

void forwarded_take(const struct proxies *p, const char *value, struct net *ret,
		    bool *ret_known)
{
	struct net n;
	size_t len;

	while (*value) {
		value += strspn(value, ", \t");
		len = strcspn(value, ", \t");
		if (!len)
			return;
		if (!parse_one(value, len, &n)) {
			*ret_known = false;
		} else if (!proxies_have(p, &n)) {
			*ret = n;
			*ret_known = true;
		}
		value += len;
	}
}
