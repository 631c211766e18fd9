/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Schemas are put together of tables: a row for each field, with the rule that
 * holds for it. Rules are JSON with single quotes for double ones, so that C
 * need not escape them.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "glance/json-schema.h"
#include "glance/schemas.h"

#define STRING	    "'type':'string'"
#define STRING_NULL "'type':['null','string']"
#define NUMBER_NULL "'type':['null','integer']"
#define MAX(n)	    ",'maxLength':" #n
#define READ_ONLY   ",'readOnly':true"
#define TIME	    STRING READ_ONLY ",'format':'date-time'"
#define UUID                                                           \
	",'pattern':'^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F])" \
	"{4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$'"
/* A deployment's own: not a field of the image. */
#define OWN ",'is_base':false"

#define NATURAL		"'$ref':'#/definitions/positiveInteger'"
#define NATURAL_DEFAULT "'$ref':'#/definitions/positiveIntegerDefault0'"
#define STRING_ARRAY	"'$ref':'#/definitions/stringArray'"
#define PROPERTY_MAP	"'$ref':'#/definitions/property'"
#define TYPE_NAME                                               \
	STRING ",'enum':['array','boolean','integer','number'," \
	       "'object','string',null]"

/* The rule of the field @name, without its braces; @text: a description. */
struct field {
	const char *name;
	const char *rule;
	const char *text;
};

static const struct field image_fields[] = {
	{ "id", STRING UUID, "The image" },
	{ "name", STRING_NULL MAX(255), "What people call it" },
	{ "status",
	  STRING READ_ONLY ",'enum':['queued','saving','active','killed',"
			   "'deleted','uploading','importing',"
			   "'pending_delete','deactivated']",
	  "How far it is" },
	{ "visibility",
	  STRING ",'enum':['community','public','private','shared']",
	  "Who may see it" },
	{ "protected", "'type':'boolean'", "Whether deleting is refused" },
	{ "os_hidden", "'type':'boolean'",
	  "Whether lists leave it out unless asked" },
	{ "checksum", STRING_NULL READ_ONLY MAX(32), "MD5 of the data" },
	{ "os_hash_algo", STRING_NULL READ_ONLY MAX(64),
	  "How os_hash_value is made" },
	{ "os_hash_value", STRING_NULL READ_ONLY MAX(128),
	  "Digest of the data" },
	{ "owner", STRING_NULL MAX(255), "The project it belongs to" },
	{ "size", NUMBER_NULL READ_ONLY, "Bytes of data as stored" },
	{ "virtual_size", NUMBER_NULL READ_ONLY,
	  "Bytes of the disk that a machine sees" },
	{ "container_format",
	  STRING_NULL ",'enum':[null,'ami','ari','aki','bare','ovf','ova',"
		      "'docker','compressed']",
	  "The envelope around the disk" },
	{ "disk_format",
	  STRING_NULL ",'enum':[null,'ami','ari','aki','vhd','vhdx','vmdk',"
		      "'raw','qcow2','vdi','iso','ploop']",
	  "The format of the disk" },
	{ "created_at", STRING READ_ONLY, "When it was registered" },
	{ "updated_at", STRING READ_ONLY, "When it last changed" },
	{ "tags", "'type':'array','items':{" STRING MAX(255) "}",
	  "Words to find it by" },
	{ "direct_url", STRING READ_ONLY, "Where the disk is served" },
	{ "min_ram", "'type':'integer'", "MB of memory to boot" },
	{ "min_disk", "'type':'integer'", "GB of disk to boot" },
	{ "self", STRING READ_ONLY, "This image" },
	{ "file", STRING READ_ONLY, "Its data" },
	{ "stores", STRING READ_ONLY, "Where the data lies, by commas" },
	{ "schema", STRING READ_ONLY, "This schema" },
	{ "locations",
	  "'type':'array','items':{'type':'object','properties':{"
	  "'url':{" STRING MAX(
		  255) "},'metadata':{'type':'object'},"
		       "'validation_data':{'type':'object','writeOnly':true,"
		       "'additionalProperties':false,'properties':{"
		       "'checksum':{" STRING ",'minLength':32" MAX(
			       32) "},"
				   "'os_hash_algo':{" STRING MAX(
					   64) "},"
					       "'os_hash_value':{" STRING MAX(
						       128) "}},"
							    "'required':['os_hash_algo','os_hash_value']}},"
							    "'required':['url','metadata']}",
	  "Every place that holds the data" },
	{ "kernel_id", STRING_NULL UUID OWN, "The kernel that an AMI boots" },
	{ "ramdisk_id", STRING_NULL UUID OWN, "The ramdisk that an AMI boots" },
	{ "instance_uuid", STRING OWN, "The machine it was made from" },
	{ "architecture", STRING OWN, "Of the processor, as x86_64" },
	{ "os_distro", STRING OWN, "The operating system, as debian" },
	{ "os_version", STRING OWN, "Its version, as its maker writes it" },
	{ "description", STRING OWN, "For people" },
	{ "cinder_encryption_key_id", STRING OWN,
	  "The key of the volume, at the key manager" },
	{ "cinder_encryption_key_deletion_policy",
	  STRING ",'enum':['on_image_deletion','do_not_delete']" OWN,
	  "What becomes of that key with the image" },
	{ 0 },
};

static const struct field member_fields[] = {
	{ "member_id", STRING, "The project that it is shared with" },
	{ "image_id", STRING UUID, "The image" },
	{ "created_at", STRING, "When it was shared" },
	{ "updated_at", STRING, "When that last changed" },
	{ "status", STRING ",'enum':['pending','accepted','rejected']",
	  "What the member says to it" },
	{ "schema", STRING READ_ONLY, NULL },
	{ 0 },
};

/* Lists leave out the first three. */
static const struct field task_fields[] = {
	{ "input", "'type':['null','object']", "What it works from" },
	{ "result", "'type':['null','object']", "What came of it" },
	{ "message", STRING, "For people, above all why it failed" },
	{ "id", STRING UUID, "The task" },
	{ "type", STRING ",'enum':['import','api_image_import']",
	  "What it does" },
	{ "status",
	  STRING ",'enum':['pending','processing','success','failure']",
	  "How far it is" },
	{ "owner", STRING, "The project that asked" },
	{ "image_id", STRING, "The image in question" },
	{ "request_id", STRING, "The request that began it" },
	{ "user_id", STRING, "Who asked" },
	{ "expires_at", STRING_NULL, "When it will be forgotten" },
	{ "created_at", STRING, "When it began" },
	{ "updated_at", STRING, "When it last changed" },
	{ "self", STRING READ_ONLY, NULL },
	{ "schema", STRING READ_ONLY, NULL },
	{ 0 },
};

static const struct field namespace_fields[] = {
	{ "namespace", STRING MAX(80), "Its unique name" },
	{ "display_name", STRING MAX(80), "What people call it" },
	{ "description", STRING MAX(500), "What it is for" },
	{ "visibility", STRING ",'enum':['public','private']",
	  "Who may see it" },
	{ "protected", "'type':'boolean'", "Whether deleting is refused" },
	{ "owner", STRING MAX(255), "The project it belongs to" },
	{ "created_at", TIME, "When it was made" },
	{ "updated_at", TIME, "When it last changed" },
	{ "schema", STRING READ_ONLY, NULL },
	{ "self", STRING READ_ONLY, NULL },
	{ "resource_type_associations",
	  "'type':'array','items':{'type':'object','properties':{"
	  "'name':{" STRING MAX(80) "},'prefix':{" STRING MAX(
		  80) "},"
		      "'properties_target':{" STRING MAX(
			      80) "}},'required':['name']}",
	  NULL },
	{ "properties", PROPERTY_MAP, NULL },
	{ "objects",
	  "'type':'array','items':{'type':'object','properties':{"
	  "'name':{" STRING MAX(80) "},'description':{" STRING "},"
				    "'required':{" STRING_ARRAY
				    "},'properties':{" PROPERTY_MAP "}},"
				    "'required':['name']}",
	  NULL },
	{ "tags",
	  "'type':'array','items':{'type':'object','properties':{"
	  "'name':{" STRING MAX(80) "}},'required':['name']}",
	  NULL },
	{ 0 },
};

static const struct field object_fields[] = {
	{ "name", STRING MAX(80), NULL },
	{ "description", STRING, NULL },
	{ "required", STRING_ARRAY, NULL },
	{ "properties", PROPERTY_MAP, NULL },
	{ "schema", STRING READ_ONLY, NULL },
	{ "self", STRING READ_ONLY, NULL },
	{ "created_at", TIME, "When it was made" },
	{ "updated_at", TIME, "When it last changed" },
	{ 0 },
};

static const struct field property_fields[] = {
	{ "name", STRING MAX(80), NULL },
	{ "title", STRING, NULL },
	{ "description", STRING, NULL },
	{ "operators", "'type':'array','items':{" STRING "}", NULL },
	{ "type", TYPE_NAME, NULL },
	{ "required", STRING_ARRAY, NULL },
	{ "minimum", "'type':'number'", NULL },
	{ "maximum", "'type':'number'", NULL },
	{ "maxLength", NATURAL, NULL },
	{ "minLength", NATURAL_DEFAULT, NULL },
	{ "pattern", STRING ",'format':'regex'", NULL },
	{ "enum", "'type':'array'", NULL },
	{ "readonly", "'type':'boolean'", NULL },
	{ "default", "", NULL },
	{ "items",
	  "'type':'object','properties':{'type':{" TYPE_NAME "},"
	  "'enum':{'type':'array'}}",
	  NULL },
	{ "maxItems", NATURAL, NULL },
	{ "minItems", NATURAL_DEFAULT, NULL },
	{ "uniqueItems", "'type':'boolean','default':false", NULL },
	{ "additionalItems", "'type':'boolean'", NULL },
	{ 0 },
};

static const struct field tag_fields[] = {
	{ "name", STRING MAX(80), NULL },
	{ "created_at", TIME, "When it was made" },
	{ "updated_at", TIME, "When it last changed" },
	{ 0 },
};

static const struct field association_fields[] = {
	{ "name", STRING MAX(80), "As OS::Glance::Image" },
	{ "prefix", STRING MAX(80), "What properties begin with there" },
	{ "properties_target", STRING MAX(80),
	  "Which of its sets of properties is meant" },
	{ "created_at", TIME, "When it was made" },
	{ "updated_at", TIME, "When it last changed" },
	{ 0 },
};

/* "property" is added to where it is needed. */
#define DEFINITIONS                                                      \
	"'definitions':{'positiveInteger':{'type':'integer','minimum'"   \
	":0},'positiveIntegerDefault0':{'allOf':[{" NATURAL "},"         \
	"{'default':0}]},'stringArray':{'type':'array','items':{" STRING \
	"},'uniqueItems':true}}"
#define CLOSED(required) \
	"'additionalProperties':false,'required':[" required "]"

#define IMAGE_REST                                      \
	"'additionalProperties':{" STRING "},'links':[" \
	"{'rel':'self','href':'{self}'},"               \
	"{'rel':'enclosure','href':'{file}'},"          \
	"{'rel':'describedby','href':'{schema}'}]"

enum page {
	NONE,
	PAGES, /* "first", "next" */
	WHOLE, /* all of them, always */
	PAGES_OF_MAP, /* by name */
};

static struct schema {
	const char *name; /* behind /v2/schemas/ */
	const char *title; /* of one of them */
	const struct field *fields; /* of one of them */
	const char *rest; /* of the rules of one */
	enum page page;
	const char *list; /* what a page calls them */
	const char *definitions;
	json_t *json; /* read only once it is made */
	char *text;
} schemas[] = {
	{ "image", "image", image_fields, IMAGE_REST },
	{ "images", "image", image_fields, IMAGE_REST, PAGES, "images" },
	{ "member", "member", member_fields, "" },
	{ "members", "member", member_fields, "", WHOLE, "members" },
	{ "task", "task", task_fields, "" },
	{ "tasks", "task", task_fields + 3, "", WHOLE, "tasks" },
	{ "metadefs/namespace", "namespace", namespace_fields,
	  CLOSED("'namespace'"), NONE, NULL, DEFINITIONS },
	{ "metadefs/namespaces", "namespace", namespace_fields,
	  CLOSED("'namespace'"), PAGES, "namespaces", DEFINITIONS },
	{ "metadefs/object", "object", object_fields, CLOSED("'name'"), NONE,
	  NULL, DEFINITIONS },
	{ "metadefs/objects", "object", object_fields, CLOSED("'name'"), PAGES,
	  "objects", DEFINITIONS },
	{ "metadefs/property", "property", property_fields,
	  CLOSED("'type','title','name'"), NONE, NULL, DEFINITIONS },
	{ "metadefs/properties", "property", property_fields,
	  CLOSED("'type','title'"), PAGES_OF_MAP, "properties", DEFINITIONS },
	{ "metadefs/tag", "tag", tag_fields, CLOSED("'name'") },
	{ "metadefs/tags", "tag", tag_fields, CLOSED("'name'"), PAGES, "tags" },
	{ "metadefs/resource_type", "resource_type_association",
	  association_fields, CLOSED("'name'") },
	{ "metadefs/resource_types", "resource_type_association",
	  association_fields, CLOSED("'name'"), PAGES,
	  "resource_type_associations" },
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A rule of ours as JSON. NULL: no memory. */
static json_t *parse_rule(const char *rule)
{
	CLEANUP(freep) char *text = NULL;
	char *p;

	if (asprintf(&text, "{%s}", rule) < 0) {
		text = NULL;
		return NULL;
	}
	for (p = text; *p; p++)
		if (*p == '\'')
			*p = '"';
	return json_loads(text, 0, NULL);
}

/* "properties" of a schema. */
static json_t *make_fields(const struct field *f)
{
	json_t *all = json_object();

	for (; f->name; f++) {
		json_t *rule = parse_rule(f->rule);

		if (f->text)
			json_object_set_new(rule, "description",
					    json_string(f->text));
		json_object_set_new(all, f->name, rule);
	}
	return all;
}

/* The schema of one, to which "definitions" are not added. */
static json_t *make_one(const struct schema *s)
{
	json_t *one = json_object();
	json_t *rest = parse_rule(s->rest);

	/* Properties of a page of them have their names outside. */
	json_object_set_new(one, "name", json_string(s->title));
	json_object_set_new(one, "properties", make_fields(s->fields));
	json_object_update(one, rest);
	json_decref(rest);
	return one;
}

static json_t *make_page(const struct schema *s)
{
	const char *links =
		s->page == WHOLE
			? "'links':[{'rel':'describedby','href':'{schema}'}]"
			: "'links':[{'rel':'first','href':'{first}'},"
			  "{'rel':'next','href':'{next}'},"
			  "{'rel':'describedby','href':'{schema}'}]";
	const char *fields = s->page == WHOLE ? "'schema':{" STRING "}"
					      : "'first':{" STRING
						"},'next':{" STRING
						"},'schema':{" STRING "}";
	bool map = s->page == PAGES_OF_MAP;
	json_t *list =
		json_pack("{s:s,s:o}", "type", map ? "object" : "array",
			  map ? "additionalProperties" : "items", make_one(s));
	json_t *all = json_pack("{s:o}", s->list, list);
	json_t *more = parse_rule(fields);
	json_t *page =
		json_pack("{s:s,s:o}", "name", s->list, "properties", all);

	json_object_update(all, more);
	json_decref(more);
	more = parse_rule(links);
	json_object_update(page, more);
	json_decref(more);
	return page;
}

/* The definitions, and that of a map of properties. */
static void add_definitions(json_t *to, const char *rule)
{
	json_t *parsed = parse_rule(rule);
	json_t *all = json_object_get(parsed, "definitions");

	json_object_set_new(all, "property",
			    json_pack("{s:s,s:{s:s,s:[s,s],s:o}}", "type",
				      "object", "additionalProperties", "type",
				      "object", "required", "title", "type",
				      "properties",
				      make_fields(property_fields)));
	json_object_update(to, parsed);
	json_decref(parsed);
}

static void make_all(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(schemas); i++) {
		struct schema *s = &schemas[i];

		s->json = s->page == NONE ? make_one(s) : make_page(s);
		if (s->definitions)
			add_definitions(s->json, s->definitions);
		s->text = json_dumps(s->json, 0);
	}
}

/* For valgrind's sake, when the plugin is unloaded. */
__attribute__((destructor)) static void forget_all(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(schemas); i++) {
		json_decref(TAKE_PTR(schemas[i].json));
		free(TAKE_PTR(schemas[i].text));
	}
}

static const struct schema *find(const char *name)
{
	size_t i;

	pthread_once(&once, make_all);
	for (i = 0; i < ARRAY_SIZE(schemas); i++)
		if (!strcmp(schemas[i].name, name))
			return &schemas[i];
	return NULL;
}

const char *schema_text(const char *name)
{
	const struct schema *s = find(name);

	return s ? s->text : NULL;
}

/* Puts "Provided object ..." in front. */
static int told(const struct schema *s, int r, const struct error *why,
		struct error *err)
{
	if (r >= 0)
		return r;
	return error_set(
		err, r, 0, "Provided object does not match schema '%s': %s",
		json_string_value(json_object_get(s->json, "name")), why->msg);
}

int schema_check(const char *name, const json_t *value, struct error *err)
{
	const struct schema *s = find(name);
	struct error why = { 0 };

	if (!s || !s->json)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return told(s, json_schema_check(s->json, value, &why), &why, err);
}

static const json_t *find_property(const struct schema *s, const char *property)
{
	const json_t *all = s ? json_object_get(s->json, "properties") : NULL;

	return json_object_get(all, property);
}

int schema_check_property(const char *name, const char *property,
			  const json_t *value, struct error *err)
{
	const struct schema *s = find(name);
	const json_t *rule = find_property(s, property);
	struct error why = { 0 };

	if (!s || !s->json)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!rule)
		rule = json_object_get(s->json, "additionalProperties");
	return told(s, json_schema_check(rule, value, &why), &why, err);
}

bool schema_read_only(const char *name, const char *property)
{
	return json_is_true(json_object_get(find_property(find(name), property),
					    "readOnly"));
}

bool schema_image_base(const char *property)
{
	const json_t *rule = find_property(find("image"), property);

	return rule && !json_is_false(json_object_get(rule, "is_base"));
}
