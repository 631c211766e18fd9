/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "glance/copies.h"
#include "glance/digest.h"
#include "glance/import-state.h"
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/inspect.h"
#include "glance/limits.h"
#include "glance/record-rows.h"
#include "glance/signature.h"
#include "glance/stores.h"
#include "glance/tombstone.h"
#include "glance/upload.h"

#define COPY_BYTES	(1U << 20)
/* Sent to the disk while more comes, so that the end need not wait for all. */
#define WRITEBACK_BYTES (8U << 20)

struct upload {
	struct glance *g;
	const struct identity *who;
	enum upload_kind kind;
	char id[37];
	int fd;
	struct digest *digest;
	uint64_t bytes;
	bool coming; /* the index says so, because of us */
	struct inspection found;
	char *signed_as; /* what was checked of the signature */
	char md5[33], sha512[129];
	struct store *home; /* where they are while they come */
	const char *keys[MORE_STORES_MAX + 1]; /* of the stores they are for */
	bool failed[MORE_STORES_MAX + 1], placed[MORE_STORES_MAX + 1];
	size_t n_keys;
	bool all; /* one that fails ends it */
	const json_t *fields; /* the image's with the data; NULL: as it is */
	const char *must_sha512; /* NULL: what it is */
};

static enum image_status status_of(const struct upload *u)
{
	switch (u->kind) {
	case UPLOAD_DATA:
	case UPLOAD_DATA_V1:
		return IMAGE_SAVING;
	case UPLOAD_STAGE:
		return IMAGE_UPLOADING;
	default:
		return IMAGE_IMPORTING;
	}
}

static bool by_task(const struct upload *u)
{
	return status_of(u) == IMAGE_IMPORTING;
}

static enum store_area area_of(const struct upload *u)
{
	return u->kind == UPLOAD_STAGED ? STORE_STAGING : STORE_INCOMING;
}

/* What is left of it by a crash is half-made, and this says so. */
static enum tombstone_kind tombstone_of(const struct upload *u)
{
	return u->kind == UPLOAD_STAGED ? TOMBSTONE_MOVING : TOMBSTONE_COMING;
}

/* ---- what the index says ---- */

static int check_formats(const struct record *image, struct error *err)
{
	if (image->disk_format && image->container_format)
		return 0;
	return error_set(err, -EINVAL, 0,
			 "Properties %s%s%s must be set prior to saving data.",
			 image->disk_format ? "" : "disk_format",
			 image->disk_format || image->container_format ? ""
								       : ", ",
			 image->container_format ? "" : "container_format");
}

static int set_coming(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = image_load_own(tx, u->who, u->id, &image, err);

	if (r < 0)
		return r;
	if (image.status != IMAGE_QUEUED)
		return error_set(err, -EEXIST, 0,
				 "Image status transition from %s to %s is "
				 "not allowed",
				 image_status_name(image.status),
				 image_status_name(status_of(u)));
	if (u->kind != UPLOAD_STAGE)
		r = check_formats(&image, err);
	if (r >= 0)
		r = limits_check(u->g->limits, tx, u->who->project,
				 u->kind == UPLOAD_STAGE ? LIMIT_STAGE_TOTAL
							 : LIMIT_SIZE_TOTAL,
				 0, err);
	image.status = status_of(u);
	if (r >= 0)
		r = record_update(tx, &image, err);
	if (r >= 0)
		r = tombstone_add(tx, tombstone_of(u), u->id, err);
	return r < 0 ? r
		     : limits_check(u->g->limits, tx, u->who->project,
				    LIMIT_COUNT_UPLOADING, 0, err);
}

static int set_importing(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, u->id, &image, err);

	if (r >= 0 && image.status != IMAGE_IMPORTING)
		r = error_set(err, -EEXIST, 0, "Image %s is %s, not importing",
			      u->id, image_status_name(image.status));
	return r < 0 ? r : tombstone_add(tx, tombstone_of(u), u->id, err);
}

/* By a task it is the task that says what becomes of the image. */
static int set_ended(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = tombstone_drop(tx, tombstone_of(u), u->id, err);

	if (r < 0 || by_task(u) || record_load(tx, u->id, &image, NULL) < 0 ||
	    image.status != status_of(u))
		return r;
	image.status = u->kind == UPLOAD_DATA_V1 ? IMAGE_KILLED : IMAGE_QUEUED;
	return record_update(tx, &image, err);
}

/* Of the first store alone nothing need be said. */
static int say_stores(const struct upload *u, struct record *image,
		      struct error *err)
{
	bool plain = u->n_keys == 1 && !*u->keys[0];
	size_t i;
	int r = 0;

	for (i = 0; i < u->n_keys && r >= 0; i++) {
		if (!plain && !u->failed[i])
			r = copies_place(image, u->keys[i], err);
		if (r >= 0 && by_task(u))
			r = import_reached(image, stores_name(u->g, u->keys[i]),
					   !u->failed[i], err);
	}
	return r;
}

/* Nobody has said otherwise while they came. */
static int check_signed_as(const struct upload *u, const struct record *image,
			   struct error *err)
{
	CLEANUP(freep) char *now = signature_text(image);

	if (!now)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return !strcmp(now, u->signed_as)
		       ? 0
		       : error_set(
				 err, -EEXIST, 0,
				 "The signature of image %s has changed while "
				 "its data came",
				 u->id);
}

/* As the image is to be, if it is to be something else. */
static int set_fields(const struct upload *u, struct record *image,
		      struct error *err)
{
	const char *name;
	json_t *v;
	int r = 0;

	json_object_foreach((json_t *)u->fields, name, v) {
		if (r >= 0)
			r = image_set_field(image, name, v, err);
	}
	return r;
}

static int set_here(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, u->id, &image, err);

	if (r < 0)
		return r;
	if (image.status != status_of(u))
		return error_set(err, -EEXIST, 0, "Image %s is %s by now",
				 u->id, image_status_name(image.status));
	r = tombstone_drop(tx, tombstone_of(u), u->id, err);
	if (r < 0)
		return r;
	image.has_size = true;
	image.size = u->bytes;
	if (u->kind == UPLOAD_STAGE)
		return record_update(tx, &image, err);
	r = set_fields(u, &image, err);
	image.status = IMAGE_ACTIVE;
	if (r >= 0)
		r = check_signed_as(u, &image, err);
	if (r >= 0)
		r = say_stores(u, &image, err);
	if (r < 0)
		return r;
	inspection_apply(&u->found, &image,
			 glance_config_sets_min_disk(u->g->config));
	r = record_set(&image.checksum, u->md5, err);
	if (r >= 0)
		r = record_set(&image.hash_algo, DIGEST_ALGO, err);
	if (r >= 0)
		r = record_set(&image.hash_value, u->sha512, err);
	return r < 0 ? r : record_update(tx, &image, err);
}

/* ---- the data ---- */

static int open_data(struct upload *u, struct error *err)
{
	return u->kind == UPLOAD_STAGED
		       ? store_staging_open(u->home, u->id, &u->fd, err)
		       : store_incoming_open(u->home, u->id, &u->fd, err);
}

int upload_begin(struct glance *g, const struct identity *who, const char *id,
		 enum upload_kind kind, struct upload **ret, struct error *err)
{
	CLEANUP(upload_freep) struct upload *u = NULL;
	int r;

	if (!record_id_ok(id))
		return error_set(err, -ENOENT, 0,
				 "No image found with ID %.64s", id);
	u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(err, -ENOMEM, 0, "out of memory");
	u->g = g;
	u->who = who;
	u->kind = kind;
	u->fd = -1;
	u->home = g->store;
	u->keys[0] = "";
	u->n_keys = 1;
	u->all = true;
	snprintf(u->id, sizeof(u->id), "%s", id);
	r = index_write(g->index, by_task(u) ? set_importing : set_coming, u,
			err);
	if (r < 0)
		return r;
	u->coming = true;
	r = open_data(u, err);
	if (r >= 0)
		r = digest_new(&u->digest, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(u);
	return 0;
}

int upload_set_stores(struct upload *u, const char *const *keys, size_t n,
		      bool all, struct error *err)
{
	size_t i;

	for (i = 0; i < n; i++)
		u->keys[i] = keys[i];
	u->n_keys = n;
	u->all = all;
	if (u->kind == UPLOAD_STAGED || stores_find(u->g, keys[0]) == u->home)
		return 0;
	store_discard(u->home, STORE_INCOMING, u->id);
	closep(&u->fd);
	u->fd = -1;
	u->home = stores_find(u->g, keys[0]);
	return open_data(u, err);
}

int upload_set_original(struct upload *u, const json_t *fields,
			const char *sha512, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	int r = index_read(u->g->index, &tx, err);

	u->fields = fields;
	u->must_sha512 = sha512;
	if (r >= 0)
		r = record_load(tx, u->id, &image, err);
	return r < 0 ? r : set_fields(u, &image, err);
}

void upload_free(struct upload *u)
{
	if (!u)
		return;
	if (u->coming && u->kind != UPLOAD_STAGED)
		store_discard(u->home, STORE_INCOMING, u->id);
	if (u->coming)
		index_write(u->g->index, set_ended, u, NULL);
	closep(&u->fd);
	digest_free(u->digest);
	inspection_done(&u->found);
	free(u->signed_as);
	free(u);
}

void upload_freep(struct upload **u)
{
	upload_free(*u);
}

const char *upload_id(const struct upload *u)
{
	return u->id;
}

/* @before: bytes that were there before the last ones came. */
static void start_writeback(const struct upload *u, uint64_t before)
{
	uint64_t from = before - before % WRITEBACK_BYTES;
	uint64_t to = u->bytes - u->bytes % WRITEBACK_BYTES;

	if (to > from)
		sync_file_range(u->fd, (off_t)from, (off_t)(to - from),
				SYNC_FILE_RANGE_WRITE);
}

/* What was written, or read, goes through the digests. */
static int count(struct upload *u, const void *data, size_t len,
		 struct error *err)
{
	/* What is staged is digested when it becomes an image's. */
	int r = u->kind == UPLOAD_STAGE ? 0
					: digest_add(u->digest, data, len, err);

	if (r >= 0)
		u->bytes += len;
	return r;
}

int upload_add(struct upload *u, const void *data, size_t len,
	       struct error *err)
{
	uint64_t before = u->bytes;
	int r = store_write(u->fd, data, len, before);

	if (r == -ENOSPC || r == -EDQUOT)
		return error_set(err, -ENOSPC, 0,
				 "Image storage media is full: %s",
				 errno_text(-r));
	if (r < 0)
		return error_set(err, r, 0, "the store cannot be written: %s",
				 errno_text(-r));
	r = count(u, data, len, err);
	start_writeback(u, before);
	return r;
}

int upload_copy(struct upload *u, struct source *src, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(COPY_BYTES);
	uint64_t off = 0;
	size_t n;
	int r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	while (r >= 0 && off < src->bytes) {
		n = (size_t)min_u64(COPY_BYTES, src->bytes - off);
		r = source_read(src, buf, n, off, err);
		if (r >= 0)
			r = upload_add(u, buf, n, err);
		off += n;
	}
	return r;
}

int upload_read_staged(struct upload *u, bool (*stop)(void *opaque),
		       void *opaque, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(COPY_BYTES);
	ssize_t n;
	int r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	while (r >= 0) {
		if (stop(opaque))
			return error_set(err, -ECANCELED, 0, "stopped");
		n = pread(u->fd, buf, COPY_BYTES, (off_t)u->bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, 0,
					 "the staged data cannot be read: %s",
					 errno_text(errno));
		if (!n)
			return 0;
		r = count(u, buf, (size_t)n, err);
	}
	return r;
}

static int look_inside(struct upload *u, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	int r = index_read(u->g->index, &tx, err);

	if (r >= 0)
		r = record_load(tx, u->id, &image, err);
	if (r >= 0)
		r = set_fields(u, &image, err);
	if (r >= 0)
		r = inspect_data(&image, u->fd, &u->found, err);
	if (r < 0)
		return r;
	u->signed_as = signature_text(&image);
	return u->signed_as
		       ? signature_check(u->g->certificates, &image, u->fd, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");
}

/* Are they what the client said they would be? */
static int check_promise(const struct upload *u, const uint64_t *size,
			 const char *md5, struct error *err)
{
	if (size && *size != u->bytes)
		return error_set(err, -EINVAL, 0,
				 "Supplied size (%" PRIu64 ") and size "
				 "generated from uploaded image (%" PRIu64
				 ") did not match.",
				 *size, u->bytes);
	if (md5 && strcasecmp(md5, u->md5) != 0)
		return error_set(err, -EINVAL, 0,
				 "Supplied checksum (%.64s) and checksum "
				 "generated from uploaded image (%s) did not "
				 "match.",
				 md5, u->md5);
	if (u->must_sha512 && strcasecmp(u->must_sha512, u->sha512) != 0)
		return error_set(
			err, -EINVAL, 0,
			"Supplied os_hash_value (%.128s) and " DIGEST_ALGO
			" generated from the image (%s) "
			"did not match.",
			u->must_sha512, u->sha512);
	return 0;
}

static int finish_stage(struct upload *u, struct error *err)
{
	int r = store_stage(u->g->store, u->id, u->fd, err);

	if (r < 0)
		return r;
	r = index_write(u->g->index, set_here, u, err);
	if (r < 0)
		store_discard(u->g->store, STORE_STAGING, u->id);
	return r;
}

/* To its place in one of its stores: by a new name at home, else by a copy. */
static int put_into(struct upload *u, struct store *s, struct error *err)
{
	return s == u->home ? store_commit(s, area_of(u), u->id, u->fd, err)
			    : copies_put(s, u->id, u->fd, NULL, NULL, err);
}

/* Home last: they are read from there. */
static int put_into_all(struct upload *u, struct error *err)
{
	struct error why = { 0 };
	size_t i, good = 0;
	int pass, r = 0;

	for (pass = 0; pass < 2; pass++) {
		for (i = 0; i < u->n_keys; i++) {
			struct store *s = stores_find(u->g, u->keys[i]);

			if ((s == u->home) != pass)
				continue;
			error_clear(&why);
			r = put_into(u, s, &why);
			u->failed[i] = r < 0;
			u->placed[i] = r >= 0;
			good += r >= 0;
			if (r < 0 && u->all)
				return error_set(err, r, 0, "%s", why.msg);
		}
	}
	return good ? 0 : error_set(err, r, 0, "%s", why.msg);
}

/*
 * One store has failed, or the image was deleted meanwhile. The tombstone is
 * that of u->coming.
 */
static void take_back(const struct upload *u)
{
	size_t i;

	for (i = 0; i < u->n_keys; i++) {
		struct store *s = stores_find(u->g, u->keys[i]);

		if (!u->placed[i])
			continue;
		store_remove(s, u->id);
		store_sync(s, u->id, NULL);
	}
}

static int finish_data(struct upload *u, const uint64_t *size, const char *md5,
		       struct error *err)
{
	int r = digest_end(u->digest, u->md5, u->sha512, err);

	if (r >= 0)
		r = check_promise(u, size, md5, err);
	if (r >= 0)
		r = look_inside(u, err);
	if (r < 0)
		return r;
	r = put_into_all(u, err);
	if (r >= 0)
		r = index_write(u->g->index, set_here, u, err);
	if (r < 0)
		take_back(u);
	return r;
}

int upload_finish(struct upload *u, const uint64_t *size, const char *md5,
		  struct error *err)
{
	int r = u->kind == UPLOAD_STAGE ? finish_stage(u, err)
					: finish_data(u, size, md5, err);

	if (r < 0)
		return r;
	u->coming = false;
	return 0;
}
