/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "formats/backing-name.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/url.h"

/* Nested drivers in one json: name; QEMU itself writes two or three. */
#define JSON_DRIVERS_MAX 8

/* Length of "proto:" at the start of @name, or 0. */
static size_t prefix_length(const char *name)
{
	size_t n = 0;

	if (!isalpha((unsigned char)name[0]))
		return 0;
	while (isalnum((unsigned char)name[n]) ||
	       (name[n] && strchr("+-.", name[n])))
		n++;
	return name[n] == ':' ? n + 1 : 0;
}

static bool prefix_allowed(const char *name, size_t len,
			   const struct allow *allow)
{
	size_t i;

	for (i = 0; i < allow->n_prefixes; i++)
		if (strlen(allow->prefixes[i]) == len &&
		    !strncmp(allow->prefixes[i], name, len))
			return true;
	return false;
}

/* @key of @node, or "@prefix.@key" of @root: QEMU writes both. */
static json_t *member(json_t *root, json_t *node, const char *prefix,
		      const char *key)
{
	char flat[128];
	json_t *v = node ? json_object_get(node, key) : NULL;

	if (v || !*prefix)
		return v;
	snprintf(flat, sizeof(flat), "%s.%s", prefix, key);
	return json_object_get(root, flat);
}

/* A number, or a string of digits; false: it is neither. */
static bool json_u64(json_t *v, uint64_t *ret)
{
	const char *s;
	char *end;

	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*ret = (uint64_t)json_integer_value(v);
		return true;
	}
	s = json_string_value(v);
	if (!s || !isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*ret = strtoull(s, &end, 10);
	return !errno && !*end;
}

static int bad_json(struct error *err, const char *why)
{
	return error_set(err, -ENOTSUP, 0, "backing file name json: %s", why);
}

/* The raw driver's window, when @node is raw. */
static int take_window(struct backing_name *n, json_t *off, json_t *size,
		       struct error *err)
{
	uint64_t v = 0, bytes = UINT64_MAX;

	if ((off && !json_u64(off, &v)) || (size && !json_u64(size, &bytes)))
		return bad_json(err, "offset or size is not a number");
	if (!off && !size)
		return 0;
	if (n->window)
		return bad_json(err, "more than one raw window");
	n->window = true;
	n->off = v;
	n->bytes = bytes;
	return 0;
}

/*
 * Walks from the outermost driver down to the file. The outermost that is a
 * format gives the format, each raw one may give a window.
 */
static int walk_json(struct backing_name *n, json_t *root, struct error *err)
{
	char prefix[64] = "";
	json_t *node = root;
	unsigned int i;
	int r;

	for (i = 0; i < JSON_DRIVERS_MAX; i++) {
		const char *driver, *file, *url;
		size_t used = strlen(prefix);

		driver =
			json_string_value(member(root, node, prefix, "driver"));
		file = json_string_value(
			member(root, node, prefix, "filename"));
		url = json_string_value(member(root, node, prefix, "url"));
		if (url && url_is_web(url) && driver &&
		    (!strcmp(driver, "http") || !strcmp(driver, "https"))) {
			n->url = true;
			file = url;
			driver = "file";
		}
		if (file && (!driver || !strcmp(driver, "file"))) {
			n->path = strdup(file);
			return n->path ? 0
				       : error_set(err, -ENOMEM, 0,
						   "out of memory");
		}
		if (driver && !strcmp(driver, "raw")) {
			r = take_window(n, member(root, node, prefix, "offset"),
					member(root, node, prefix, "size"),
					err);
			if (r < 0)
				return r;
		} else if (driver && n->format && strcmp(n->format, "raw")) {
			return bad_json(err, "two formats in one name");
		} else if (driver && n->window) {
			/* It is of the disk, and we would cut the file. */
			return bad_json(err,
					"a raw window over another format");
		}
		if (driver && (!n->format || !strcmp(n->format, "raw"))) {
			free(n->format);
			n->format = strdup(driver);
			if (!n->format)
				return error_set(err, -ENOMEM, 0,
						 "out of memory");
		}
		node = node ? json_object_get(node, "file") : NULL;
		snprintf(prefix + used, sizeof(prefix) - used, "%sfile",
			 used ? "." : "");
	}
	return bad_json(err, "no file name in it that we could open");
}

static int parse_json(struct backing_name *n, const char *text,
		      struct error *err)
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r;

	if (!json_is_object(root)) {
		json_decref(root);
		return bad_json(err, "is not a JSON object");
	}
	/* The name's own word on the format is the one that counts. */
	free(TAKE_PTR(n->format));
	r = walk_json(n, root, err);
	json_decref(root);
	return r;
}

void backing_name_done(struct backing_name *n)
{
	free(n->path);
	free(n->format);
	*n = (struct backing_name){ 0 };
}

/* @known: a prefix that we can read. */
static int check_prefix(const char *name, size_t len, bool known,
			const struct allow *allow, struct error *err)
{
	if (known && !prefix_allowed(name, len, allow))
		return error_set(err, -EPERM, 0,
				 "backing file name begins with \"%.*s\", "
				 "which needs %s%.*s",
				 (int)len, name, AS_GIVEN("allow=", "--allow "),
				 (int)len, name);
	if (len && !known)
		return error_set(
			err,
			prefix_allowed(name, len, allow) ? -ENOTSUP : -EPERM, 0,
			"backing files of kind \"%.*s\" are not "
			"supported",
			(int)len, name);
	return 0;
}

static int check_url(const struct backing_name *n, const struct allow *allow,
		     struct error *err)
{
	CLEANUP(freep) char *people = NULL;

	if (!n->url || allow_has_url(allow, n->path))
		return 0;
	people =
		url_is_web(n->path) ? url_for_people(n->path) : strdup(n->path);
	return error_set(err, -EPERM, 0,
			 "backing file %s is not permitted: %s, with the URL "
			 "or what it begins with, permits it",
			 people ? people : "URL",
			 AS_GIVEN("allow=URL", "--allow URL"));
}

int backing_name_parse(struct backing_name *ret, const char *name,
		       const char *format, const struct allow *allow,
		       struct error *err)
{
	struct backing_name n = { 0 };
	size_t len = prefix_length(name);
	int r = 0;

	bool known = len && (!strncmp(name, "json:", len) ||
			     !strncmp(name, "file:", len));

	if (url_is_web(name) || nbd_source_is_uri(name))
		n.url = true;
	else
		r = check_prefix(name, len, known, allow, err);
	if (r < 0)
		return r;
	if (format) {
		n.format = strdup(format);
		if (!n.format)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (len && !strncmp(name, "json:", len)) {
		r = parse_json(&n, name + len, err);
	} else {
		n.path = strdup(n.url ? name : name + len);
		if (!n.path)
			r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r >= 0)
		r = check_url(&n, allow, err);
	if (r < 0) {
		backing_name_done(&n);
		return r;
	}
	*ret = n;
	return 0;
}

/* In qcow2, whose limit it is. */
#define NAME_BYTES_MAX 1023U

int backing_name_write(const char *path, char **ret, struct error *err)
{
	bool is_web = url_is_web(path);
	bool odd = !is_web && !nbd_source_is_uri(path) &&
		   path[strcspn(path, ":/")] == ':';
	CLEANUP(url_done) struct url u = { 0 };
	char *name = NULL;
	int r = is_web ? url_parse(path, &u, err) : 0;

	if (r < 0)
		return r;

	if (!*path)
		return error_set(err, -EINVAL, 0,
				 "the name of a backing file is empty");
	if (is_web)
		name = url_name(&u);
	else if (asprintf(&name, "%s%s", odd ? "./" : "", path) < 0)
		name = NULL;
	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (strlen(name) > NAME_BYTES_MAX) {
		free(name);
		return error_set(err, -EINVAL, 0,
				 "backing file name of %zu bytes is over the "
				 "limit of %u",
				 strlen(path), NAME_BYTES_MAX);
	}
	*ret = name;
	return 0;
}

int backing_name_window(const struct backing_name *n, struct source **src,
			struct error *err)
{
	struct source *window;
	uint64_t bytes;
	int r;

	if (!n->window)
		return 0;
	bytes = n->bytes;
	if (bytes == UINT64_MAX && n->off <= (*src)->bytes)
		bytes = (*src)->bytes - n->off;
	r = window_source_new(*src, n->off, bytes, &window, err);
	if (r < 0)
		return r;
	source_unref(*src);
	*src = window;
	return 0;
}
