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
	{ "store", FIELD(store), absolute },
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
	*c = (struct glance_config){ 0 };
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
