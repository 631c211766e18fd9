/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
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

char *qemu_options(const char *socket, const char *host, uint32_t port,
		   const char *export)
{
	CLEANUP(freep) char *at = option_value(socket ? socket : host);
	CLEANUP(freep) char *name = option_value(export);
	char number[48], *ret;

	snprintf(number, sizeof(number), ",file.server.port=%" PRIu32, port);
	if (!at || !name ||
	    asprintf(&ret,
		     "driver=raw,file.driver=nbd,file.server.%s=%s%s%s%s,"
		     "file.reconnect-delay=" RECONNECT_SECONDS,
		     socket ? "type=unix,file.server.path"
			    : "type=inet,file.server.host",
		     at, socket ? "" : number, *name ? ",file.export=" : "",
		     name) < 0)
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

int qemu_options_of_uri(const char *uri, char **ret, struct error *err)
{
	bool is_unix = !strncasecmp(uri, "nbd+unix://", 11);
	bool is_inet = !strncasecmp(uri, "nbd://", 6);
	const char *s = uri + (is_unix ? 11 : 6), *path, *query;
	CLEANUP(freep) char *socket = NULL;
	CLEANUP(freep) char *export = NULL;
	CLEANUP(freep) char *host = NULL;
	uint32_t port = 0;
	bool ok;

	if (!is_unix && !is_inet)
		return error_set(err, -ENOTSUP, 0,
				 "%s: neither nbd:// nor nbd+unix://, which "
				 "the kernel can be given",
				 uri);
	path = s + strcspn(s, "/?");
	query = path + strcspn(path, "?");
	export = *path == '/' ? decode(path + 1, (size_t)(query - path) - 1)
			      : strdup("");
	if (is_unix)
		ok = path == s && (socket = take_socket(query));
	else
		ok = !*query &&
		     take_authority(s, (size_t)(path - s), &host, &port);
	if (!ok || !export)
		return error_set(err, -EINVAL, 0, "%s: is not understood", uri);
	*ret = qemu_options(socket, host, port, export);
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}
