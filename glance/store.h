/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the data of images lie.
 *
 *	DIR/index.sqlite	the index
 *	DIR/images/XX/ID	data, XX the first two digits of the image's id
 *	DIR/incoming/ID.*	uploads that are not whole yet
 */
#ifndef GLANCE_STORE_H
#define GLANCE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

struct store;

/* Makes what is missing of the folder @path. */
int store_open(const char *path, struct store **ret, struct error *err);
void store_close(struct store *s); /* NULL is fine */

/* The index's file, the store's. */
const char *store_index_path(const struct store *s);

#endif
