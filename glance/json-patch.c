/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "glance/image-fields.h"
#include "glance/http/json-in.h"
#include "glance/json-patch.h"
#include "glance/schemas.h"
#include "iouring/util.h"

static const char *const op_names[] = {
	[PATCH_ADD] = "add",
	[PATCH_REMOVE] = "remove",
	[PATCH_REPLACE] = "replace",
};

#define OPERATIONS "add, remove, replace"

unsigned int json_patch_version(const char *type)
{
	static const char *const names[] = {
		"application/openstack-images-v2.0-json-patch",
		"application/openstack-images-v2.1-json-patch",
	};
	size_t len = strcspn(type, "; \t"), i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i]) == len &&
		    !strncasecmp(names[i], type, len))
			return 20 + (unsigned int)i;
	return 0;
}

void json_patch_done(struct patch *p)
{
	size_t i;

	ANALYSER_ASSUME(p->changes || !p->n_changes);
	for (i = 0; i < p->n_changes; i++) {
		free(p->changes[i].name);
		free(p->changes[i].at);
	}
	free(p->changes);
	json_decref(p->document);
	*p = (struct patch){ 0 };
}

static int get_op_21(const json_t *raw, struct patch_change *c,
		     const char **ret_path, struct error *err)
{
	const char *op = json_string_value(json_object_get(raw, "op"));
	size_t i;

	if (!op)
		return error_set(err, -EINVAL, 0,
				 "Unable to find `op` in JSON Schema change. "
				 "It must be one of the following: " OPERATIONS
				 ".");
	for (i = 0; i < ARRAY_SIZE(op_names) && strcmp(op_names[i], op); i++)
		;
	if (i == ARRAY_SIZE(op_names))
		return error_set(err, -EINVAL, 0,
				 "Invalid operation: `%.64s`. It must be one "
				 "of the following: " OPERATIONS ".",
				 op);
	c->op = (enum patch_op)i;
	*ret_path = json_string_value(json_object_get(raw, "path"));
	if (!*ret_path)
		return error_set(err, -EINVAL, 0,
				 "Unable to find 'path' in JSON Schema change");
	return 0;
}

static int get_op_20(const json_t *raw, struct patch_change *c,
		     const char **ret_path, struct error *err)
{
	unsigned int found = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(op_names); i++) {
		const json_t *path = json_object_get(raw, op_names[i]);

		if (!path)
			continue;
		found++;
		c->op = (enum patch_op)i;
		*ret_path = json_string_value(path);
	}
	if (found != 1)
		return error_set(err, -EINVAL, 0,
				 "Operation objects must contain %s one member "
				 "named \"add\", \"remove\", or \"replace\".",
				 found ? "only" : "exactly");
	if (!*ret_path)
		return error_set(err, -EINVAL, 0, "the path is not a string");
	return 0;
}

/* What a pointer must not be, in Glance's words. */
static int check_pointer(const char *path, struct error *err)
{
	const char *p;

	if (*path != '/')
		return error_set(err, -EINVAL, 0,
				 "Pointer `%.128s` does not start with \"/\".",
				 path);
	for (p = path + 1; *p; p++) {
		const char *next = p + 1;

		if (*p == '~' && *next != '0' && *next != '1')
			return error_set(err, -EINVAL, 0,
					 "Pointer `%.128s` contains \"~\" not "
					 "part of a recognized escape "
					 "sequence.",
					 path);
		if (*p != '/')
			continue;
		while (isspace((unsigned char)*next))
			next++;
		if (*next == '/')
			return error_set(err, -EINVAL, 0,
					 "Pointer `%.128s` contains adjacent "
					 "\"/\".",
					 path);
		if (!*next)
			return error_set(err, -EINVAL, 0,
					 "Pointer `%.128s` end with \"/\".",
					 path);
	}
	return 0;
}

/* One part of a pointer, decoded, without the blanks around it. */
static char *decode_part(const char *part, size_t len)
{
	char *text, *out;
	size_t i;

	while (len && isspace((unsigned char)*part)) {
		part++;
		len--;
	}
	while (len && isspace((unsigned char)part[len - 1]))
		len--;
	text = out = malloc(len + 1);
	if (!text)
		return NULL;
	for (i = 0; i < len; i++) {
		if (part[i] == '~') /* check_pointer() saw what follows */
			*out++ = part[++i] == '1' ? '/' : '~';
		else
			*out++ = part[i];
	}
	*out = '\0';
	return text;
}

static int bad_pointer(const char *path, struct error *err)
{
	return error_set(err, -EINVAL, 0,
			 "Invalid JSON pointer for this resource: '%.128s'",
			 path);
}

static int get_path(const char *path, struct patch_change *c, struct error *err)
{
	const char *part = path + 1, *second;
	bool two;
	int r = check_pointer(path, err);

	if (r < 0)
		return r;
	second = strchr(part, '/');
	c->name = decode_part(part,
			      second ? (size_t)(second - part) : strlen(part));
	if (c->name && second && !strchr(second + 1, '/'))
		c->at = decode_part(second + 1, strlen(second + 1));
	if (!c->name || (second && !strchr(second + 1, '/') && !c->at))
		return error_set(err, -ENOMEM, 0, "out of memory");
	two = !strcmp(c->name, "locations") && c->op != PATCH_REPLACE;
	if (two ? !c->at : second != NULL)
		return bad_pointer(path, err);
	return 0;
}

static int check_name(const char *name, struct error *err)
{
	if (!strcmp(name, "id") || schema_read_only("image", name))
		return error_set(err, -EPERM, 0, "Attribute '%s' is read-only.",
				 name);
	if (image_name_reserved(name))
		return error_set(err, -EPERM, 0, "Attribute '%s' is reserved.",
				 name);
	return 0;
}

static int get_value(const json_t *raw, struct patch_change *c,
		     struct error *err)
{
	if (c->op == PATCH_REMOVE)
		return 0;
	c->value = json_object_get(raw, "value");
	if (!c->value)
		return error_set(err, -EINVAL, 0,
				 "Operation \"%s\" requires a member named "
				 "\"value\".",
				 op_names[c->op]);
	return 0;
}

static int check_value(const struct patch_change *c, struct error *err)
{
	json_t *one;
	int r;

	if (c->op == PATCH_REMOVE)
		return 0;
	if (!c->at)
		return image_field_check(c->name, c->value, err);
	/* An element of a list: as a list of one. */
	one = json_pack("[O]", c->value);
	if (!one)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = image_field_check(c->name, one, err);
	json_decref(one);
	return r;
}

static int get_change(const json_t *raw, unsigned int version,
		      struct patch_change *c, struct error *err)
{
	const char *path = NULL;
	int r;

	if (!json_is_object(raw))
		return error_set(err, -EINVAL, 0,
				 "Operations must be JSON objects.");
	r = version == 20 ? get_op_20(raw, c, &path, err)
			  : get_op_21(raw, c, &path, err);
	if (r >= 0)
		r = get_path(path, c, err);
	if (r >= 0)
		r = get_value(raw, c, err);
	if (r >= 0)
		r = check_name(c->name, err);
	if (r >= 0)
		r = check_value(c, err);
	return r;
}

int json_patch_parse(const char *text, size_t len, unsigned int version,
		     struct patch *ret, struct error *err)
{
	struct patch p = { 0 };
	size_t n;
	int r = json_in_parse(text, len, &p.document, err);

	if (r < 0)
		return r;
	n = json_array_size(p.document);
	if (!json_is_array(p.document))
		r = error_set(err, -EINVAL, 0,
			      "Request body must be a JSON array of operation "
			      "objects.");
	else if (n > JSON_PATCH_CHANGES_MAX)
		r = error_set(err, -EINVAL, 0,
			      "%zu operations, the limit is %u", n,
			      JSON_PATCH_CHANGES_MAX);
	else if (!(p.changes = calloc(n + 1, sizeof(*p.changes))))
		r = error_set(err, -ENOMEM, 0, "out of memory");
	while (r >= 0 && p.n_changes < n) {
		size_t i = p.n_changes++;

		r = get_change(json_array_get(p.document, i), version,
			       &p.changes[i], err);
	}
	if (r < 0) {
		json_patch_done(&p);
		return r;
	}
	*ret = p;
	return 0;
}
