/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "formats/drivers/dmg-plist.h"
#include "formats/codec/xml.h"

static bool is_element(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE &&
	       !strcmp((const char *)n->name, name);
}

static const xmlNode *next_element(const xmlNode *n)
{
	while (n && n->type != XML_ELEMENT_NODE)
		n = n->next;
	return n;
}

static bool has_text(const struct xml_api *xml, const xmlNode *n,
		     const char *want)
{
	xmlChar *text = xml->node_get_content(n);
	bool same = text && !strcmp((const char *)text, want);

	(*xml->free)(text);
	return same;
}

/* The value of @key, an element @kind, in @dict; NULL: there is none. */
static const xmlNode *dict_value(const struct xml_api *xml, const xmlNode *dict,
				 const char *key, const char *kind)
{
	const xmlNode *n, *value;

	for (n = next_element(dict->children); n; n = next_element(n->next)) {
		if (!is_element(n, "key") || !has_text(xml, n, key))
			continue;
		value = next_element(n->next);
		return value && is_element(value, kind) ? value : NULL;
	}
	return NULL;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/*
 * Decodes @text in place, spaces between its digits left out. Returns how many
 * bytes there are, or SIZE_MAX where it is not base64.
 */
static size_t base64_decode(char *text)
{
	uint8_t *to = (uint8_t *)text;
	unsigned int bits = 0;
	uint32_t word = 0;
	const char *p;
	int digit;

	for (p = text; *p && *p != '='; p++) {
		if (isspace((unsigned char)*p))
			continue;
		digit = base64_digit(*p);
		if (digit < 0)
			return SIZE_MAX;
		word = word << 6 | (uint32_t)digit;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			*to++ = (uint8_t)(word >> bits);
		}
	}
	return (size_t)(to - (uint8_t *)text);
}

struct visit {
	const struct xml_api *xml;
	int (*each)(void *opaque, const uint8_t *list, size_t bytes,
		    struct error *err);
	void *opaque;
};

static int visit_list(const struct visit *v, const xmlNode *entry,
		      struct error *err)
{
	const xmlNode *data = dict_value(v->xml, entry, "Data", "data");
	char *text = data ? (char *)v->xml->node_get_content(data) : NULL;
	size_t bytes = text ? base64_decode(text) : SIZE_MAX;
	int r;

	if (bytes == SIZE_MAX)
		r = error_set(err, -EBADMSG, 0,
			      "property list: a blkx entry has no Data, or not "
			      "in base64");
	else
		r = v->each(v->opaque, (const uint8_t *)text, bytes, err);
	(*v->xml->free)(text);
	return r;
}

static const xmlNode *find_lists(const struct xml_api *xml, const xmlNode *root)
{
	const xmlNode *n = root && is_element(root, "plist")
				   ? next_element(root->children)
				   : NULL;

	if (n && is_element(n, "dict"))
		n = dict_value(xml, n, "resource-fork", "dict");
	return n && is_element(n, "dict") ? dict_value(xml, n, "blkx", "array")
					  : NULL;
}

static int visit_lists(const struct visit *v, const xmlDoc *doc,
		       struct error *err)
{
	const xmlNode *lists =
		find_lists(v->xml, v->xml->doc_get_root_element(doc));
	const xmlNode *n;
	unsigned int count = 0;
	int r = 0;

	if (!lists)
		return error_set(err, -EBADMSG, 0,
				 "property list has no resource-fork with an "
				 "array blkx");
	for (n = next_element(lists->children); n && !r;
	     n = next_element(n->next)) {
		if (++count > DMG_BLKX_MAX)
			return error_set(err, -EFBIG, 0,
					 "property list has more than %u blkx "
					 "entries",
					 DMG_BLKX_MAX);
		r = visit_list(v, n, err);
	}
	return r;
}

int dmg_plist_each(const uint8_t *text, size_t bytes,
		   int (*each)(void *opaque, const uint8_t *list, size_t bytes,
			       struct error *err),
		   void *opaque, struct error *err)
{
	struct visit v = { .each = each, .opaque = opaque };
	xmlDoc *doc;
	int r;

	v.xml = xml_load(err);
	if (!v.xml)
		return err ? err->code : -ENOTSUP;
	r = xml_read(v.xml, text, bytes,
		     &(struct xml_limits){ .what = "property list",
					   .bytes_max = DMG_PLIST_MAX,
					   .depth_max = DMG_PLIST_DEPTH_MAX,
					   .doctype = true },
		     &doc, err);
	if (r < 0)
		return r;
	r = visit_lists(&v, doc, err);
	v.xml->free_doc(doc);
	return r;
}
