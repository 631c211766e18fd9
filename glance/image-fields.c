/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/image-fields.h"
#include "glance/schemas.h"
#include "glance/http/uri.h"

#define PROPERTY_NAME_MAX  255
#define PROPERTY_VALUE_MAX 65535
#define PROPERTIES_MAX	   128U
#define TAGS_MAX	   128U

bool image_name_reserved(const char *name)
{
	return !strcmp(name, "location") || !strcmp(name, "deleted") ||
	       !strcmp(name, "deleted_at") ||
	       !strncmp(name, "os_glance", strlen("os_glance"));
}

static size_t utf8_characters(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static int check_property(const char *name, const json_t *value,
			  struct error *err)
{
	if (!*name || utf8_characters(name) > PROPERTY_NAME_MAX)
		return error_set(err, -EINVAL, 0,
				 "Custom property should not be greater than "
				 "%d characters.",
				 PROPERTY_NAME_MAX);
	if (!uri_text_ok(name))
		return error_set(err, -EINVAL, 0,
				 "the name of a property has a control "
				 "character");
	if (json_string_length(value) > PROPERTY_VALUE_MAX)
		return error_set(err, -EINVAL, 0,
				 "the value of property %s is over %d bytes",
				 name, PROPERTY_VALUE_MAX);
	return 0;
}

/* They are shown in URLs and headers. */
static int check_locations(const json_t *value, struct error *err)
{
	size_t i;
	json_t *v;

	json_array_foreach(value, i, v)
		if (!uri_text_ok(json_string_value(json_object_get(v, "url"))))
			return error_set(err, -EINVAL, 0,
					 "the url of a location has a control "
					 "character");
	return 0;
}

int image_field_check(const char *name, const json_t *value, struct error *err)
{
	int r = schema_check_property("image", name, value, err);

	if (r < 0)
		return r;
	if (!schema_image_base(name))
		return check_property(name, value, err);
	if (!strcmp(name, "locations"))
		return check_locations(value, err);
	if (!strcmp(name, "tags") && json_array_size(value) > TAGS_MAX)
		return error_set(err, -EFBIG, 0,
				 "The limit has been exceeded on the number of "
				 "allowed image tags. Attempted: %zu, Maximum: "
				 "%u",
				 json_array_size(value), TAGS_MAX);
	return 0;
}

/* ---- applying ---- */

static int set_tags(struct record *r, const json_t *value, struct error *err)
{
	size_t i;
	json_t *v;

	while (r->n_tags)
		record_remove_tag(r, r->tags[0]);
	json_array_foreach(value, i, v)
		if (record_add_tag(r, json_string_value(v), err) < 0)
			return err->code;
	return 0;
}

static int set_format(struct record *r, char **field, const char *name,
		      const json_t *value, struct error *err)
{
	if (r->status != IMAGE_QUEUED && r->status != IMAGE_IMPORTING)
		return error_set(err, -EPERM, 0,
				 "Attribute %s can be only replaced for a "
				 "queued image.",
				 name);
	return record_set(field, json_string_value(value), err);
}

/* GiB or MiB; the API's own tables hold 32 bits of them. */
static int set_minimum(uint64_t *field, const char *name, const json_t *value,
		       struct error *err)
{
	json_int_t v = json_integer_value(value);

	if (v < 0)
		return error_set(err, -EINVAL, 0,
				 "Invalid value '%lld' for parameter '%s': "
				 "Cannot be a negative value",
				 (long long)v, name);
	if (v > INT32_MAX)
		return error_set(err, -EINVAL, 0,
				 "'%s' value out of range, must not exceed "
				 "%d.",
				 name, INT32_MAX);
	*field = (uint64_t)v;
	return 0;
}

static int set_property(struct record *r, const char *name, const json_t *value,
			struct error *err)
{
	if (!record_property(r, name) && r->n_properties >= PROPERTIES_MAX)
		return error_set(err, -EFBIG, 0,
				 "The limit has been exceeded on the number of "
				 "allowed image properties. Attempted: %zu, "
				 "Maximum: %u",
				 r->n_properties + 1, PROPERTIES_MAX);
	/* Some of a deployment's own may be null: as if it were not there. */
	if (json_is_null(value)) {
		record_remove_property(r, name);
		return 0;
	}
	return record_set_property(r, name, json_string_value(value), err);
}

int image_field_apply(struct record *r, const char *name, const json_t *value,
		      struct error *err)
{
	if (!schema_image_base(name))
		return set_property(r, name, value, err);
	if (!strcmp(name, "name"))
		return record_set(&r->name, json_string_value(value), err);
	if (!strcmp(name, "owner"))
		return record_set(&r->owner, json_string_value(value), err);
	if (!strcmp(name, "tags"))
		return set_tags(r, value, err);
	if (!strcmp(name, "disk_format"))
		return set_format(r, &r->disk_format, name, value, err);
	if (!strcmp(name, "container_format"))
		return set_format(r, &r->container_format, name, value, err);
	if (!strcmp(name, "min_disk"))
		return set_minimum(&r->min_disk, name, value, err);
	if (!strcmp(name, "min_ram"))
		return set_minimum(&r->min_ram, name, value, err);
	if (!strcmp(name, "protected"))
		r->protected_ = json_is_true(value);
	else if (!strcmp(name, "os_hidden"))
		r->hidden = json_is_true(value);
	else if (!strcmp(name, "visibility"))
		image_visibility_by_name(json_string_value(value),
					 &r->visibility);
	return 0;
}

/* ---- the rules of all dialects of v2 ---- */

int image_may_publish(const struct identity *who, enum image_visibility v,
		      struct error *err)
{
	if (v != IMAGE_PUBLIC || who->admin)
		return 0;
	return error_set(err, -EPERM, 0,
			 "You are not authorized to complete publicize_image "
			 "action.");
}

int image_set_field(struct record *r, const char *name, const json_t *v,
		    struct error *err)
{
	int code;

	if (schema_read_only("image", name))
		return error_set(err, -EPERM, 0, "Attribute '%s' is read-only.",
				 name);
	/* Locations are a matter of PATCH and of rows of their own. */
	if ((strcmp(name, "id") && image_name_reserved(name)) ||
	    !strcmp(name, "locations"))
		return error_set(err, -EPERM, 0, "Attribute '%s' is reserved.",
				 name);
	code = image_field_check(name, v, err);
	if (code < 0)
		return code;
	if (!strcmp(name, "id"))
		return record_set(&r->id, json_string_value(v), err);
	return image_field_apply(r, name, v, err);
}

int image_from_json(const struct identity *who, const json_t *body,
		    struct record *r, struct error *err)
{
	const char *name;
	json_t *v;
	char id[37];
	int code;

	*r = (struct record){ .visibility = IMAGE_SHARED };
	record_new_id(id);
	code = record_set(&r->id, id, err);
	if (code >= 0)
		code = record_set(&r->owner, who->project, err);
	json_object_foreach((json_t *)body, name, v) {
		if (code >= 0)
			code = image_set_field(r, name, v, err);
	}
	if (code >= 0)
		code = image_may_publish(who, r->visibility, err);
	if (code >= 0 && !who->admin &&
	    (!r->owner || !who->project || strcmp(r->owner, who->project)))
		code = error_set(err, -EPERM, 0,
				 "You are not permitted to create images owned "
				 "by '%s'.",
				 r->owner ? r->owner : "");
	return code;
}
