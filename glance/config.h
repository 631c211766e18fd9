/* SPDX-License-Identifier: BSD-3-Clause */
/* The parameters of the image service. */
#ifndef GLANCE_CONFIG_H
#define GLANCE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "iouring/error.h"

#define MORE_STORES_MAX 15

/* Strings are owned; NULL: not given. */
struct glance_config {
	char *store; /* the folder; absolute */
	char *store_name; /* what clients call it, where there are more */
	struct {
		char *name, *path;
	} more_stores[MORE_STORES_MAX]; /* store=NAME=DIR, again */
	size_t n_more_stores;
	char *listen; /* glance=ADDRESS:PORT|unix:PATH */
	char *pithos; /* the folder of pithos:// locations; absolute */
	char *cert;
	char *key;
	char *auth;
	char *keystone_user;
	char *keystone_project;
	char *keystone_password; /* a file */
	char *service_roles; /* by commas */
	char *access_log; /* a file; absolute */
	char *import_hosts; /* lists, see fetch.h */
	char *import_ports;
	char *import_nets;
	char *import_min_rate; /* see fetch.h */
	char *import_properties; /* how names begin, by commas */
	char *certificates; /* a folder, see signature.h; absolute */
	char *show_locations;
	char *location_dirs; /* by colons */
	char *direct_url; /* what an image's id is put behind */
	char *per_address; /* connections */
	char *proxies; /* that are believed, see forwarded.h */
	char *hosts; /* names, see origin.h */
	char *cors_origins; /* see cors.h */
	char *timeout; /* of slow clients of HTTP, seconds */
	char *health_disable; /* a file; absolute */
	char *limits; /* a file, see limits.h */
	char *min_disk; /* inspected or asked */
};

void glance_config_done(struct glance_config *c);

/* The @i-th parameter's name; NULL: there are fewer. */
const char *glance_config_key(size_t i);

/* Is @key one of ours? -ENOENT: no. */
int glance_config_set(struct glance_config *c, const char *key,
		      const char *value, struct error *err);

/* min-disk=: does the inspection set what the client left at 0? */
bool glance_config_sets_min_disk(const struct glance_config *c);

#endif
