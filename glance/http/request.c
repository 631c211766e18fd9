/* SPDX-License-Identifier: BSD-3-Clause */
/* What a request says. */
#include <stdio.h>
#include <string.h>

#include "glance/http/http-inside.h"

const struct sockaddr *request_address(const struct request *q)
{
	const union MHD_ConnectionInfo *info = mhd->get_connection_info(
		q->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return info ? info->client_addr : NULL;
}

void request_peer(const struct request *q, char *ret, size_t room)
{
	const struct sockaddr *sa = request_address(q);
	char text[NET_TEXT_BYTES];
	struct net peer;

	if (q->has_client)
		snprintf(ret, room, "%s", net_text(q->client.addr, text));
	else if (sa && net_of_sockaddr(sa, &peer))
		snprintf(ret, room, "%s", net_text(peer.addr, text));
	else
		snprintf(ret, room, "%s",
			 sa && sa->sa_family == AF_UNIX ? "unix" : "-");
}

const char *request_header(const struct request *q, const char *name)
{
	return mhd->lookup_connection_value(q->conn, MHD_HEADER_KIND, name);
}

struct header_walk {
	int (*each)(void *opaque, const char *name, const char *value);
	void *opaque;
	int r;
};

static enum MHD_Result walk_header(void *cls, enum MHD_ValueKind kind,
				   const char *name, const char *value)
{
	struct header_walk *w = cls;

	w->r = w->each(w->opaque, name, value ? value : "");
	return w->r ? MHD_NO : MHD_YES;
}

int request_for_headers(const struct request *q,
			int (*each)(void *opaque, const char *name,
				    const char *value),
			void *opaque)
{
	struct header_walk w = { .each = each, .opaque = opaque };

	mhd->get_connection_values(q->conn, MHD_HEADER_KIND, walk_header, &w);
	return w.r;
}

bool request_type_is(const struct request *q, const char *type)
{
	const char *have = request_header(q, "Content-Type");
	size_t len;

	if (!have)
		return false;
	len = strcspn(have, "; \t");
	return len == strlen(type) && !strncasecmp(have, type, len);
}

bool request_has_body(const struct request *q)
{
	return q->has_length ? q->content_length > 0
			     : request_header(q, "Transfer-Encoding") != NULL;
}

/* What may stand in a Host header: no more than a name, an address, a port. */
static bool host_ok(const char *host)
{
	size_t len = strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "abcdefghijklmnopqrstuvwxyz0123456789-._:[]");

	return len && len < 256 && !host[len];
}

char *request_base_url(const struct request *q)
{
	const char *host = request_header(q, "Host");
	char *url;

	if (!host || !host_ok(host))
		host = "localhost";
	if (asprintf(&url, "%s://%s", q->server->cert ? "https" : "http",
		     host) < 0)
		return NULL;
	return url;
}
