/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * URLs of http, https and object stores: which server, which of two lies beneath the other, and
 * what of them people may see. Text alone; nothing is resolved or asked.
 */
#ifndef IOURING_SOURCES_URL_H
#define IOURING_SOURCES_URL_H

#include <stdbool.h>

#include "iouring/error.h"

/* Longer ones are refused; signed ones of object stores have some 2000 bytes. */
#define URL_BYTES_MAX 8192U

struct url {
	char *scheme; /* "http", "https", or a store's */
	char *host; /* in small letters; of IPv6 with its brackets; of a store
		       the bucket or container, as it is written */
	char *login; /* "USER:PASSWORD", decoded; NULL: there is none */
	unsigned int
		port; /* the scheme's own, if none is given; of a store 0 */
	char *path; /* begins with '/' */
	char *query; /* without its '?'; NULL: there is none */
};

/* Is @text one of http or https? Looks at its scheme alone. */
bool url_is_http(const char *text);

/* Is it one of an object store: s3, swift, pithos, glance (object-store.h)? */
bool url_is_store(const char *text);

/* Either of them. */
bool url_is_web(const char *text);

/*
 * @ret is the caller's to url_done(), and written on success only. -EINVAL: it
 * is none, or has a control character or a space in it.
 */
int url_parse(const char *text, struct url *ret, struct error *err);
void url_done(struct url *u);

/* The same scheme, host and port: what credentials are for. */
bool url_is_same_origin(const struct url *a, const struct url *b);

/*
 * Is @u @prefix, or beneath it: of its origin, with its path, and nothing in
 * the way back up? What two servers could read in two ways is not.
 */
bool url_is_beneath(const struct url *u, const struct url *prefix);

/* All of these are to be freed; NULL: no memory. */

/* As it is asked for: without a login. */
char *url_text(const struct url *u);

/* For messages and logs: without a login, and with "?..." for any query. */
char *url_for_people(const char *text);

/*
 * The name of what is there, whoever asks for it and when: without a login, and
 * without what of the query is a signature or its time.
 */
char *url_name(const struct url *u);

/*
 * The same of url_name() for people: a query's values are shown as "..." unless
 * they are of what is known to be no secret, such as a version.
 */
char *url_name_shown(const char *name);

/*
 * The file @name in the folder of @base, or beneath it, without its
 * login and query. -EXDEV: it would lead out of it, or could. -ENOMEM
 */
int url_join(const struct url *base, const char *name, char **ret);

#endif
