/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

/* Nothing but elements and text, and not too deep? */
static int check_tree(const xmlDoc *doc, unsigned int depth_max,
		      const char *what, struct error *err)
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

int xml_read(const struct xml_api *xml, const uint8_t *text, size_t bytes,
	     const struct xml_limits *l, xmlDoc **ret, struct error *err)
{
	xmlDoc *doc;
	int r;

	if (bytes > l->bytes_max)
		return error_set(err, -EFBIG, 0,
				 "%s of %zu bytes is over the limit of %zu",
				 l->what, bytes, l->bytes_max);
	/* Some end in NULs, which are no XML. */
	while (bytes && !text[bytes - 1])
		bytes--;
	if (!l->doctype && memmem(text, bytes, "<!DOCTYPE", 9))
		return error_set(err, -EPERM, 0, "%s: a DTD is refused",
				 l->what);
	if (memmem(text, bytes, "<!ENTITY", 8) || memchr(text, 0, bytes))
		return error_set(err, -EPERM, 0,
				 "%s: entities are refused, and so are NUL "
				 "bytes",
				 l->what);
	/* Whatever encoding it declares: no other may hide an entity. */
	doc = xml->read_memory((const char *)text, (int)bytes, NULL, "UTF-8",
			       XML_PARSE_NONET | XML_PARSE_NOERROR |
				       XML_PARSE_NOWARNING | XML_PARSE_NOCDATA);
	if (!doc)
		return error_set(err, -EBADMSG, 0, "%s is not well-formed XML",
				 l->what);
	r = !l->doctype && (doc->intSubset || doc->extSubset)
		    ? error_set(err, -EPERM, 0, "%s: a DTD is refused", l->what)
		    : check_tree(doc, l->depth_max, l->what, err);
	if (r < 0)
		xml->free_doc(doc);
	else
		*ret = doc;
	return r;
}

void *xml_list_grow(const char *what, void *list, size_t *n, size_t max,
		    size_t bytes, const char *things, struct error *err)
{
	uint8_t *grown = list;

	if (*n == max) {
		error_set(err, -EFBIG, 0, "%s: more than %zu %s", what, max,
			  things);
		return NULL;
	}
	/* At 0, 1, 2, 4, ... it is full. */
	if (!(*n & (*n - 1)))
		grown = reallocarray(list, *n ? 2 * *n : 1, bytes);
	if (!grown) {
		error_set(err, -ENOMEM, 0, "out of memory");
		return NULL;
	}
	memset(grown + *n * bytes, 0, bytes);
	++*n;
	return grown;
}
