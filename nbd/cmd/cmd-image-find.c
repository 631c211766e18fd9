/* SPDX-License-Identifier: BSD-3-Clause */
/* platter image: which image is meant, and how it is shown. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nbd/cmd/cmd-image.h"
#include "nbd/export-name.h"
#include "nbd/text.h"

const char *image_text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static char *path_of(const char *id)
{
	CLEANUP(freep) char *safe = text_percent(id, "");
	char *path;

	return safe && asprintf(&path, "/v2/images/%s", safe) >= 0 ? path
								   : NULL;
}

static char *path_by_name(struct image_cmd *c, const char *name,
			  struct error *err)
{
	CLEANUP(freep) char *safe = text_percent(name, "");
	CLEANUP(freep) char *query = NULL;
	const json_t *images;
	char *path = NULL;
	json_t *j;

	if (!safe || asprintf(&query, "/v2/images?limit=2&name=%s", safe) < 0) {
		query = NULL;
		error_set(err, -ENOMEM, 0, "out of memory");
		return NULL;
	}
	j = api_get(&c->api, query, err);
	if (!j)
		return NULL;
	images = json_object_get(j, "images");
	if (json_array_size(images) == 1)
		path = path_of(image_text(json_array_get(images, 0), "id"));
	else
		error_set(err, -ENOENT, 0, "%s images are called \"%.128s\"",
			  json_array_size(images) ? "several" : "no", name);
	json_decref(j);
	return path;
}

char *image_path(struct image_cmd *c, const char *image, struct error *err)
{
	return export_name_is_id(image) ? path_of(image)
					: path_by_name(c, image, err);
}

static void print_value(const json_t *v)
{
	CLEANUP(freep) char *text = NULL;
	const json_t *item;
	size_t i;

	if (json_is_string(v)) {
		cmd_put(stdout, json_string_value(v));
	} else if (json_is_null(v)) {
		putchar('-');
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, item) {
			if (i)
				fputs(", ", stdout);
			print_value(item);
		}
	} else {
		text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
		cmd_put(stdout, text ? text : "?");
	}
}

void image_print(const struct image_cmd *c, json_t *image)
{
	const char *key;
	json_t *value;

	if (c->cmd.json) {
		cmd_json_print(image, JSON_INDENT(4));
		return;
	}
	json_object_foreach(image, key, value) {
		int pad = 18 - (int)strlen(key);

		if (!strcmp(key, "self") || !strcmp(key, "file") ||
		    !strcmp(key, "schema"))
			continue;
		cmd_put(stdout, key);
		printf("%*s ", pad > 0 ? pad : 0, "");
		print_value(value);
		putchar('\n');
	}
	json_decref(image);
}
