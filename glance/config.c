/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/config.h"
#include "glance/limits.h"

void glance_config_done(struct glance_config *c)
{
	free(c->store);
	free(c->listen);
	free(c->pithos);
	free(c->cert);
	free(c->key);
	free(c->auth);
	free(c->keystone_user);
	free(c->keystone_project);
	free(c->keystone_password);
	free(c->service_roles);
	free(c->access_log);
	free(c->import_hosts);
	free(c->import_ports);
	free(c->import_nets);
	free(c->import_min_rate);
	free(c->show_locations);
	free(c->min_disk);
	free(c->location_dirs);
	free(c->direct_url);
	free(c->limits);
	free(c->health_disable);
	free(c->timeout);
	free(c->per_address);
	free(c->proxies);
	free(c->hosts);
	*c = (struct glance_config){ 0 };
}

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

int glance_config_set(struct glance_config *c, const char *key,
		      const char *value, struct error *err)
{
	const struct {
		const char *key;
		char **field;
		char *(*make)(const char *value);
	} params[] = {
		{ "store", &c->store, absolute },
		{ "glance", &c->listen, absolute_socket },
		{ "pithos", &c->pithos, absolute },
		{ "glance-cert", &c->cert, absolute },
		{ "glance-key", &c->key, absolute },
		{ "auth", &c->auth, strdup },
		{ "keystone-user", &c->keystone_user, strdup },
		{ "keystone-project", &c->keystone_project, strdup },
		{ "keystone-password", &c->keystone_password, absolute },
		{ "keystone-service-roles", &c->service_roles, strdup },
		{ "access-log", &c->access_log, absolute },
		{ "import-hosts", &c->import_hosts, strdup },
		{ "import-ports", &c->import_ports, strdup },
		{ "import-nets", &c->import_nets, strdup },
		{ "import-min-rate", &c->import_min_rate, strdup },
		{ "show-locations", &c->show_locations, strdup },
		{ "location-dirs", &c->location_dirs, strdup },
		{ "direct-url", &c->direct_url, strdup },
		{ "limits", &c->limits, limits_place },
		{ "glance-timeout", &c->timeout, strdup },
		{ "glance-per-address", &c->per_address, strdup },
		{ "glance-proxies", &c->proxies, strdup },
		{ "glance-hosts", &c->hosts, strdup },
		{ "health-disable", &c->health_disable, absolute },
		{ "min-disk", &c->min_disk, strdup },
	};
	size_t i;
	char *copy;

	for (i = 0; i < ARRAY_SIZE(params) && strcmp(params[i].key, key); i++)
		;
	if (i == ARRAY_SIZE(params))
		return -ENOENT;
	if (!*value)
		return error_set(err, -EINVAL, 0, "%s: the value is empty",
				 key);
	if (params[i].field == &c->min_disk && strcmp(value, "inspected") &&
	    strcmp(value, "asked"))
		return error_set(err, -EINVAL, 0,
				 "min-disk: \"%s\" is neither inspected nor "
				 "asked",
				 value);
	copy = params[i].make(value);
	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(*params[i].field);
	*params[i].field = copy;
	return 0;
}

bool glance_config_sets_min_disk(const struct glance_config *c)
{
	return !c->min_disk || strcmp(c->min_disk, "asked") != 0;
}
