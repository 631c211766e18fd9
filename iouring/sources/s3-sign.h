/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Signatures of requests to object stores that speak S3: AWS Signature Version 4
 * ("Authenticating Requests: Using the Authorization Header"), of a GET without a
 * body. Signed are the host, the path, the query and the time; the range is not, so
 * that it need not be known.
 */
#ifndef IOURING_SOURCES_S3_SIGN_H
#define IOURING_SOURCES_S3_SIGN_H

#include <time.h>

#include "iouring/sources/url.h"

#define S3_REGION "us-east-1" /* where nobody says another */

/* Of a request without a body. */
#define S3_EMPTY_SHA256 \
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* 0, or -ENOTSUP: libcrypto is not installed. Before s3_sign(). */
int s3_sign_load(struct error *err);

struct s3_signature {
	char date[17]; /* X-Amz-Date */
	char *authorization; /* to be freed */
};

/*
 * Of a GET of @u, whose path is as it is sent, with "ACCESS:SECRET" or
 * "ACCESS:SECRET:SESSION" @keys. @ret is written on success only. -EINVAL: these
 * are no keys. -ENOMEM
 */
int s3_sign(const struct url *u, const char *keys, const char *region,
	    time_t now, struct s3_signature *ret);

/* The session's part of @keys, in them; NULL: there is none. */
const char *s3_session(const char *keys);

/*
 * @path as it is to be sent, so that what the store reads in it is what was signed:
 * every byte but letters, digits and "-._~/" as %XX, once. To be freed.
 */
char *s3_path(const char *path);

#endif
