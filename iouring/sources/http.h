/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object of a web server as a source: ranges of it are asked for, several at a
 * time, and what is asked for together goes out together. The object is the one
 * that it was when it was opened, or it is an error: an answer without the
 * strong ETag that it had then, or without the date and the size where it had
 * none, is not used.
 *
 * A server that is silent, cut off or busy is asked again, for as long as
 * remote-options.h says; then the read is -EIO, and the next one begins anew.
 */
#ifndef IOURING_SOURCES_HTTP_H
#define IOURING_SOURCES_HTTP_H

#include "iouring/source.h"
#include "iouring/sources/url.h"

#define HTTP_REDIRECTS_MAX 5U
/* What a round trip is worth: see source.read_bytes. */
#define HTTP_READ_BYTES	   (256U << 10)

/* All is the caller's. */
struct http_wish {
	const char *url;
	const char *login; /* "USER:PASSWORD", of the URL's server, where the
			      URL has none; NULL: none */
	bool named; /* by the user, no image */
	bool may_be_whole; /* a server that gives no ranges will do, see
			      http_source_is_whole() */
	bool about; /* of glance:// not the image, but the JSON that tells of it */
	bool kept; /* small reads need not be fast: there is a cache over it */
	/* URLs, beneath which redirects to other servers may lead, whose
	   address may be any. */
	const char *const *allowed;
	size_t n_allowed;
};

/*
 * Asks for its first byte. -ENOTSUP: there is no libcurl. -EINVAL: no such URL.
 * -ENOENT, -EACCES: the server says so. -EPERM: a redirect leads to where none
 * may. -EIO: the server cannot be reached, or knows no ranges.
 */
int http_source_open(const struct http_wish *w, struct source **ret,
		     struct error *err);

/*
 * Does its server give it as a whole alone? Then nothing of it can be read, but all
 * of it taken by http_source_take().
 */
bool http_source_is_whole(const struct source *s);

/*
 * Has @take called with all of it, in order, by this thread, until it returns
 * non-zero, and returns that, or a negative errno. -EIO: another object came, or not
 * all of it.
 */
int http_source_take(struct source *s,
		     int (*take)(void *opaque, const void *data, size_t len),
		     void *opaque, struct error *err);

#endif
