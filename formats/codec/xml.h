/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libxml2, loaded when the first XML document is read. It brings the tables of
 * ICU with it, which would be a third of the time in which a server starts;
 * images that are described by XML are rare.
 */
#ifndef FORMATS_CODEC_XML_H
#define FORMATS_CODEC_XML_H

#include <libxml/parser.h>
#include <libxml/tree.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

/* libxml2's functions, under its documentation's names without the prefix. */
struct xml_api {
	void (*init_parser)(void);
	xmlDoc *(*read_memory)(const char *buf, int bytes, const char *url,
			       const char *encoding, int options);
	xmlNode *(*doc_get_root_element)(const xmlDoc *doc);
	xmlChar *(*node_get_content)(const xmlNode *node);
	void (*free_doc)(xmlDoc *doc);
	xmlFreeFunc *free; /* what frees a node's content */
};

/* The functions; NULL and -ENOTSUP in @err when libxml2 is not installed. */
const struct xml_api *xml_load(struct error *err);

/* What a document may be. */
struct xml_limits {
	const char *what; /* for messages */
	size_t bytes_max;
	unsigned int depth_max; /* of elements in each other */
	bool doctype; /* it may have a DTD, which is not looked at */
};

/*
 * Parses @text, UTF-8 whatever it declares, without DTD, entities and network.
 * *ret is the caller's to api.free_doc(). -EFBIG: a limit; -EPERM: entities, a DTD,
 * NUL bytes; -EBADMSG: it is no XML.
 */
int xml_read(const struct xml_api *xml, const uint8_t *text, size_t bytes,
	     const struct xml_limits *limits, xmlDoc **ret, struct error *err);

/*
 * Makes room for one more of a list that a document fills: *@n of @bytes each, at
 * most @max, @things in messages. The new one is zeroed, and counted in *@n.
 * Returns the list, which may have moved; NULL: -EFBIG or -ENOMEM, and the old one
 * stands. A long list costs what it has, not its square.
 */
void *xml_list_grow(const char *what, void *list, size_t *n, size_t max,
		    size_t bytes, const char *things, struct error *err);

#endif
