/* SPDX-License-Identifier: BSD-3-Clause */
/* What the format drivers say of data before they become an image's. */
#ifndef GLANCE_INSPECT_H
#define GLANCE_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "glance/record.h"

struct inspection {
	bool has_virtual_size;
	uint64_t virtual_size; /* bytes */
};

/*
 * The driver of what Glance calls @disk_format; NULL: we have none for it (iso
 * and Amazon's kinds are raw blocks).
 */
const char *inspect_format(const char *disk_format);

/*
 * Are the data at @path what @r says they are? -EINVAL, in the words of a 400:
 * another format, damage, or a reference to anything outside.
 */
int inspect_data(const struct record *r, const char *path,
		 struct inspection *ret, struct error *err);

#endif
