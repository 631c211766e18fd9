/* SPDX-License-Identifier: BSD-3-Clause */
/* A file of JSON that people change while the server runs. */
#ifndef GLANCE_HTTP_JSON_FILE_H
#define GLANCE_HTTP_JSON_FILE_H

#include <stdbool.h>
#include <sys/stat.h>

#include <jansson.h>

#include "iouring/error.h"

#define JSON_FILE_BYTES_MAX (4U << 20)

/* One thread at a time. Zeroed: none. */
struct json_file {
	char *path; /* absolute, owned */
	struct stat seen; /* as it was when it was read */
	bool complained; /* somebody was told that it cannot be read */
};

int json_file_open(struct json_file *f, const char *path, struct error *err);
void json_file_done(struct json_file *f);

/* -EINVAL: it cannot be read, or is not JSON. To be json_decref()ed. */
int json_file_read(struct json_file *f, json_t **ret, struct error *err);
/* Is there something new to be read, or to be complained of? */
bool json_file_changed(const struct json_file *f);

#endif
