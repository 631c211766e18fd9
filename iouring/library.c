/* SPDX-License-Identifier: BSD-3-Clause */
#include <dlfcn.h>

#include "iouring/library.h"

bool library_load(const char *soname, const struct library_symbol *symbols,
		  size_t n_symbols)
{
	void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	size_t i;

	for (i = 0; lib && i < n_symbols; i++) {
		*symbols[i].ret = dlsym(lib, symbols[i].name);
		if (!*symbols[i].ret)
			return false;
	}
	return lib;
}
