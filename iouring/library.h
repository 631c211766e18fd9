/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Libraries that few images need. To load one costs about a millisecond, as
 * much as opening an image: so it is done when the first such image is opened.
 */
#ifndef IOURING_LIBRARY_H
#define IOURING_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

struct library_symbol {
	const char *name;
	void **ret;
};

/*
 * Loads @soname for good (libraries keep data of each thread) and looks up
 * all of @symbols. Returns false when it is not installed or lacks one.
 */
bool library_load(const char *soname, const struct library_symbol *symbols,
		  size_t n_symbols);

#endif
