/* SPDX-License-Identifier: BSD-3-Clause */
/* The images of a server, by their names and paths. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/place.h"
#include "iouring/util.h"
#include "nbd/config-exports.h"
#include "nbd/export-name.h"

#define EXPORT_BYTES_MAX 255U /* of a name */
#define EXPORTS_MAX	 10000U

int config_check_path(const char *path, struct error *err)
{
	return strcmp(path, "-") ? 0
				 : error_set(err, -EINVAL, 0,
					     "- is standard input or output, "
					     "which platter convert takes: a "
					     "file of that name is ./-");
}

int config_absolute_path(const char *value, char **ret, struct error *err)
{
	CLEANUP(freep) char *cwd = NULL;
	int r = config_check_path(value, err);

	if (r < 0)
		return r;
	if (*value == '/') {
		*ret = strdup(value);
	} else {
		cwd = getcwd(NULL, 0);
		if (!cwd || asprintf(ret, "%s/%s", cwd, value) < 0)
			*ret = NULL;
	}
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int config_image_path(const char *value, char **ret, struct error *err)
{
	if (!place_is_url(value))
		return config_absolute_path(value, ret, err);
	*ret = strdup(value);
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

static void export_done(struct config_export *e)
{
	free(e->name);
	free(e->path);
}

void config_exports_done(struct config *c)
{
	size_t i;

	for (i = 0; i < c->n_exports; i++)
		export_done(&c->exports[i]);
	free(c->exports);
}

const char *config_export_path(const struct config *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->n_exports; i++)
		if (!strcmp(c->exports[i].name, name))
			return c->exports[i].path;
	return NULL;
}

size_t config_overlay_of(const struct config *c, const char *name)
{
	size_t i;

	for (i = 0; *name && i < c->n_exports; i++)
		if (!strcmp(c->exports[i].name, name))
			return i + !!c->image;
	return 0;
}

size_t config_overlays(const struct config *c)
{
	return c->n_exports + !!c->image;
}

/* What is in it can be a part of a file's name: overlays' are called so. */
static const char *export_name_fault(const struct config *c, const char *name)
{
	size_t i;

	if (!*name)
		return "the name is empty";
	if (strlen(name) > EXPORT_BYTES_MAX)
		return "the name has over 255 bytes";
	for (i = 0; name[i]; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f ||
		    name[i] == '/')
			return "a name has no \"/\" and no control characters";
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return "that is a folder's name";
	if (export_name_is_id(name))
		return "that could be the id of an image of a store";
	return config_export_path(c, name) ? "there are two of that name"
					   : NULL;
}

static int add_export(struct config *c, struct config_export *e,
		      struct error *err)
{
	struct config_export *list =
		reallocarray(c->exports, c->n_exports + 1, sizeof(*list));

	if (!list)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->exports = list;
	list[c->n_exports++] = *e;
	*e = (struct config_export){ 0 };
	return 0;
}

int config_add_export(struct config *c, const char *value, struct error *err)
{
	CLEANUP(export_done) struct config_export e = { 0 };
	const char *equals = strchr(value, '='), *fault;
	int r;

	if (!equals || !equals[1])
		return error_set(err, -EINVAL, 0,
				 "export: \"%s\" is not NAME=FILE", value);
	if (c->n_exports == EXPORTS_MAX)
		return error_set(err, -E2BIG, 0, "export: there are over %u",
				 EXPORTS_MAX);
	e.name = strndup(value, (size_t)(equals - value));
	if (!e.name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	fault = export_name_fault(c, e.name);
	if (fault)
		return error_set(err, -EINVAL, 0, "export: \"%s\": %s", e.name,
				 fault);
	r = config_image_path(equals + 1, &e.path, err);
	return r < 0 ? r : add_export(c, &e, err);
}
