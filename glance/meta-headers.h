/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image as the headers of Glance v1 and of Cyclades/Image say it:
 * X-Image-Meta-NAME, X-Image-Meta-Property-NAME, values percent-encoded.
 */
#ifndef GLANCE_META_HEADERS_H
#define GLANCE_META_HEADERS_H

#include "glance/http/http.h"
#include "glance/record.h"

/* What the two dialects have of their own. */
struct dialect {
	const char *name; /* as the index remembers it */
	bool cyclades;
};

/* What headers said. Strings are owned; NULL: not said. */
struct meta {
	char *name, *id, *location, *disk_format, *container_format;
	char *checksum, *owner, *status;
	bool has_size, has_public, has_min_ram, has_min_disk, has_protected;
	bool is_public, protected_;
	bool purge; /* properties that are not named go */
	uint64_t size, min_ram, min_disk;
	struct property *properties;
	size_t n_properties;
};

/* -EINVAL: a header's value is not what it may be; its name is in @err. */
int meta_parse(const struct request *q, struct meta *ret, struct error *err);
/* The same of one header, whatever its name. meta_done() also on failure. */
int meta_add(struct meta *m, const char *name, const char *value,
	     struct error *err);
void meta_done(struct meta *m);

/*
 * v1's rule for Amazon's kinds, which v2 has not: where @m says one of the two
 * formats, the other is the same. One that it does not say becomes so in @r.
 */
int meta_match_formats(const struct meta *m, struct record *r,
		       struct error *err);

/* Sets what @m says in @r. */
int meta_apply(const struct meta *m, struct record *r, struct error *err);

/* Adds @r's headers to the answer. */
void meta_respond(struct request *q, const struct dialect *d,
		  const struct record *r);

/* What the dialects call these. @ret has room for 40 bytes. */
const char *meta_status(const struct dialect *d, enum image_status s);
void meta_time(const struct dialect *d, int64_t usec, char *ret);

#endif
