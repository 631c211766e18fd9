/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Grants: the right to open a private image over NBD, which asks nobody who he
 * is. The API gives them to whom it would give the data; NAME~GRANT is the
 * export.
 *
 *	MODE EXPIRY "-" HMAC
 *	MODE	"r" to read, "w" to write overlays as well
 *	EXPIRY	seconds since 1970, hexadecimal: nobody begins to use it later
 *	HMAC	SHA-256 of the image's id, mode and expiry, under a key that the
 *		store keeps (grant.key), hexadecimal
 *
 * It holds for one image, as long as that is there and active; a new key, after
 * the file was removed, ends all.
 */
#ifndef GLANCE_GRANT_H
#define GLANCE_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

#define GRANT_TEXT_BYTES 96 /* with its NUL */
#define GRANT_SEC_MAX	 (7 * 24 * 3600)
#define GRANT_SEC	 3600

struct grant_key {
	uint8_t bytes[32];
};

/* The store's, at @path, made if it is not there. */
int grant_key_open(const char *path, struct grant_key *ret, struct error *err);

/* The text of a grant; @expires: seconds since 1970. */
int grant_mint(const struct grant_key *k, const char *image, bool writable,
	       int64_t expires, char ret[GRANT_TEXT_BYTES], struct error *err);

/*
 * Does @text grant this now? Takes the same time wherever it is wrong.
 */
bool grant_holds(const struct grant_key *k, const char *text, const char *image,
		 bool writable, int64_t now);

#endif
