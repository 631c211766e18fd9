/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image of another region's image service, which is copied here in the name
 * of who asked for it (Glance's import method glance-download). Where that
 * service is Keystone's catalog says, as that token has it; the token goes there
 * and nowhere else.
 */
#ifndef GLANCE_GLANCE_DOWNLOAD_H
#define GLANCE_GLANCE_DOWNLOAD_H

#include <jansson.h>

#include "glance/fetch.h"
#include "glance/glance.h"

/* Its description, in JSON; one has 1 or 2 KiB. */
#define FAR_JSON_BYTES_MAX (1U << 20)

/* Only with a Keystone there is a catalog. */
bool glance_download_offered(const struct glance *g);

/*
 * What a request's "method" lacks, or has wrong: -EINVAL. Says in @method the
 * default of what it need not say.
 */
int glance_download_check(json_t *method, struct error *err);

/* As the other service describes it. far_image_done() frees it. */
struct far_image {
	char *url; /* of its data */
	char *header; /* with the token: not to be shown */
	json_t *fields; /* what the image here gets: see upload_set_original() */
	uint64_t size; /* bytes */
	const char *md5, *sha512; /* hexadecimal; NULL: it tells none */
	json_t *told; /* what these point into */
};

void far_image_done(struct far_image *f);

/*
 * Asks Keystone, then the service, about the image that @method, which was
 * checked, names. -EINVAL, -ENOENT, -EIO: there is none that could be copied,
 * and a message for who asked. -ECANCELED: @stop wants it. @ret is to be done
 * also after a failure.
 */
int glance_download_find(struct glance *g, const json_t *method,
			 const char *token, bool (*stop)(void *opaque),
			 void *opaque, struct far_image *ret,
			 struct error *err);

/* All of its data, and not a byte more than f->size. */
int glance_download_data(const struct glance *g, const struct far_image *f,
			 const struct fetch_sink *to, struct error *err);

#endif
