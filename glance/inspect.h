/* SPDX-License-Identifier: BSD-3-Clause */
/* What the format drivers say of data before they become an image's. */
#ifndef GLANCE_INSPECT_H
#define GLANCE_INSPECT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/layer.h"
#include "glance/findings.h"
#include "glance/record.h"

struct inspection {
	bool has_virtual_size;
	uint64_t virtual_size; /* bytes */
	uint64_t min_disk; /* GiB; 0: the format does not say */
	struct findings *findings; /* owned */
	char *as; /* owned; admit_label() of what they were said to be */
};

void inspection_done(struct inspection *i);

/*
 * Hands what was found over to @r, to be written with it. @min_disk: also
 * that, unless the client has named one.
 */
void inspection_apply(struct inspection *i, struct record *r, bool min_disk);

/*
 * The driver of what Glance calls @disk_format; NULL: we have none for it (iso
 * and Amazon's kinds are raw blocks).
 */
const char *inspect_format(const char *disk_format);

/*
 * How to open the data of @r as a disk: with what the driver is called, or, of a
 * container, with what is in it, whatever that is. False: they are none.
 */
bool inspect_disk(const struct record *r, struct open_options *ret);

/* The file @fd, which stays the caller's, as a source. */
int inspect_source(int fd, struct source **ret, struct error *err);

/*
 * Are the data in the file @fd, the caller's, what @r says they are? -EINVAL,
 * in the words of a 400: another format, damage, or a reference to anything
 * outside.
 */
int inspect_data(const struct record *r, int fd, struct inspection *ret,
		 struct error *err);

/*
 * What is said of @l, image @id's: as platter info has it, what it refers to,
 * and whether an upload of it would be taken: @refused says why not.
 */
json_t *inspect_report(struct layer *l, const char *id,
		       const struct error *refused);

#endif
