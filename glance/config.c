/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "glance/config.h"
#include "glance/limits.h"

/* nbdkit changes its folder. */
static char *absolute(const char *value)
{
	CLEANUP(freep) char *cwd = NULL;
	char *path;

	if (*value == '/')
		return strdup(value);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&path, "%s/%s", cwd, value) < 0)
		return NULL;
	return path;
}

/* "unix:" and a path that is absolute afterwards; other values as they are. */
static char *absolute_socket(const char *value)
{
	CLEANUP(freep) char *path = NULL;
	char *socket;

	if (strncmp(value, "unix:", 5))
		return strdup(value);
	path = absolute(value + 5);
	if (!path || asprintf(&socket, "unix:%s", path) < 0)
		return NULL;
	return socket;
}

/* A file, unless they are Keystone's. */
static char *limits_place(const char *value)
{
	return limits_are_keystones(value) ? strdup(value) : absolute(value);
}

/* Each is a string, made of its value by make(). */
static const struct {
	const char *key;
	size_t at; /* in struct glance_config */
	char *(*make)(const char *value);
} params[] = {
#define FIELD(name) offsetof(struct glance_config, name)
	{ "store", FIELD(store), NULL }, /* see set_store() */
	{ "glance", FIELD(listen), absolute_socket },
	{ "pithos", FIELD(pithos), absolute },
	{ "glance-cert", FIELD(cert), absolute },
	{ "glance-key", FIELD(key), absolute },
	{ "auth", FIELD(auth), strdup },
	{ "keystone-user", FIELD(keystone_user), strdup },
	{ "keystone-project", FIELD(keystone_project), strdup },
	{ "keystone-password", FIELD(keystone_password), absolute },
	{ "keystone-service-roles", FIELD(service_roles), strdup },
	{ "access-log", FIELD(access_log), absolute },
	{ "import-hosts", FIELD(import_hosts), strdup },
	{ "import-ports", FIELD(import_ports), strdup },
	{ "import-nets", FIELD(import_nets), strdup },
	{ "import-min-rate", FIELD(import_min_rate), strdup },
	{ "import-properties", FIELD(import_properties), strdup },
	{ "signature-certificates", FIELD(certificates), absolute },
	{ "show-locations", FIELD(show_locations), strdup },
	{ "location-dirs", FIELD(location_dirs), strdup },
	{ "direct-url", FIELD(direct_url), strdup },
	{ "limits", FIELD(limits), limits_place },
	{ "glance-timeout", FIELD(timeout), strdup },
	{ "glance-per-address", FIELD(per_address), strdup },
	{ "glance-proxies", FIELD(proxies), strdup },
	{ "glance-hosts", FIELD(hosts), strdup },
	{ "cors-origins", FIELD(cors_origins), strdup },
	{ "health-disable", FIELD(health_disable), absolute },
	{ "min-disk", FIELD(min_disk), strdup },
#undef FIELD
};

static char **field(struct glance_config *c, size_t i)
{
	return (char **)(void *)((char *)c + params[i].at);
}

const char *glance_config_key(size_t i)
{
	return i < ARRAY_SIZE(params) ? params[i].key : NULL;
}

void glance_config_done(struct glance_config *c)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(params); i++)
		free(*field(c, i));
	free(c->store_name);
	for (i = 0; i < c->n_more_stores; i++) {
		free(c->more_stores[i].name);
		free(c->more_stores[i].path);
	}
	*c = (struct glance_config){ 0 };
}

/* How long the NAME in "NAME=DIR" is; 0: there is none. */
static size_t name_length(const char *value)
{
	size_t len = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "abcdefghijklmnopqrstuvwxyz0123456789_-");

	return value[len] == '=' ? len : 0;
}

static bool has_store(const struct glance_config *c, const char *name)
{
	size_t i;

	if (!strcmp(c->store_name ? c->store_name : "file", name))
		return true;
	for (i = 0; i < c->n_more_stores; i++)
		if (!strcmp(c->more_stores[i].name, name))
			return true;
	return false;
}

static int add_store(struct glance_config *c, const char *name,
		     const char *path, struct error *err)
{
	size_t n = c->n_more_stores;

	if (!*name)
		return error_set(err, -EINVAL, 0,
				 "store: %s is the second, and has no NAME= in "
				 "front",
				 path);
	if (n == MORE_STORES_MAX)
		return error_set(err, -EINVAL, 0, "store: over %d",
				 MORE_STORES_MAX + 1);
	if (has_store(c, name))
		return error_set(err, -EINVAL, 0, "store: %s is there twice",
				 name);
	c->more_stores[n].name = strdup(name);
	c->more_stores[n].path = absolute(path);
	c->n_more_stores++;
	return c->more_stores[n].name && c->more_stores[n].path
		       ? 0
		       : error_set(err, -ENOMEM, 0, "out of memory");
}

/* The first is the default. */
static int set_store(struct glance_config *c, const char *value,
		     struct error *err)
{
	size_t len = name_length(value);
	CLEANUP(freep) char *name = strndup(value, len);
	const char *path = len ? value + len + 1 : value;

	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (len > 64 || !*path)
		return error_set(err, -EINVAL, 0,
				 "store: %.128s is neither DIR nor NAME=DIR",
				 value);
	if (c->store)
		return add_store(c, name, path, err);
	c->store = absolute(path);
	if (len)
		c->store_name = TAKE_PTR(name);
	return c->store ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

int glance_config_set(struct glance_config *c, const char *key,
		      const char *value, struct error *err)
{
	size_t i;
	char *copy;

	for (i = 0; i < ARRAY_SIZE(params) && strcmp(params[i].key, key); i++)
		;
	if (i == ARRAY_SIZE(params))
		return -ENOENT;
	if (!*value)
		return error_set(err, -EINVAL, 0, "%s: the value is empty",
				 key);
	if (field(c, i) == &c->min_disk && strcmp(value, "inspected") &&
	    strcmp(value, "asked"))
		return error_set(err, -EINVAL, 0,
				 "min-disk: \"%s\" is neither inspected nor "
				 "asked",
				 value);
	if (!params[i].make)
		return set_store(c, value, err);
	copy = params[i].make(value);
	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(*field(c, i));
	*field(c, i) = copy;
	return 0;
}

bool glance_config_sets_min_disk(const struct glance_config *c)
{
	return !c->min_disk || strcmp(c->min_disk, "asked") != 0;
}
