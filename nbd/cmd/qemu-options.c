/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "iouring/util.h"
#include "nbd/cmd/qemu-options.h"

#define RECONNECT_SECONDS "60" /* a server is started anew */
#define NBD_PORT	  10809U

/* A value among others: commas are doubled. To be freed. */
static char *option_value(const char *text)
{
	char *ret = malloc(2 * strlen(text) + 1), *p = ret;

	for (; ret && *text; text++) {
		if (*text == ',')
			*p++ = ',';
		*p++ = *text;
	}
	if (ret)
		*p = '\0';
	return ret;
}

char *qemu_options(const char *type, const char *at, uint32_t port,
		   const char *export)
{
	CLEANUP(freep) char *place = option_value(at);
	CLEANUP(freep) char *name = option_value(export);
	bool is_unix = !strcmp(type, "unix");
	const char *key = is_unix		  ? "path"
			  : strcmp(type, "vsock") ? "host"
						  : "cid";
	char number[48], *ret;

	snprintf(number, sizeof(number), ",file.server.port=%" PRIu32, port);
	if (!place || !name ||
	    asprintf(&ret,
		     "driver=raw,file.driver=nbd,file.server.type=%s,"
		     "file.server.%s=%s%s%s%s,"
		     "file.reconnect-delay=" RECONNECT_SECONDS,
		     type, key, place, is_unix ? "" : number,
		     *name ? ",file.export=" : "", name) < 0)
		return NULL;
	return ret;
}

/* Two digits. False: they are none. */
static bool take_hex(const char *s, char *ret)
{
	char digits[3] = { s[0], s[1], '\0' };

	if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]))
		return false;
	*ret = (char)strtoul(digits, NULL, 16);
	return true;
}

/* [@s, @s + @len), decoded. NULL: %XX is none, or there is no memory. */
static char *decode(const char *s, size_t len)
{
	char *ret = malloc(len + 1), *p = ret;
	size_t i;

	for (i = 0; ret && i < len; i++) {
		if (s[i] != '%') {
			*p++ = s[i];
		} else if (i + 2 < len && take_hex(s + i + 1, p)) {
			p++;
			i += 2;
		} else {
			free(ret);
			return NULL;
		}
	}
	if (ret)
		*p = '\0';
	return ret;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT" */
static bool take_authority(const char *s, size_t len, char **ret_host,
			   uint32_t *ret_port)
{
	const char *end = s + len, *host = s, *host_end;
	char digits[8] = "";

	*ret_port = NBD_PORT;
	if (*s == '[') {
		host = s + 1;
		host_end = memchr(s, ']', len);
	} else {
		host_end = memchr(s, ':', len);
		if (!host_end)
			host_end = end;
	}
	if (!host_end || host_end == host || memchr(s, '@', len))
		return false;
	s = *s == '[' ? host_end + 1 : host_end;
	if (s < end) {
		if (*s != ':' || (size_t)(end - s) > sizeof(digits) ||
		    end - s < 2)
			return false;
		memcpy(digits, s + 1, (size_t)(end - s) - 1);
		if (strspn(digits, "0123456789") != strlen(digits))
			return false;
		*ret_port = (uint32_t)strtoul(digits, NULL, 10);
	}
	*ret_host = decode(host, (size_t)(host_end - host));
	return *ret_host && *ret_port && *ret_port <= UINT16_MAX;
}

/* The parameter socket=PATH, the only one that there may be. */
static char *take_socket(const char *query)
{
	if (strncmp(query, "?socket=", 8) != 0 || strchr(query, '&'))
		return NULL;
	return decode(query + 8, strlen(query + 8));
}

/* Where an export is, decoded. */
struct export_place {
	char *socket; /* or host and port */
	char *host;
	uint32_t port;
	char *export;
	bool tls;
};

static void export_place_done(struct export_place *p)
{
	free(p->socket);
	free(p->host);
	free(p->export);
}

/* The part behind "nbd://" and its like. False: it is not understood. */
static bool take_rest(const char *s, bool is_unix, struct export_place *ret)
{
	const char *path = s + strcspn(s, "/?");
	const char *query = path + strcspn(path, "?");

	ret->export = *path == '/'
			      ? decode(path + 1, (size_t)(query - path) - 1)
			      : strdup("");
	if (!ret->export)
		return false;
	if (is_unix)
		return path == s && (ret->socket = take_socket(query));
	return !*query &&
	       take_authority(s, (size_t)(path - s), &ret->host, &ret->port);
}

/* To be export_place_done() in any case. */
static int take_uri(const char *uri, struct export_place *ret,
		    struct error *err)
{
	static const struct {
		const char *text;
		bool is_unix, tls;
	} schemes[] = { { "nbd://", false, false },
			{ "nbds://", false, true },
			{ "nbd+unix://", true, false },
			{ "nbds+unix://", true, true } };
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(schemes); i++) {
		len = strlen(schemes[i].text);
		if (strncasecmp(uri, schemes[i].text, len) != 0)
			continue;
		ret->tls = schemes[i].tls;
		return take_rest(uri + len, schemes[i].is_unix, ret)
			       ? 0
			       : error_set(err, -EINVAL, 0,
					   "%s: is not understood", uri);
	}
	return error_set(err, -ENOTSUP, 0,
			 "%s: neither nbd[s]:// nor nbd[s]+unix://", uri);
}

/* As take_uri(), with the keys that it needs. */
static int take_uri_and_keys(const char *uri, const char *tls,
			     struct export_place *ret, struct error *err)
{
	int r = take_uri(uri, ret, err);

	if (r >= 0 && ret->tls && !tls)
		r = error_set(err, -EINVAL, 0,
			      "%s: QEMU needs keys for TLS "
			      "(--tls-certificates)",
			      uri);
	return r;
}

int qemu_options_of_uri(const char *uri, const char *tls, char **ret,
			struct error *err)
{
	CLEANUP(export_place_done) struct export_place p = { 0 };
	CLEANUP(freep) char *plain = NULL;
	int r = take_uri_and_keys(uri, tls, &p, err);

	if (r < 0)
		return r;
	plain = p.socket ? qemu_options("unix", p.socket, 0, p.export)
			 : qemu_options("inet", p.host, p.port, p.export);
	/* Which no address tells: tls-hostname. */
	if (!plain ||
	    asprintf(ret, "%s%s%s%s", plain, p.tls ? ",file.tls-creds=" : "",
		     p.tls ? tls : "",
		     p.tls && p.socket ? ",file.tls-hostname=localhost" : "") <
		    0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return 0;
}

char *qemu_keys(const char *tls, const char *dir)
{
	CLEANUP(freep) char *value = option_value(dir);
	char *ret;

	return !value || asprintf(&ret,
				  "tls-creds-x509,id=%s,dir=%s,endpoint=client",
				  tls, value) < 0
		       ? NULL
		       : ret;
}

int qemu_node_of_uri(const char *uri, const char *node, const char *tls,
		     json_t **ret, struct error *err)
{
	CLEANUP(export_place_done) struct export_place p = { 0 };
	json_t *server, *j;
	char port[16];
	int r = take_uri_and_keys(uri, tls, &p, err);

	if (r < 0)
		return r;
	snprintf(port, sizeof(port), "%" PRIu32, p.port);
	server = p.socket ? json_pack("{s:s, s:s}", "type", "unix", "path",
				      p.socket)
			  : json_pack("{s:s, s:s, s:s}", "type", "inet", "host",
				      p.host, "port", port);
	j = json_pack("{s:s, s:s, s:o, s:s, s:i}", "driver", "nbd", "node-name",
		      node, "server", server, "export", p.export,
		      "reconnect-delay", atoi(RECONNECT_SECONDS));
	if (j && p.tls)
		json_object_set_new(j, "tls-creds", json_string(tls));
	/* Which no address tells. */
	if (j && p.tls && p.socket)
		json_object_set_new(j, "tls-hostname",
				    json_string("localhost"));
	*ret = j;
	return j ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int qemu_uri_with_state(const char *uri, const char *state, char **ret,
			struct error *err)
{
	const char *path = strstr(uri, "://"), *grant, *query;

	path = path ? path + 3 + strcspn(path + 3, "/?") : "";
	if (*path != '/')
		return error_set(err, -EINVAL, 0, "%s: names no export", uri);
	query = path + strcspn(path, "?");
	grant = path + strcspn(path, "~?");
	if (asprintf(ret, "%.*s@%s%.*s%s", (int)(grant - uri), uri, state,
		     (int)(query - grant), grant, query) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return 0;
}

/* "server": { "host": ... }, or "server.host". Never NULL. */
static const char *server_text(const json_t *j, const char *key)
{
	const json_t *server = json_object_get(j, "server"), *value;
	char flat[32];

	snprintf(flat, sizeof(flat), "server.%s", key);
	value = server ? json_object_get(server, key)
		       : json_object_get(j, flat);
	return json_is_string(value) ? json_string_value(value) : "";
}

/* The layer of "json:{...}" that is NBD's. False: none is. */
static bool take_json(const char *text, struct export_place *ret)
{
	json_t *all = json_loads(text, 0, NULL);
	const json_t *j = all, *file;
	const char *export, *socket, *port;
	bool ok;

	while ((file = json_object_get(j, "file")))
		j = file;
	export = json_string_value(json_object_get(j, "export"));
	socket = server_text(j, "path");
	port = server_text(j, "port");
	ret->export = strdup(export ? export : "");
	ret->socket = *socket ? strdup(socket) : NULL;
	ret->host = *socket ? NULL : strdup(server_text(j, "host"));
	ret->port = (uint32_t)strtoul(port, NULL, 10);
	ok = ret->export && (ret->socket || ret->host) &&
	     (*socket || *server_text(j, "host"));
	json_decref(all);
	return ok;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool qemu_file_is_export(const char *file, const char *uri)
{
	CLEANUP(export_place_done) struct export_place a = { 0 };
	CLEANUP(export_place_done) struct export_place b = { 0 };
	bool known = strncmp(file, "json:", 5) != 0
			     ? take_uri(file, &a, NULL) >= 0
			     : take_json(file + 5, &a);

	return known && take_uri(uri, &b, NULL) >= 0 &&
	       same_text(a.export, b.export) && same_text(a.socket, b.socket) &&
	       same_text(a.host, b.host) && (a.socket || a.port == b.port);
}
