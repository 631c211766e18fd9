/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/drivers/ploop-bundle.h"
#include "formats/codec/xml.h"

#define DEFAULT_TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define NO_GUID	    "00000000-0000-0000-0000-000000000000"

/* As messages spell it when the descriptor does not. */
#define FILE_NAME_MAX 1023U

static const char *const roots[] = { "Parallels_disk_image",
				     "Virtuozzo_disk_image" };

bool guid_parse(struct guid *ret, const char *text)
{
	size_t len = strlen(text), i;
	struct guid g = { 0 };

	if (len == 38 && text[0] == '{' && text[37] == '}')
		text++;
	else if (len != 36)
		return false;
	for (i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
		g.text[i] = (char)tolower((unsigned char)text[i]);
	}
	*ret = g;
	return true;
}

bool guid_equal(const struct guid *a, const struct guid *b)
{
	return !strcmp(a->text, b->text);
}

bool bundle_probe(const uint8_t *head, size_t bytes)
{
	size_t i = 0, r;

	if (bytes >= 3 && !memcmp(head, "\xef\xbb\xbf", 3))
		i = 3;
	while (i < bytes && isspace(head[i]))
		i++;
	if (i == bytes || head[i] != '<')
		return false;
	/* Behind the XML declaration and comments. */
	bytes = min_size(bytes, 4096);
	for (; i < bytes; i++) {
		if (head[i] != '<')
			continue;
		for (r = 0; r < ARRAY_SIZE(roots); r++)
			if (range_inside(i + 1, strlen(roots[r]), bytes) &&
			    !memcmp(head + i + 1, roots[r], strlen(roots[r])))
				return true;
	}
	return false;
}

void bundle_done(struct bundle *b)
{
	size_t i, k;

	for (i = 0; i < b->n_storages; i++) {
		for (k = 0; k < b->storages[i].n_images; k++)
			free(b->storages[i].images[k].file);
		free(b->storages[i].images);
	}
	free(b->storages);
	for (i = 0; i < b->n_shots; i++)
		free(b->shots[i].name);
	free(b->shots);
	*b = (struct bundle){ 0 };
}

const struct bundle_image *bundle_image(const struct bundle_storage *s,
					const struct guid *guid)
{
	size_t i;

	for (i = 0; i < s->n_images; i++)
		if (guid_equal(&s->images[i].guid, guid))
			return &s->images[i];
	return NULL;
}

struct guid bundle_parent(const struct bundle *b, const struct guid *guid)
{
	size_t i;

	for (i = 0; i < b->n_shots; i++)
		if (guid_equal(&b->shots[i].guid, guid))
			return b->shots[i].parent;
	return (struct guid){ 0 };
}

static void *grow(void *list, size_t *n, size_t max, size_t bytes,
		  const char *things, struct error *err)
{
	return xml_list_grow(BUNDLE_XML_NAME, list, n, max, bytes, things, err);
}

static bool is_element(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE &&
	       !strcmp((const char *)n->name, name);
}

static const xmlNode *child(const xmlNode *n, const char *name)
{
	for (n = n ? n->children : NULL; n; n = n->next)
		if (is_element(n, name))
			return n;
	return NULL;
}

/* The text of @parent's element @name, without spaces around it. */
static char *child_text(const xmlNode *parent, const char *name,
			struct error *err)
{
	const struct xml_api *xml = xml_load(err);
	const xmlNode *n = child(parent, name);
	char *text, *from, *ret;
	size_t len;

	if (!xml)
		return NULL;
	if (!n) {
		error_set(err, -EBADMSG, 0, BUNDLE_XML_NAME ": %s has no %s",
			  (const char *)parent->name, name);
		return NULL;
	}
	text = (char *)xml->node_get_content(n);
	from = text ? text : "";
	while (isspace((unsigned char)*from))
		from++;
	len = strlen(from);
	while (len && isspace((unsigned char)from[len - 1]))
		len--;
	ret = strndup(from, len);
	(*xml->free)(text);
	if (!ret)
		error_set(err, -ENOMEM, 0, "out of memory");
	return ret;
}

static int child_number(const xmlNode *parent, const char *name, uint64_t *ret,
			struct error *err)
{
	CLEANUP(freep) char *text = child_text(parent, name, err);
	char *end;
	uint64_t v;

	if (!text)
		return err->code;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno ||
	    v > BUNDLE_SECTORS_MAX)
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME
				 ": %s \"%.40s\" is not a number of sectors",
				 name, text);
	*ret = v;
	return 0;
}

static int child_guid(const xmlNode *parent, const char *name, struct guid *ret,
		      struct error *err)
{
	CLEANUP(freep) char *text = child_text(parent, name, err);

	if (!text)
		return err->code;
	if (!guid_parse(ret, text))
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME ": %s \"%.40s\" is not a GUID",
				 name, text);
	return 0;
}

static int take_type(const xmlNode *node, struct bundle_image *ret,
		     struct error *err)
{
	CLEANUP(freep) char *type = child_text(node, "Type", err);

	if (!type)
		return err->code;
	ret->plain = !strcmp(type, "Plain");
	if (!ret->plain && strcmp(type, "Compressed"))
		return error_set(err, -ENOTSUP, 0,
				 BUNDLE_XML_NAME
				 ": image type \"%.40s\" is "
				 "not supported; Compressed and Plain are",
				 type);
	return 0;
}

static int take_image(const xmlNode *node, struct bundle_storage *s,
		      struct error *err)
{
	struct bundle_image *images, *i;
	struct guid guid;
	int r;

	r = child_guid(node, "GUID", &guid, err);
	if (r < 0)
		return r;
	if (bundle_image(s, &guid))
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME
				 ": a storage has two images {%s}",
				 guid.text);
	images = grow(s->images, &s->n_images, BUNDLE_IMAGES_MAX,
		      sizeof(*images), "images of a storage", err);
	if (!images)
		return err->code;
	s->images = images;
	i = &images[s->n_images - 1];
	i->guid = guid;
	r = take_type(node, i, err);
	if (r < 0)
		return r;
	i->file = child_text(node, "File", err);
	if (!i->file)
		return err->code;
	if (!i->file[0] || strlen(i->file) > FILE_NAME_MAX)
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME
				 ": file name of image {%s} has not 1 to %u "
				 "bytes",
				 guid.text, FILE_NAME_MAX);
	return 0;
}

static int take_storage(const xmlNode *node, struct bundle *b,
			struct error *err)
{
	struct bundle_storage *storages, *s;
	const xmlNode *n;
	int r;

	storages = grow(b->storages, &b->n_storages, BUNDLE_STORAGES_MAX,
			sizeof(*storages), "storages", err);
	if (!storages)
		return err->code;
	b->storages = storages;
	s = &storages[b->n_storages - 1];
	r = child_number(node, "Start", &s->start, err);
	if (r >= 0)
		r = child_number(node, "End", &s->end, err);
	if (r >= 0 && s->end < s->start)
		r = error_set(err, -EBADMSG, 0,
			      BUNDLE_XML_NAME ": a storage begins at %" PRIu64
					      " and ends at %" PRIu64,
			      s->start, s->end);
	for (n = node->children; n && r >= 0; n = n->next)
		if (is_element(n, "Image"))
			r = take_image(n, s, err);
	if (r >= 0 && !s->n_images)
		r = error_set(err, -EBADMSG, 0,
			      BUNDLE_XML_NAME ": a storage has no Image");
	return r;
}

static int take_shot(const xmlNode *node, struct bundle *b, struct error *err)
{
	struct bundle_shot *shots, shot = { 0 };
	size_t i;
	int r;

	r = child_guid(node, "GUID", &shot.guid, err);
	if (r >= 0)
		r = child_guid(node, "ParentGUID", &shot.parent, err);
	if (r < 0)
		return r;
	if (!strcmp(shot.parent.text, NO_GUID))
		shot.parent = (struct guid){ 0 };
	for (i = 0; i < b->n_shots; i++)
		if (guid_equal(&b->shots[i].guid, &shot.guid))
			return error_set(err, -EBADMSG, 0,
					 BUNDLE_XML_NAME ": two shots {%s}",
					 shot.guid.text);
	shots = grow(b->shots, &b->n_shots, BUNDLE_SHOTS_MAX, sizeof(*shots),
		     "shots", err);
	if (!shots)
		return err->code;
	b->shots = shots;
	shots[b->n_shots - 1] = shot;
	return 0;
}

/* Without TopGUID it is the predefined one, or the only one there is. */
static int take_top(const xmlNode *snapshots, struct bundle *b,
		    struct error *err)
{
	if (snapshots && child(snapshots, "TopGUID"))
		return child_guid(snapshots, "TopGUID", &b->top, err);
	guid_parse(&b->top, DEFAULT_TOP);
	if (!bundle_image(&b->storages[0], &b->top) &&
	    b->storages[0].n_images == 1)
		b->top = b->storages[0].images[0].guid;
	return 0;
}

static int take_snapshots(const xmlNode *root, struct bundle *b,
			  struct error *err)
{
	const xmlNode *node = child(root, "Snapshots"), *n;
	int r = 0;

	for (n = node ? node->children : NULL; n && r >= 0; n = n->next)
		if (is_element(n, "Shot"))
			r = take_shot(n, b, err);
	return r < 0 ? r : take_top(node, b, err);
}

static int by_start(const void *a, const void *b)
{
	const struct bundle_storage *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static int take_storages(const xmlNode *root, struct bundle *b,
			 struct error *err)
{
	const xmlNode *node = child(root, "StorageData"), *n;
	size_t i;
	int r = 0;

	for (n = node ? node->children : NULL; n && r >= 0; n = n->next)
		if (is_element(n, "Storage"))
			r = take_storage(n, b, err);
	if (r >= 0 && !b->n_storages)
		r = error_set(err, -EBADMSG, 0,
			      BUNDLE_XML_NAME ": there is no Storage");
	if (r < 0)
		return r;
	qsort(b->storages, b->n_storages, sizeof(*b->storages), by_start);
	for (i = 1; i < b->n_storages; i++)
		if (b->storages[i].start < b->storages[i - 1].end)
			return error_set(
				err, -EBADMSG, 0,
				BUNDLE_XML_NAME
				": storages overlap at sector %" PRIu64,
				b->storages[i].start);
	return 0;
}

/* Disks that are not as this reads them. */
static int check_parameters(const xmlNode *params, struct error *err)
{
	const xmlNode *crypt = child(params, "Encryption");
	struct guid engine = { 0 };
	uint64_t padding = 0;
	int r = 0;

	if (child(params, "Padding"))
		r = child_number(params, "Padding", &padding, err);
	if (r >= 0 && padding)
		r = error_set(err, -ENOTSUP, 0,
			      BUNDLE_XML_NAME ": disks with Padding %" PRIu64
					      " are not supported",
			      padding);
	if (r >= 0 && crypt && child(crypt, "Engine"))
		r = child_guid(crypt, "Engine", &engine, err);
	if (r >= 0 && engine.text[0] && strcmp(engine.text, NO_GUID))
		r = error_set(err, -ENOTSUP, 0,
			      BUNDLE_XML_NAME ": encryption engine {%s} is not "
					      "supported",
			      engine.text);
	return r;
}

static int take_root(const xmlNode *root, struct bundle *b, struct error *err)
{
	const xmlNode *params;
	int r;

	if (!root ||
	    (!is_element(root, roots[0]) && !is_element(root, roots[1])))
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME
				 ": root element is %.40s, not "
				 "Parallels_disk_image or Virtuozzo_disk_image",
				 root ? (const char *)root->name : "missing");
	params = child(root, "Disk_Parameters");
	if (!params)
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME ": there are no "
						 "Disk_Parameters");
	r = child_number(params, "Disk_size", &b->disk_sectors, err);
	if (r >= 0)
		r = check_parameters(params, err);
	if (r >= 0)
		r = take_storages(root, b, err);
	return r < 0 ? r : take_snapshots(root, b, err);
}

typedef int take_fn(const xmlNode *root, struct bundle *b, struct error *err);

/* What a document says, once it is known to be tame. @what: its name. */
static int parse(const uint8_t *text, size_t bytes, const char *what,
		 unsigned int depth_max, take_fn *take, struct bundle *b,
		 struct error *err)
{
	const struct xml_api *xml = xml_load(err);
	xmlDoc *doc;
	int r;

	if (!xml)
		return err ? err->code : -ENOTSUP;
	r = xml_read(xml, text, bytes,
		     &(struct xml_limits){ .what = what,
					   .bytes_max = BUNDLE_XML_MAX,
					   .depth_max = depth_max },
		     &doc, err);
	if (r < 0)
		return r;
	r = take(xml->doc_get_root_element(doc), b, err);
	xml->free_doc(doc);
	return r;
}

int bundle_parse(const uint8_t *text, size_t bytes, struct bundle *ret,
		 struct error *err)
{
	return parse(text, bytes, BUNDLE_XML_NAME, BUNDLE_DEPTH_MAX, take_root,
		     ret, err);
}

/* The shot that @item is about; NULL: none of this disk. */
static struct bundle_shot *shot_of(const xmlNode *item, struct bundle *b)
{
	const xmlAttr *a = item->properties;
	struct guid guid;
	size_t i;

	while (a && strcmp((const char *)a->name, "guid"))
		a = a->next;
	if (!a || !a->children || a->children->type != XML_TEXT_NODE ||
	    !guid_parse(&guid, (const char *)a->children->content))
		return NULL;
	for (i = 0; i < b->n_shots; i++)
		if (guid_equal(&b->shots[i].guid, &guid))
			return &b->shots[i];
	return NULL;
}

/* @parent's items and those in them, as deep as parse() lets them be. */
static int take_names(const xmlNode *parent, struct bundle *b,
		      struct error *err)
{
	const xmlNode *n;
	int r = 0;

	for (n = parent->children; n && r >= 0; n = n->next) {
		struct bundle_shot *shot;

		if (!is_element(n, "SavedStateItem"))
			continue;
		shot = shot_of(n, b);
		if (shot && !shot->name && child(n, "Name")) {
			shot->name = child_text(n, "Name", err);
			if (!shot->name)
				return err->code;
		}
		r = take_names(n, b, err);
	}
	return r;
}

static int take_states(const xmlNode *root, struct bundle *b, struct error *err)
{
	if (!root || !is_element(root, "ParallelsSavedStates"))
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_NAMES_NAME
				 ": root element is %.40s, not "
				 "ParallelsSavedStates",
				 root ? (const char *)root->name : "missing");
	return take_names(root, b, err);
}

int bundle_parse_names(const uint8_t *text, size_t bytes, struct bundle *b,
		       struct error *err)
{
	return parse(text, bytes, BUNDLE_NAMES_NAME, BUNDLE_NAMES_DEPTH,
		     take_states, b, err);
}
