/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/codec/xml.h"
#include "formats/containers/ovf.h"
#include "iouring/util.h"

/* CIM_ResourceAllocationSettingData.ResourceType */
enum { RESOURCE_CPU = 3, RESOURCE_MEMORY = 4 };

struct parse {
	const struct xml_api *xml;
	struct ovf *ovf;
	struct ovf_system *system; /* that elements belong to; NULL: none */
	char *configuration; /* the one that is chosen unless another is asked
				for; NULL: there are none */
	struct error *err;
};

void ovf_done(struct ovf *o)
{
	size_t i;

	for (i = 0; i < o->n_files; i++) {
		free(o->files[i].id);
		free(o->files[i].href);
		free(o->files[i].compression);
	}
	for (i = 0; i < o->n_disks; i++) {
		free(o->disks[i].id);
		free(o->disks[i].file_ref);
		free(o->disks[i].parent_ref);
		free(o->disks[i].format);
	}
	for (i = 0; i < o->n_networks; i++)
		free(o->networks[i]);
	for (i = 0; i < o->n_systems; i++) {
		free(o->systems[i].id);
		free(o->systems[i].name);
		free(o->systems[i].os);
		free(o->systems[i].firmware);
	}
	free(o->files);
	free(o->disks);
	free(o->networks);
	free(o->systems);
	*o = (struct ovf){ 0 };
}

/* ---- elements ---- */

static bool is_element(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE &&
	       !strcmp((const char *)n->name, name);
}

static const xmlNode *child(const xmlNode *n, const char *name)
{
	for (n = n->children; n; n = n->next)
		if (is_element(n, name))
			return n;
	return NULL;
}

/* Without spaces around it. To be freed; NULL: nothing is left, or no memory. */
static char *trimmed(const char *text)
{
	size_t n;

	while (isspace((unsigned char)*text))
		text++;
	n = strlen(text);
	while (n && isspace((unsigned char)text[n - 1]))
		n--;
	return n ? strndup(text, n) : NULL;
}

static char *text_of(const struct parse *p, const xmlNode *n)
{
	char *text = n ? (char *)p->xml->node_get_content(n) : NULL;
	char *ret = text ? trimmed(text) : NULL;

	(*p->xml->free)(text);
	return ret;
}

static char *child_text(const struct parse *p, const xmlNode *n,
			const char *name)
{
	return text_of(p, child(n, name));
}

/* An attribute, of whatever name space. */
static char *attribute(const struct parse *p, const xmlNode *n,
		       const char *name)
{
	const xmlAttr *a;

	for (a = n->properties; a; a = a->next)
		if (!strcmp((const char *)a->name, name))
			return text_of(p, (const xmlNode *)a);
	return NULL;
}

/* A number of digits alone; 0: it is none, or is too big. */
static uint64_t number(const char *text)
{
	uint64_t v = 0;

	for (; text && isdigit((unsigned char)*text); text++) {
		if (v > (INT64_MAX - 9) / 10)
			return 0;
		v = v * 10 + (uint64_t)(*text - '0');
	}
	return text && !*text ? v : 0;
}

/* ---- units ---- */

/*
 * "byte * 2^20", "byte*2^30", "MegaBytes", "GB", "" (bytes) as a shift; -1: it is
 * none. DSP0004, annex C, and what was written before it.
 */
static int unit_shift(const char *unit)
{
	static const struct {
		const char *name;
		int shift;
	} words[] = {
		{ "byte", 0 },	     { "bytes", 0 },	  { "kilobytes", 10 },
		{ "kb", 10 },	     { "kib", 10 },	  { "megabytes", 20 },
		{ "mb", 20 },	     { "mib", 20 },	  { "gigabytes", 30 },
		{ "gb", 30 },	     { "gib", 30 },	  { "terabytes", 40 },
		{ "byte*2^10", 10 }, { "byte*2^20", 20 }, { "byte*2^30", 30 },
		{ "byte*2^40", 40 },
	};
	char tight[24];
	size_t n = 0, i;

	if (!unit)
		return 0;
	for (; *unit && n + 1 < sizeof(tight); unit++)
		if (!isspace((unsigned char)*unit))
			tight[n++] = *unit;
	tight[n] = '\0';
	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(tight, words[i].name))
			return words[i].shift;
	return -1;
}

/* 0: it is not said, or not to be understood. */
static uint64_t in_bytes(uint64_t n, const char *unit)
{
	int shift = unit_shift(unit);

	return shift < 0 || n > (uint64_t)INT64_MAX >> shift ? 0 : n << shift;
}

/* ---- what is taken ---- */

static void *grow(struct parse *p, void *list, size_t *n, size_t max,
		  size_t bytes, const char *things)
{
	return xml_list_grow("OVF descriptor", list, n, max, bytes, things,
			     p->err);
}

static int take_file(struct parse *p, const xmlNode *n)
{
	struct ovf *o = p->ovf;
	struct ovf_file *f = grow(p, o->files, &o->n_files, OVF_FILES_MAX,
				  sizeof(*f), "files");
	CLEANUP(freep) char *chunk = NULL;

	if (!f)
		return p->err->code;
	o->files = f;
	f += o->n_files - 1;
	f->id = attribute(p, n, "id");
	f->href = attribute(p, n, "href");
	f->compression = attribute(p, n, "compression");
	chunk = attribute(p, n, "chunkSize");
	f->chunk_bytes = number(chunk);
	return 0;
}

static int take_disk(struct parse *p, const xmlNode *n)
{
	struct ovf *o = p->ovf;
	struct ovf_disk *d = grow(p, o->disks, &o->n_disks, OVF_DISKS_MAX,
				  sizeof(*d), "disks");
	CLEANUP(freep) char *capacity = NULL;
	CLEANUP(freep) char *unit = NULL;

	if (!d)
		return p->err->code;
	o->disks = d;
	d += o->n_disks - 1;
	d->id = attribute(p, n, "diskId");
	d->file_ref = attribute(p, n, "fileRef");
	d->parent_ref = attribute(p, n, "parentRef");
	d->format = attribute(p, n, "format");
	capacity = attribute(p, n, "capacity");
	unit = attribute(p, n, "capacityAllocationUnits");
	d->capacity = in_bytes(number(capacity), unit);
	return 0;
}

static int take_network(struct parse *p, const xmlNode *n)
{
	struct ovf *o = p->ovf;
	char *name = attribute(p, n, "name"), **names;

	if (!name)
		return 0;
	names = grow(p, o->networks, &o->n_networks, OVF_NETWORKS_MAX,
		     sizeof(*names), "networks");
	if (!names) {
		free(name);
		return p->err->code;
	}
	o->networks = names;
	names[o->n_networks - 1] = name;
	return 0;
}

static int begin_system(struct parse *p, const xmlNode *n)
{
	struct ovf *o = p->ovf;
	struct ovf_system *s = grow(p, o->systems, &o->n_systems,
				    OVF_SYSTEMS_MAX, sizeof(*s), "machines");

	if (!s)
		return p->err->code;
	o->systems = s;
	p->system = s + o->n_systems - 1;
	p->system->id = attribute(p, n, "id");
	p->system->name = child_text(p, n, "Name");
	return 0;
}

/* Is it of the configuration that a machine has unless another is asked for? */
static bool is_chosen(const struct parse *p, const xmlNode *item)
{
	CLEANUP(freep) char *of = attribute(p, item, "configuration");
	const char *s = of;
	size_t n;

	if (!of)
		return true;
	while (p->configuration && *s) {
		n = strcspn(s, " ");
		if (n == strlen(p->configuration) &&
		    !memcmp(s, p->configuration, n))
			return true;
		s += n + (s[n] == ' ');
	}
	return false;
}

/* One of a configuration stands in the place of one of the same number. */
static void take_item(struct parse *p, const xmlNode *n)
{
	CLEANUP(freep) char *type = child_text(p, n, "ResourceType");
	CLEANUP(freep) char *quantity = child_text(p, n, "VirtualQuantity");
	CLEANUP(freep) char *unit = child_text(p, n, "AllocationUnits");
	uint64_t v = number(quantity);

	if (!is_chosen(p, n))
		return;
	if (number(type) == RESOURCE_CPU)
		p->system->cpus = v;
	else if (number(type) == RESOURCE_MEMORY)
		p->system->memory_bytes =
			in_bytes(v, unit ? unit : "MegaBytes");
}

/* VMware's <Config key="firmware" value="efi"/>, VirtualBox's <Firmware type=>. */
static void take_firmware(struct parse *p, const xmlNode *n)
{
	CLEANUP(freep) char *key = attribute(p, n, "key");
	char **to = &p->system->firmware;
	bool config = is_element(n, "Config");

	if (*to || (config && (!key || strcmp(key, "firmware") != 0)))
		return;
	*to = attribute(p, n, config ? "value" : "type");
}

static void take_os(struct parse *p, const xmlNode *n)
{
	char *os = attribute(p, n, "osType");

	if (!os)
		os = child_text(p, n, "Description");
	free(p->system->os);
	p->system->os = os;
}

/* xsi:type of a 0.9's <Section> and <Content>. */
static bool has_type(const struct parse *p, const xmlNode *n, const char *what)
{
	CLEANUP(freep) char *type = attribute(p, n, "type");

	return type && strstr(type, what);
}

static bool is_system(const struct parse *p, const xmlNode *n)
{
	return is_element(n, "VirtualSystem") ||
	       (is_element(n, "Content") && has_type(p, n, "VirtualSystem_T"));
}

static bool is_os(const struct parse *p, const xmlNode *n)
{
	return is_element(n, "OperatingSystemSection") ||
	       (is_element(n, "Section") && has_type(p, n, "OperatingSystem"));
}

/* <Configuration id= default=>: the first, or the one that says so. */
static void take_configuration(struct parse *p, const xmlNode *n)
{
	CLEANUP(freep) char *is_default = attribute(p, n, "default");
	bool chosen = is_default &&
		      (!strcmp(is_default, "true") || !strcmp(is_default, "1"));

	if (p->configuration && !chosen)
		return;
	free(p->configuration);
	p->configuration = attribute(p, n, "id");
}

static int take_element(struct parse *p, const xmlNode *n)
{
	if (is_system(p, n))
		return begin_system(p, n);
	if (is_element(n, "File"))
		return take_file(p, n);
	if (is_element(n, "Disk") && !p->system)
		return take_disk(p, n);
	if (is_element(n, "Network") && !p->system)
		return take_network(p, n);
	if (is_element(n, "Configuration") && !p->system)
		take_configuration(p, n);
	if (!p->system)
		return 0;
	if (is_element(n, "Item"))
		take_item(p, n);
	else if (is_os(p, n))
		take_os(p, n);
	else if (is_element(n, "Config") || is_element(n, "Firmware"))
		take_firmware(p, n);
	return 0;
}

/* All elements, in their order; xml_read() has seen how deep they are. */
static int walk(struct parse *p, const xmlNode *root)
{
	const xmlNode *n = root, *system = NULL;
	int r = 0;

	while (n && r >= 0) {
		if (n->type == XML_ELEMENT_NODE)
			r = take_element(p, n);
		if (!system && p->system)
			system = n;
		if (n->type == XML_ELEMENT_NODE && n->children) {
			n = n->children;
			continue;
		}
		while (n && n != root && !n->next) {
			n = n->parent;
			if (n == system)
				p->system = NULL;
			if (n == system)
				system = NULL;
		}
		n = n && n != root ? n->next : NULL;
	}
	return r;
}

static int take_document(struct parse *p, const xmlDoc *doc)
{
	const xmlNode *root = p->xml->doc_get_root_element(doc);

	if (!root || !is_element(root, "Envelope"))
		return error_set(p->err, -EBADMSG, 0,
				 "OVF descriptor: it has no Envelope");
	return walk(p, root);
}

int ovf_parse(const uint8_t *text, size_t bytes, struct ovf *ret,
	      struct error *err)
{
	struct error own = { 0 };
	struct parse p = { .ovf = ret, .err = err ? err : &own };
	xmlDoc *doc;
	int r;

	*ret = (struct ovf){ 0 };
	p.xml = xml_load(p.err);
	if (!p.xml)
		return p.err->code;
	r = xml_read(p.xml, text, bytes,
		     &(struct xml_limits){ .what = "OVF descriptor",
					   .bytes_max = OVF_BYTES_MAX,
					   .depth_max = OVF_DEPTH_MAX },
		     &doc, p.err);
	if (r < 0)
		return r;
	r = take_document(&p, doc);
	p.xml->free_doc(doc);
	free(p.configuration);
	if (r < 0)
		ovf_done(ret);
	return r;
}

/* ---- what leads where ---- */

const struct ovf_file *ovf_file_of(const struct ovf *o,
				   const struct ovf_disk *d)
{
	size_t i;

	for (i = 0; d->file_ref && i < o->n_files; i++)
		if (o->files[i].id && o->files[i].href &&
		    !strcmp(o->files[i].id, d->file_ref))
			return &o->files[i];
	return NULL;
}

const struct ovf_disk *ovf_disk(const struct ovf *o, const char *id)
{
	size_t i;

	for (i = 0; i < o->n_disks; i++)
		if (o->disks[i].id && !strcmp(o->disks[i].id, id))
			return &o->disks[i];
	return NULL;
}

const struct ovf_disk *ovf_disk_of_file(const struct ovf *o, const char *href)
{
	const struct ovf_file *f;
	size_t i;

	for (i = 0; i < o->n_disks; i++) {
		f = ovf_file_of(o, &o->disks[i]);
		if (f && !strcmp(f->href, href))
			return &o->disks[i];
	}
	return NULL;
}
