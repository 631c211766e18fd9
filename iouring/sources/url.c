/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "iouring/sources/url.h"

#define HTTP_PORT  80U
#define HTTPS_PORT 443U

bool url_is_http(const char *text)
{
	return !strncasecmp(text, "http://", 7) ||
	       !strncasecmp(text, "https://", 8);
}

/* Their names are as they are written: of buckets and containers, no hosts. */
static const char *const stores[] = { "s3", "swift", "pithos", "glance" };

bool url_is_store(const char *text)
{
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(stores); i++) {
		len = strlen(stores[i]);
		if (!strncasecmp(text, stores[i], len) &&
		    !strncmp(text + len, "://", 3))
			return true;
	}
	return false;
}

bool url_is_web(const char *text)
{
	return url_is_http(text) || url_is_store(text);
}

void url_done(struct url *u)
{
	free(u->scheme);
	free(u->host);
	if (u->login)
		explicit_bzero(u->login, strlen(u->login));
	free(u->login);
	free(u->path);
	free(u->query);
	*u = (struct url){ 0 };
}

static int hex(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Of [@text, @end), %XX as what they stand for. To be freed. */
static char *decoded(const char *text, const char *end)
{
	char *ret = malloc((size_t)(end - text) + 1), *to = ret;

	while (ret && text < end) {
		if (*text == '%' && end - text > 2 && hex(text[1]) >= 0 &&
		    hex(text[2]) >= 0) {
			*to++ = (char)(hex(text[1]) * 16 + hex(text[2]));
			text += 3;
		} else {
			*to++ = *text++;
		}
	}
	if (ret)
		*to = '\0';
	return ret;
}

static char *lowered(const char *text, const char *end)
{
	char *ret = strndup(text, (size_t)(end - text)), *p;

	for (p = ret; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return ret;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT" */
static const char *parse_host(struct url *u, const char *at, const char *end)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyz"
				   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	bool is_store = strncmp(u->scheme, "http", 4) != 0;
	const char *stop = at;
	unsigned long port;
	char *rest;

	if (*at == '[')
		stop += 1 + strspn(at + 1, "0123456789abcdefABCDEF:.");
	else
		stop += strspn(at, good);
	if (*at == '[' && *stop++ != ']')
		return "its host is no address";
	if (stop == at || stop > end || (stop < end && *stop != ':'))
		return "its host is no name";
	u->host =
		is_store ? strndup(at, (size_t)(stop - at)) : lowered(at, stop);
	if (is_store)
		return stop < end ? "it has no port" : NULL;
	u->port = !strcmp(u->scheme, "https") ? HTTPS_PORT : HTTP_PORT;
	if (stop >= end - 1)
		return NULL; /* "HOST:" is HOST */
	port = strtoul(stop + 1, &rest, 10);
	if (!isdigit((unsigned char)stop[1]) || rest != end || !port ||
	    port > 65535)
		return "its port is none";
	u->port = (unsigned int)port;
	return NULL;
}

/* What is wrong with it; NULL: nothing. */
static const char *parse(const char *text, struct url *u)
{
	const char *at = strstr(text, "://"), *end, *login, *stop;

	if (!url_is_web(text) || !at)
		return "it is not of http, https, s3, swift, pithos or glance";
	u->scheme = lowered(text, at);
	if (!u->scheme)
		return "out of memory";
	at += 3;
	end = at + strcspn(at, "/?#");
	login = memrchr(at, '@', (size_t)(end - at));
	if (login) {
		u->login = decoded(at, login);
		at = login + 1;
	}
	stop = parse_host(u, at, end);
	if (stop)
		return stop;
	stop = end + strcspn(end, "?#");
	u->path =
		end == stop ? strdup("/") : strndup(end, (size_t)(stop - end));
	if (*stop == '?')
		u->query = strndup(stop + 1, strcspn(stop + 1, "#"));
	return u->host && u->path && (!login || u->login) &&
			       (*stop != '?' || u->query)
		       ? NULL
		       : "out of memory";
}

int url_parse(const char *text, struct url *ret, struct error *err)
{
	CLEANUP(url_done) struct url u = { 0 };
	const char *why = NULL, *p;

	for (p = text; *p && !why; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			why = "there is a space or a control character in it";
	if (!why && p - text > (long)URL_BYTES_MAX)
		why = "it has over 8192 bytes";
	if (!why)
		why = parse(text, &u);
	if (why)
		return error_set(err, -EINVAL, 0,
				 "not a URL that can be used: %s", why);
	*ret = u;
	u = (struct url){ 0 };
	return 0;
}

bool url_is_same_origin(const struct url *a, const struct url *b)
{
	return !strcmp(a->scheme, b->scheme) && !strcmp(a->host, b->host) &&
	       a->port == b->port;
}

/* A dot folder, or what a server may decode to one or to a slash. */
static bool leads_up(const char *path)
{
	const char *p;

	for (p = path; *p; p++) {
		if (*p == '\\' || !strncasecmp(p, "%2e", 3) ||
		    !strncasecmp(p, "%2f", 3) || !strncasecmp(p, "%5c", 3))
			return true;
		if ((p == path || p[-1] == '/') &&
		    ((p[0] == '.' && strchr("/;", p[1])) ||
		     (p[0] == '.' && p[1] == '.' && strchr("/;", p[2]))))
			return true;
	}
	return false;
}

bool url_is_beneath(const struct url *u, const struct url *prefix)
{
	size_t len = strlen(prefix->path);

	if (!url_is_same_origin(u, prefix) || leads_up(u->path) ||
	    strncmp(u->path, prefix->path, len) != 0)
		return false;
	return prefix->path[len - 1] == '/' || !u->path[len] ||
	       u->path[len] == '/';
}

static bool has_own_port(const struct url *u)
{
	return u->port && u->port != (!strcmp(u->scheme, "https") ? HTTPS_PORT
								  : HTTP_PORT);
}

static char *put_together(const struct url *u, const char *query)
{
	char port[16] = "", *ret;

	if (has_own_port(u))
		snprintf(port, sizeof(port), ":%u", u->port);
	return asprintf(&ret, "%s://%s%s%s%s%s", u->scheme, u->host, port,
			u->path, query && *query ? "?" : "",
			query ? query : "") < 0
		       ? NULL
		       : ret;
}

char *url_text(const struct url *u)
{
	return put_together(u, u->query);
}

char *url_for_people(const char *text)
{
	const char *scheme = strstr(text, "://");
	const char *at = scheme ? scheme + 3 : text;
	size_t host = strcspn(at, "/?#");
	const char *login = memrchr(at, '@', host);
	size_t path = strcspn(at, "?#");
	char *ret;

	if (login) {
		path -= (size_t)(login + 1 - at);
		at = login + 1;
	}
	return asprintf(&ret, "%.*s%.*s%s",
			scheme ? (int)(scheme + 3 - text) : 0, text, (int)path,
			at, at[path] == '?' ? "?..." : "") < 0
		       ? NULL
		       : ret;
}

/* Is it "NAME" or "NAME=VALUE" of these? */
static bool is_one_of(const char *const *names, size_t n, const char *part,
		      size_t len)
{
	const char *value = memchr(part, '=', len);
	size_t i, key = value ? (size_t)(value - part) : len;

	for (i = 0; i < n; i++)
		if (strlen(names[i]) == key && !strncmp(names[i], part, key))
			return true;
	return false;
}

/* Of Amazon, Google, Azure, CloudFront and Swift. */
static bool is_of_signature(const char *part, size_t len)
{
	static const char *const names[] = { "Signature",
					     "Expires",
					     "AWSAccessKeyId",
					     "GoogleAccessId",
					     "Key-Pair-Id",
					     "Policy",
					     "sig",
					     "se",
					     "st",
					     "sp",
					     "sr",
					     "sv",
					     "spr",
					     "skoid",
					     "sktid",
					     "skt",
					     "ske",
					     "sks",
					     "skv",
					     "temp_url_sig",
					     "temp_url_expires" };

	return !strncasecmp(part, "X-Amz-", 6) ||
	       !strncasecmp(part, "X-Goog-", 7) ||
	       is_one_of(names, ARRAY_SIZE(names), part, len);
}

char *url_name(const struct url *u)
{
	const char *at = u->query ? u->query : "";
	CLEANUP(freep) char *query = calloc(1, strlen(at) + 2);
	size_t len, used = 0;

	for (; query && *at; at += len + (at[len] == '&')) {
		len = strcspn(at, "&");
		if (is_of_signature(at, len))
			continue;
		if (used)
			query[used++] = '&';
		memcpy(query + used, at, len);
		used += len;
	}
	return query ? put_together(u, query) : NULL;
}

/* What says which object, or which version of it, is meant. */
static bool is_harmless(const char *part, size_t len)
{
	static const char *const names[] = {
		"arch",	  "dl",	  "download", "file",	 "filename",  "format",
		"id",	  "name", "part",     "path",	 "prefix",    "raw",
		"region", "rev",  "v",	      "version", "versionId",
	};

	return is_one_of(names, ARRAY_SIZE(names), part, len);
}

char *url_name_shown(const char *name)
{
	size_t used = strcspn(name, "?"), len, kept;
	const char *at = name + used;
	/* Each part of a query may become longer, by "...". */
	char *ret = calloc(4, strlen(name) + 1);

	if (!ret)
		return NULL;
	memcpy(ret, name, used);
	while (*at) {
		ret[used++] = *at++; /* '?' or '&' */
		len = strcspn(at, "&");
		kept = len;
		if (!is_harmless(at, len))
			kept = memchr(at, '=', len) ? strcspn(at, "=") + 1 : 0;
		memcpy(ret + used, at, kept);
		used += kept;
		if (kept < len)
			used = (size_t)(stpcpy(ret + used, "...") - ret);
		at += len;
	}
	return ret;
}

/* As a part of a path: what could mean more is written as %XX. */
static char *encoded(const char *name)
{
	static const char plain[] = "-._~/!$'()*+,=:@";
	char *ret = malloc(strlen(name) * 3 + 1), *to = ret;

	for (; ret && *name; name++) {
		if (isalnum((unsigned char)*name) || strchr(plain, *name))
			*to++ = *name;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*name);
	}
	if (ret)
		*to = '\0';
	return ret;
}

int url_join(const struct url *base, const char *name, char **ret)
{
	CLEANUP(freep) char *rest = NULL;
	CLEANUP(freep) char *path = NULL;
	const char *slash = strrchr(base->path, '/');
	struct url u = *base;

	while (!strncmp(name, "./", 2))
		name += 2;
	if (!*name || *name == '/' || leads_up(name) ||
	    name[strlen(name) - 1] == '/')
		return -EXDEV;
	rest = encoded(name);
	if (!rest || asprintf(&path, "%.*s%s", (int)(slash + 1 - base->path),
			      base->path, rest) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	u.path = path;
	*ret = put_together(&u, NULL);
	return *ret ? 0 : -ENOMEM;
}
