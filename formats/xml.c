/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "formats/library.h"
#include "formats/xml.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct xml_api api;
static bool loaded;

static void load(void)
{
	static const struct library_symbol symbols[] = {
		{ "xmlInitParser", (void **)&api.init_parser },
		{ "xmlReadMemory", (void **)&api.read_memory },
		{ "xmlDocGetRootElement", (void **)&api.doc_get_root_element },
		{ "xmlNodeGetContent", (void **)&api.node_get_content },
		{ "xmlFreeDoc", (void **)&api.free_doc },
		{ "xmlFree", (void **)&api.free },
	};

	loaded = library_load("libxml2.so.2", symbols, ARRAY_SIZE(symbols));
	if (loaded)
		api.init_parser();
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
