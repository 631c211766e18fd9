/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "formats/codec/xml.h"
#include "iouring/library.h"

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

int xml_check_tree(const xmlDoc *doc, unsigned int depth_max, const char *what,
		   struct error *err)
{
	const xmlNode *n = doc->children;
	unsigned int depth = 0;

	while (n) {
		if (n->type == XML_ENTITY_REF_NODE)
			return error_set(err, -EPERM, 0,
					 "%s: entities are refused", what);
		if (n->type == XML_ELEMENT_NODE && n->children) {
			if (++depth > depth_max)
				return error_set(err, -EFBIG, 0,
						 "%s: elements are more than "
						 "%u deep",
						 what, depth_max);
			n = n->children;
			continue;
		}
		while (n && !n->next) {
			n = depth ? n->parent : NULL;
			depth -= depth ? 1 : 0;
		}
		n = n ? n->next : NULL;
	}
	return 0;
}
