/* SPDX-License-Identifier: BSD-3-Clause */
/* The two digests of an image's data, as they stream by. */
#ifndef GLANCE_DIGEST_H
#define GLANCE_DIGEST_H

#include <stddef.h>

#include "iouring/error.h"

#define DIGEST_ALGO "sha512" /* the API's os_hash_algo */

struct digest;

int digest_new(struct digest **ret, struct error *err);
void digest_free(struct digest *d); /* NULL is fine */
int digest_add(struct digest *d, const void *data, size_t len,
	       struct error *err);
/* Hexadecimal, with an ending NUL. */
int digest_end(struct digest *d, char ret_md5[33], char ret_sha512[129],
	       struct error *err);

/* The SHA-512 of a text alone: what may be compared without telling of it. */
int digest_text(const char *text, char ret_sha512[129], struct error *err);

#endif
