/* SPDX-License-Identifier: BSD-3-Clause */
/* What an image service tells of one of its images. */
#ifndef IOURING_SOURCES_GLANCE_ABOUT_H
#define IOURING_SOURCES_GLANCE_ABOUT_H

#include <jansson.h>
#include <stdbool.h>

#include "iouring/error.h"

/* Is it "glance://ID"? */
bool glance_is_image(const char *url);

/*
 * The JSON object of API v2 of the image that @image wishes for, for json_decref().
 * Waits for the service. -EBADMSG: that says something else. -EFBIG: more than
 * 1 MiB. Else as http_source_open().
 */
struct http_wish;
int glance_about(const struct http_wish *image, json_t **ret,
		 struct error *err);

#endif
