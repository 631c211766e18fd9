/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data that become an image's: the index says that they are coming, they
 * stream into the store and through the digests, the format drivers look at
 * them, they become durable at their place, the index says so. Whatever ends
 * before leaves the image queued (or killed) and nothing else behind; see recover.h
 * for what a crash leaves.
 */
#ifndef GLANCE_UPLOAD_H
#define GLANCE_UPLOAD_H

#include <jansson.h>

#include "glance/glance.h"
#include "iouring/source.h"

struct upload;

enum upload_kind {
	UPLOAD_DATA, /* queued, saving, active */
	UPLOAD_DATA_V1, /* the same, but killed when it breaks off */
	UPLOAD_STAGE, /* queued, uploading: the data wait for their import */
	/* Of a task, which says what becomes of the image in the end: */
	UPLOAD_IMPORT, /* importing, active */
	UPLOAD_STAGED, /* the same, from what was staged */
};

/*
 * @who sends the data of image @id; NULL: a task does. *ret belongs to the
 * caller on success only. -EEXIST: its status does not allow it.
 */
int upload_begin(struct glance *g, const struct identity *who, const char *id,
		 enum upload_kind kind, struct upload **ret, struct error *err);

/*
 * Into which stores they go, by their keys, which outlive @u; before any data.
 * Without it: the first. @all: into each, or it fails; else at least into one.
 */
int upload_set_stores(struct upload *u, const char *const *keys, size_t n,
		      bool all, struct error *err);

/*
 * They are a copy of another image's: @fields, a JSON object that outlives @u,
 * are what the image is set to when it becomes active, formats and properties;
 * until then it stays as it is. @sha512: what the digest must be, hexadecimal,
 * outlives @u; NULL: as it is. Before upload_finish(), of a task's upload.
 * -EINVAL, -EPERM, -EFBIG: an image cannot be set to these.
 */
int upload_set_original(struct upload *u, const json_t *fields,
			const char *sha512, struct error *err);

/* More of the data; not for UPLOAD_STAGED. */
int upload_add(struct upload *u, const void *data, size_t len,
	       struct error *err);
/* All of @src. */
int upload_copy(struct upload *u, struct source *src, struct error *err);

/* For UPLOAD_STAGED: all there are. -ECANCELED: @stop wants it. */
int upload_read_staged(struct upload *u, bool (*stop)(void *opaque),
		       void *opaque, struct error *err);

/*
 * All are there. @size, @md5: what they must be; NULL: as they are. -EINVAL:
 * they are not, or the content is not what it should be.
 */
int upload_finish(struct upload *u, const uint64_t *size, const char *md5,
		  struct error *err);

/* Nothing is left of the data of an upload that did not finish. NULL is fine. */
void upload_free(struct upload *u);
void upload_freep(struct upload **u);

const char *upload_id(const struct upload *u);

#endif
