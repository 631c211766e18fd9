/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Signed images: the four properties img_signature, img_signature_hash_method,
 * img_signature_key_type and img_signature_certificate_uuid together say who
 * has signed the data, as OpenStack's image signing has it. The certificates are
 * files UUID.pem (PEM or DER) of a folder that the operator names: a key manager
 * of files.
 */
#ifndef GLANCE_SIGNATURE_H
#define GLANCE_SIGNATURE_H

#include "formats/reference.h"
#include "glance/record.h"

/* Has @r all four? */
bool signature_is_on(const struct record *r);

/*
 * What it says of its signature, for a comparison; to be freed. Empty where there
 * is none; NULL: no memory.
 */
char *signature_text(const struct record *r);

/*
 * Is what @fd has, all of it, signed as @r says? 0, too, where it says nothing.
 * @certificates: NULL: none are known. -EINVAL: no, or it cannot be told: such
 * an image must not become active.
 */
int signature_check(const struct folder *certificates, const struct record *r,
		    int fd, struct error *err);

#endif
