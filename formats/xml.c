/* SPDX-License-Identifier: BSD-3-Clause */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include "formats/xml.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct xml_api api;
static bool loaded;

static void load(void)
{
	const struct {
		const char *name;
		void **ret;
	} symbols[] = {
		{ "xmlInitParser", (void **)&api.init_parser },
		{ "xmlReadMemory", (void **)&api.read_memory },
		{ "xmlDocGetRootElement", (void **)&api.doc_get_root_element },
		{ "xmlNodeGetContent", (void **)&api.node_get_content },
		{ "xmlFreeDoc", (void **)&api.free_doc },
		{ "xmlFree", (void **)&api.free },
	};
	/* Stays loaded: it keeps data of its own for each thread. */
	void *lib = dlopen("libxml2.so.2", RTLD_NOW | RTLD_LOCAL);
	size_t i;

	for (i = 0; lib && i < ARRAY_SIZE(symbols); i++) {
		*symbols[i].ret = dlsym(lib, symbols[i].name);
		if (!*symbols[i].ret)
			return;
	}
	if (!lib)
		return;
	api.init_parser();
	loaded = true;
}

const struct xml_api *xml_load(struct error *err)
{
	pthread_once(&once, load);
	if (!loaded) {
		error_set(err, -ENOTSUP, 0,
			  "libxml2 is needed to read this, and not installed");
		return NULL;
	}
	return &api;
}
