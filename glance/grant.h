/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Grants: the right to open an image over NBD, which asks nobody who he is, or
 * an overlay of it. The API gives them to whom it would give the data;
 * NAME~GRANT is the export.
 *
 *	MODE EXPIRY "-" PROJECT "-" OVERLAY "-" HMAC
 *	MODE	"r" to read the image, "w" to open overlays as well; "R", "W":
 *		an administrator's, who need not be one of those who see it
 *	EXPIRY	seconds since 1970, hexadecimal: nobody begins to use it later
 *	PROJECT	whose it is, in hexadecimal bytes; none: of no project
 *	OVERLAY	the only overlay's name, "*" for any, in hexadecimal bytes
 *	HMAC	SHA-256 of the image's id and all that, under a key that the
 *		store keeps (grant.key), hexadecimal
 *
 * It holds for one image, as long as that is active and its project may see it,
 * and for overlays in the project's own name space. A new key, after the file
 * was removed, ends all.
 */
#ifndef GLANCE_GRANT_H
#define GLANCE_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

#define GRANT_PROJECT_MAX 255U /* bytes */
#define GRANT_OVERLAY_MAX 128U
#define GRANT_ANY_OVERLAY "*"
/* With its NUL. */
#define GRANT_TEXT_BYTES \
	(1 + 16 + 3 + 2 * (GRANT_PROJECT_MAX + GRANT_OVERLAY_MAX) + 64 + 1)
#define GRANT_SEC_MAX (7 * 24 * 3600)
#define GRANT_SEC     3600

struct grant_key {
	uint8_t bytes[32];
};

/* The store's, at @path, made if it is not there. */
int grant_key_open(const char *path, struct grant_key *ret, struct error *err);

struct grant {
	bool writable;
	bool admin; /* who asked for it was one */
	int64_t expires; /* seconds since 1970 */
	char project[GRANT_PROJECT_MAX + 1]; /* "": none */
	char overlay[GRANT_OVERLAY_MAX + 1]; /* "": none */
};

/* The text of @g, for @image. */
int grant_mint(const struct grant_key *k, const char *image,
	       const struct grant *g, char ret[GRANT_TEXT_BYTES],
	       struct error *err);

/*
 * Is @text a grant of ours for @image that is not too old? *ret is written if
 * so. Takes the same time wherever it is wrong. Whether its project may still
 * see the image is the caller's to ask.
 */
bool grant_open(const struct grant_key *k, const char *text, const char *image,
		int64_t now, struct grant *ret);

/* Does @g cover that @overlay; NULL: the image alone? */
bool grant_covers(const struct grant *g, const char *overlay);

#endif
