/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who we are to web servers: a file with a line for each of them,
 *
 *	https://images.example.org/private/ bearer TOKEN
 *	https://mirror.example.org/ basic USER:PASSWORD
 *
 *	s3://bucket/ s3 ACCESS:SECRET[:SESSION] region=NAME endpoint=URL style=host
 *	swift://container/ token TOKEN endpoint=URL
 *	glance:// keystone USER:PASSWORD auth=URL/v3 project=NAME domain=NAME
 *
 * where the longest URL that something lies beneath counts. "bearer TOKEN" or
 * "basic USER:PASSWORD" alone, or another one, is for the servers of those images
 * that the user names himself. A token is sent as X-Auth-Token. What follows is for
 * object stores (object-store.h), each if need be; a ':' in ACCESS is written %3A; style=host names an S3's bucket in
 * the host's name. Empty lines and those that begin with '#' are nothing.
 *
 * The file is read whenever it is asked for, so that a new token is found.
 */
#ifndef IOURING_SOURCES_CREDENTIALS_H
#define IOURING_SOURCES_CREDENTIALS_H

#include <stdbool.h>

#include "iouring/sources/url.h"

#define CREDENTIALS_BYTES_MAX 65536U /* of the file */

/* One of the first five; all NULL: there are none. */
struct credentials {
	char *bearer;
	char *login; /* "USER:PASSWORD" */
	char *keys; /* "ACCESS:SECRET", "ACCESS:SECRET:SESSION" */
	char *token; /* given, or Keystone's */
	char *keystone; /* "USER:PASSWORD" */
	char *auth, *project, *domain; /* of Keystone; NULL: not given */
	char *endpoint, *region; /* NULL: not given */
	bool by_host;
};

/*
 * What @path has for @u; @named: it is of an image that the user named. -EINVAL:
 * the file cannot be read, or the line that cannot be understood.
 */
int credentials_read(const char *path, const struct url *u, bool named,
		     struct credentials *ret, struct error *err);
void credentials_done(struct credentials *c); /* wipes them */

/* @ret is written on success only. -ENOMEM */
int credentials_copy(const struct credentials *c, struct credentials *ret);

/* Are we the same to the server with both? */
bool credentials_are_same(const struct credentials *a,
			  const struct credentials *b);

#endif
