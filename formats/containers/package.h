/* SPDX-License-Identifier: BSD-3-Clause */
/* OVF packages: containers in which an OVF descriptor says what is what. */
#ifndef FORMATS_CONTAINERS_PACKAGE_H
#define FORMATS_CONTAINERS_PACKAGE_H

#include "formats/containers/container.h"
#include "formats/containers/ovf.h"

/* In capitals or not, and something before it? */
bool container_name_ends(const char *name, const char *end);

/* The first member whose name ends so: ".ovf", ".mf"; or NULL. */
const struct member *package_file(const struct container *c, const char *end);

/*
 * Reads the descriptor, *ret_m; *ret is the caller's to ovf_done(), and empty on
 * failure. -ENOENT: there is none, and *ret_m is NULL.
 */
int package_read(const struct container *c, struct ovf *ret,
		 const struct member **ret_m, struct error *err);

/* The member that @d of @o is; NULL: it has no file, or that is not there. */
const struct member *package_disk(const struct container *c,
				  const struct ovf *o,
				  const struct member *descriptor,
				  const struct ovf_disk *d);

/* The member that the descriptor's disk @id is, or NULL. */
const struct member *package_find(const struct container *c, const char *id);

/*
 * For container_open(): adds what lies in pieces of ovf:chunkSize, NAME.000000000
 * up, as NAME. 0 or a negative errno.
 */
int package_join(struct container *c, struct error *err);

#endif
