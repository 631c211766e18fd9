/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/json-schema.h"
#include "glance/schemas.h"
#include "tests/lib/unit.h"

static struct error err;

static json_t *json(const char *text)
{
	json_error_t e;
	json_t *j = json_loads(text, JSON_DECODE_ANY, &e);

	ck_assert_msg(j != NULL, "%s: %s", text, e.text);
	return j;
}

static const char *const names[] = {
	"image",
	"images",
	"member",
	"members",
	"task",
	"tasks",
	"metadefs/namespace",
	"metadefs/namespaces",
	"metadefs/object",
	"metadefs/objects",
	"metadefs/property",
	"metadefs/properties",
	"metadefs/tag",
	"metadefs/tags",
	"metadefs/resource_type",
	"metadefs/resource_types",
};

START_TEST(each_schema_is_json_with_a_name_and_properties)
{
	json_t *j;

	ck_assert_ptr_nonnull(schema_text(names[_i]));
	j = json(schema_text(names[_i]));
	ck_assert(json_is_string(json_object_get(j, "name")));
	ck_assert_uint_gt(json_object_size(json_object_get(j, "properties")),
			  0);
	json_decref(j);
	ck_assert_ptr_null(schema_text("metadefs"));
}
END_TEST

#define UUID_TEXT "11d2abcb-b596-4b05-9cd4-a117efd0213e"

/* A schema, a value; what is said of it, NULL: it matches. */
static const struct {
	const char *name;
	const char *value;
	const char *says;
} values[] = {
	{ "image", "{}", NULL },
	{ "image", "{\"name\": null, \"disk_format\": null}", NULL },
	{ "image", "{\"name\": \"\\u00e4\", \"tags\": [\"a\"]}", NULL },
	{ "image", "{\"name\": 5}",
	  "schema 'image': 5 is not of type 'null', 'string'" },
	{ "image", "{\"protected\": \"true\"}",
	  "'true' is not of type 'boolean'" },
	{ "image", "{\"min_ram\": true}", "is not of type 'integer'" },
	{ "image", "{\"min_ram\": 1.5}", "is not of type 'integer'" },
	{ "image", "{\"disk_format\": \"floppy\"}",
	  "'floppy' is not one of [None, 'ami'" },
	{ "image", "{\"visibility\": \"secret\"}", "is not one of" },
	{ "image", "{\"id\": \"" UUID_TEXT "\"}", NULL },
	{ "image", "{\"id\": \"" UUID_TEXT "x\"}", "does not match" },
	{ "image", "{\"kernel_id\": null}", NULL },
	{ "image", "{\"kernel_id\": \"x\"}", "does not match" },
	{ "image", "{\"anything\": \"x\"}", NULL },
	{ "image", "{\"anything\": 1}", "1 is not of type 'string'" },
	{ "image", "{\"tags\": \"x\"}", "is not of type 'array'" },
	{ "image", "{\"tags\": [1]}", "is not of type 'string'" },
	{ "image", "{\"locations\": [{\"url\": \"file:///x\"}]}",
	  "'metadata' is a required property" },
	{ "image",
	  "{\"locations\": [{\"url\": \"x\", \"metadata\": {}, "
	  "\"validation_data\": {\"os_hash_algo\": \"sha512\", "
	  "\"os_hash_value\": \"a\", \"more\": 1}}]}",
	  "'more' was unexpected" },
	{ "image", "{\"checksum\": \"123456789012345678901234567890123\"}",
	  "is too long" },
	{ "member", "{\"status\": \"maybe\"}", "is not one of" },
	{ "task", "{\"type\": \"import\", \"input\": {}}", NULL },
	{ "task", "{\"type\": \"export\"}", "is not one of" },
	{ "metadefs/namespace", "{\"namespace\": \"OS::A\"}", NULL },
	{ "metadefs/namespace", "{}", "'namespace' is a required property" },
	{ "metadefs/namespace", "{\"namespace\": \"x\", \"zzz\": 1}",
	  "('zzz' was unexpected)" },
	{ "metadefs/namespace",
	  "{\"namespace\": \"x\", \"properties\": {\"p\": {\"title\": \"t\", "
	  "\"type\": \"string\", \"minLength\": 0}}}",
	  NULL },
	{ "metadefs/namespace",
	  "{\"namespace\": \"x\", \"properties\": {\"p\": {\"title\": \"t\", "
	  "\"type\": \"string\", \"minLength\": -1}}}",
	  "-1 is less than the minimum of 0" },
	{ "metadefs/namespace",
	  "{\"namespace\": \"x\", \"properties\": {\"p\": {\"title\": 1, "
	  "\"type\": \"string\"}}}",
	  "1 is not of type 'string'" },
	{ "metadefs/namespace",
	  "{\"namespace\": \"x\", \"objects\": [{\"name\": \"o\", \"required\": "
	  "[\"a\", \"a\"]}]}",
	  "has non-unique elements" },
	{ "metadefs/object", "{\"name\": \"o\"}", NULL },
	{ "metadefs/object", "{}", "is a required property" },
	{ "metadefs/property", "{\"name\": \"p\", \"title\": \"t\"}",
	  "'type' is a required property" },
	{ "metadefs/property",
	  "{\"name\": \"p\", \"title\": \"t\", \"type\": \"strin\"}",
	  "'strin' is not one of ['array', 'boolean'" },
	{ "metadefs/tags", "{\"tags\": [{\"name\": \"a\"}]}", NULL },
	{ "metadefs/tags", "{\"tags\": [{}]}", "is a required property" },
	{ "metadefs/resource_type", "{\"name\": \"x\", \"prefix\": 1}",
	  "is not of type 'string'" },
};

START_TEST(a_value_matches_its_schema_or_is_told_why)
{
	json_t *value = json(values[_i].value);
	int r = schema_check(values[_i].name, value, &err);

	json_decref(value);
	if (values[_i].says) {
		ck_assert_int_eq(r, -EINVAL);
		unit_says(&err, "Provided object does not match schema '");
		unit_says(&err, values[_i].says);
	} else {
		must(r, err);
	}
}
END_TEST

START_TEST(lengths_are_counted_in_characters)
{
	json_t *schema = json("{\"maxLength\": 2, \"minLength\": 2}");
	json_t *two = json("\"\\u00e4\\u20ac\"");
	json_t *three = json("\"\\u00e4\\u20acx\"");
	json_t *one = json("\"x\"");

	must(json_schema_check(schema, two, &err), err);
	ck_assert_int_eq(json_schema_check(schema, three, &err), -EINVAL);
	unit_says(&err, "is too long");
	error_clear(&err);
	ck_assert_int_eq(json_schema_check(schema, one, &err), -EINVAL);
	unit_says(&err, "is too short");
	json_decref(schema);
	json_decref(two);
	json_decref(three);
	json_decref(one);
}
END_TEST

static const char *const lists[][3] = {
	{ "{\"minItems\": 2}", "[1, 2]", "[1]" },
	{ "{\"maxItems\": 1}", "[1]", "[1, 2]" },
	{ "{\"maximum\": 3}", "3", "3.5" },
	{ "{\"uniqueItems\": true}", "[1, \"1\"]", "[{\"a\": 1}, {\"a\": 1}]" },
	{ "{\"allOf\": [{\"type\": \"integer\"}, {\"minimum\": 1}]}", "1",
	  "0" },
	{ "{\"additionalProperties\": {\"type\": \"string\"}}",
	  "{\"a\": \"x\"}", "{\"a\": 1}" },
};

START_TEST(each_keyword_accepts_and_refuses)
{
	json_t *schema = json(lists[_i][0]);
	json_t *good = json(lists[_i][1]);
	json_t *bad = json(lists[_i][2]);

	must(json_schema_check(schema, good, &err), err);
	ck_assert_int_eq(json_schema_check(schema, bad, &err), -EINVAL);
	json_decref(schema);
	json_decref(good);
	json_decref(bad);
}
END_TEST

/* A hostile value must not make the message overflow, nor be shown whole. */
START_TEST(a_long_value_is_cut_in_the_message)
{
	char *text = malloc(1U << 20);
	json_t *value;

	memset(text, 'x', 1U << 20);
	text[(1U << 20) - 1] = '\0';
	value = json_pack("{s:[s,s]}", "name", text, text);
	ck_assert_int_eq(schema_check("image", value, &err), -EINVAL);
	unit_says(&err, "is not of type");
	json_decref(value);
	free(text);
}
END_TEST

START_TEST(one_property_is_checked_alone)
{
	json_t *five = json("5");
	json_t *word = json("\"word\"");

	must(schema_check_property("image", "min_disk", five, &err), err);
	must(schema_check_property("image", "free", word, &err), err);
	ck_assert_int_eq(schema_check_property("image", "free", five, &err),
			 -EINVAL);
	ck_assert_int_eq(schema_check_property("image", "min_disk", word, &err),
			 -EINVAL);
	json_decref(five);
	json_decref(word);
}
END_TEST

START_TEST(the_schema_says_what_is_read_only_and_what_is_base)
{
	ck_assert(schema_read_only("image", "checksum"));
	ck_assert(!schema_read_only("image", "name"));
	ck_assert(!schema_read_only("image", "nonsense"));
	ck_assert(schema_read_only("metadefs/namespace", "created_at"));
	ck_assert(schema_image_base("name"));
	ck_assert(!schema_image_base("kernel_id"));
	ck_assert(!schema_image_base("nonsense"));
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, each_schema_is_json_with_a_name_and_properties, names);
	LOOP(tc, a_value_matches_its_schema_or_is_told_why, values);
	tcase_add_test(tc, lengths_are_counted_in_characters);
	LOOP(tc, each_keyword_accepts_and_refuses, lists);
	tcase_add_test(tc, a_long_value_is_cut_in_the_message);
	tcase_add_test(tc, one_property_is_checked_alone);
	tcase_add_test(tc, the_schema_says_what_is_read_only_and_what_is_base);
}

int main(void)
{
	return unit_main("schemas", add);
}
