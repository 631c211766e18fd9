/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What vouches for an OVF package (DSP0243, "Distribution of OVF packages"): a
 * manifest with a digest of each file, and a certificate with a signature of the
 * manifest.
 *
 *	x.mf	SHA256(x.ovf)= HEX			a line for each file
 *	x.cert	SHA256(x.mf)= HEX-SIGNATURE		and a certificate in PEM
 *
 * Tools have written it with SHA1, SHA-256 and SHA512, with and without spaces, with
 * CRLF; and some wrong digests. Whoever signed it may be anybody: a certificate is
 * not traced to who issued it.
 */
#ifndef FORMATS_CONTAINERS_MANIFEST_H
#define FORMATS_CONTAINERS_MANIFEST_H

#include "formats/containers/container.h"

#define MANIFEST_BYTES_MAX (16U << 20)

struct manifest_report {
	/* A finding, or what was found to be well. */
	void (*say)(struct manifest_report *r, bool well, const char *line);
	/* Of the bytes that are to be read, so many have been. */
	void (*tell)(struct manifest_report *r, uint64_t done_bytes);

	/* out */
	uint64_t total_bytes; /* set before tell() is called first */
	unsigned int files; /* whose digest is right */
	unsigned int wrong; /* or missing, or unreadable */
	bool has_manifest;
};

/*
 * Reads all of what the manifest of @c names. What is wrong with the package is
 * told and counted; a negative errno is what keeps it from being checked.
 */
int manifest_check(const struct container *c, struct manifest_report *r,
		   struct error *err);

#endif
