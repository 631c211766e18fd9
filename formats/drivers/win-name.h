/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How VHD and VHDX files name their parents: in UTF-16, with backslashes, in
 * several spellings of which some are stale.
 */
#ifndef FORMATS_DRIVERS_WIN_NAME_H
#define FORMATS_DRIVERS_WIN_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layer.h"

/* Names longer than this are ignored. */
#define WIN_NAME_BYTES_MAX (64U << 10)

/*
 * @bytes of UTF-16 as UTF-8, up to the first NUL. NULL: is empty, is not
 * UTF-16, or there is no memory. To be freed.
 */
char *win_name_from_utf16(const uint8_t *buf, size_t bytes, bool big_endian);

/*
 * Makes the slashes of a relative name those of this system; a name with a
 * drive or of a server stays as it is.
 */
void win_name_to_local(char *name);

/* Spellings of one parent, the best first. */
struct win_names {
	struct {
		char *name;
		uint64_t at; /* where in the file */
	} list[8];
	size_t n;
};

/* Takes @name over; NULL is fine, and so is one too many. */
void win_names_add(struct win_names *n, char *name, uint64_t at);
void win_names_done(struct win_names *n);

/*
 * For open(): names the parent by the first spelling that leads to a file,
 * as it is or by its base name in the folder, else by the first, else by its
 * content alone. @format: of the parent.
 */
int win_names_set_parent(struct layer *l, const struct win_names *n,
			 const char *format, struct error *err);

#endif
