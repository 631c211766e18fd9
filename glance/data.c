/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image's data: their way in and out.
 *
 * In: the index says "saving"; the body streams into the store's incoming
 * folder and through the digests; the format drivers look at it; it becomes
 * durable at its place; the index says "active". Whatever ends before leaves
 * the image queued and nothing else behind; see glance_tidy() for what a crash
 * leaves.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/image.h"
#include "glance/data.h"
#include "glance/digest.h"
#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/inspect.h"
#include "glance/routes.h"

#define COPY_BYTES (1U << 20)

/* ---- in ---- */

struct upload {
	struct glance *g;
	struct request *q;
	char id[37];
	int fd;
	struct digest *digest;
	uint64_t bytes;
	bool saving; /* the index says so, because of us */
	struct inspection found;
	char md5[33], sha512[129];
};

static int set_saving(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = image_load_own(tx, &u->q->who, u->id, &image, err);

	if (r < 0)
		return r;
	if (image.status != IMAGE_QUEUED)
		return error_set(err, -EEXIST, 0,
				 "Image status transition from %s to saving is "
				 "not allowed",
				 image_status_name(image.status));
	if (!image.disk_format || !image.container_format)
		return error_set(
			err, -EINVAL, 0,
			"Properties %s%s%s must be set prior to saving "
			"data.",
			image.disk_format ? "" : "disk_format",
			image.disk_format || image.container_format ? "" : ", ",
			image.container_format ? "" : "container_format");
	image.status = IMAGE_SAVING;
	return record_update(tx, &image, err);
}

static int set_queued(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, u->id, &image, err);

	if (r < 0 || image.status != IMAGE_SAVING)
		return r;
	image.status = IMAGE_QUEUED;
	return record_update(tx, &image, err);
}

static int set_active(struct index_tx *tx, void *opaque, struct error *err)
{
	struct upload *u = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, u->id, &image, err);

	if (r < 0)
		return r;
	image.status = IMAGE_ACTIVE;
	image.has_size = true;
	image.size = u->bytes;
	image.has_virtual_size = u->found.has_virtual_size;
	image.virtual_size = u->found.virtual_size;
	r = record_set(&image.checksum, u->md5, err);
	if (r >= 0)
		r = record_set(&image.hash_algo, DIGEST_ALGO, err);
	if (r >= 0)
		r = record_set(&image.hash_value, u->sha512, err);
	return r < 0 ? r : record_update(tx, &image, err);
}

/* Nothing is left of it, unless it has become the image's. */
static void upload_end(struct upload *u)
{
	if (u->saving) {
		store_incoming_discard(u->g->store, u->id);
		index_write(u->g->index, set_queued, u, NULL);
	}
	u->saving = false;
	closep(&u->fd);
	u->fd = -1;
}

static void upload_free(void *state)
{
	struct upload *u = state;

	upload_end(u);
	digest_free(u->digest);
	free(u);
}

static int write_all(int fd, const void *data, size_t len, uint64_t off)
{
	const uint8_t *p = data;
	ssize_t n;

	while (len) {
		n = pwrite(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static void fail_upload(struct request *q, struct upload *u,
			const struct error *err)
{
	upload_end(u);
	respond_failure(q, err);
}

static int add_chunk(struct upload *u, const void *data, size_t len,
		     struct error *err)
{
	int r = write_all(u->fd, data, len, u->bytes);

	if (r == -ENOSPC || r == -EDQUOT)
		return error_set(err, -ENOSPC, 0,
				 "Image storage media is full: %s",
				 errno_text(-r));
	if (r < 0)
		return error_set(err, r, 0, "the store cannot be written: %s",
				 errno_text(-r));
	r = digest_add(u->digest, data, len, err);
	if (r >= 0)
		u->bytes += len;
	return r;
}

static int take_chunk(struct request *q, const void *data, size_t len)
{
	struct upload *u = q->state;
	struct error err = { 0 };
	int r = add_chunk(u, data, len, &err);

	if (r < 0)
		fail_upload(q, u, &err);
	return r;
}

static const struct body_sink upload_sink = { .chunk = take_chunk };

static int upload_start(struct upload *u, struct error *err)
{
	int r = index_write(u->g->index, set_saving, u, err);

	if (r < 0)
		return r;
	u->saving = true;
	r = store_incoming_open(u->g->store, u->id, &u->fd, err);
	return r < 0 ? r : digest_new(&u->digest, err);
}

int data_upload_begin(struct request *q, const char *id, struct error *err)
{
	struct upload *u;
	int r;

	if (!record_id_ok(id))
		return error_set(err, -ENOENT, 0,
				 "No image found with ID %.64s", id);
	u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(err, -ENOMEM, 0, "out of memory");
	u->g = q->app;
	u->q = q;
	u->fd = -1;
	snprintf(u->id, sizeof(u->id), "%s", id);
	q->state = u;
	q->state_free = upload_free;
	q->sink = &upload_sink;
	r = upload_start(u, err);
	if (r < 0)
		upload_end(u);
	return r;
}

int data_upload_copy(struct request *q, struct source *src, struct error *err)
{
	struct upload *u = q->state;
	CLEANUP(freep) uint8_t *buf = malloc(COPY_BYTES);
	uint64_t off = 0;
	size_t n;
	int r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	while (r >= 0 && off < src->bytes) {
		n = (size_t)min_u64(COPY_BYTES, src->bytes - off);
		r = source_read(src, buf, n, off, err);
		if (r >= 0)
			r = add_chunk(u, buf, n, err);
		off += n;
	}
	if (r < 0)
		upload_end(u);
	return r;
}

const char *data_upload_id(const struct request *q)
{
	const struct upload *u = q->state;

	return u->id;
}

static void begin_upload(struct request *q)
{
	struct error err = { 0 };

	if (!request_type_is(q, "application/octet-stream"))
		respond_error(q, 415,
			      "The server does not support the media type of "
			      "the request.");
	else if (data_upload_begin(q, q->uri.segments[2], &err) < 0)
		respond_failure(q, &err);
}

static int look_inside(struct upload *u, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(freep) char *path = store_incoming_path(u->g->store, u->id);
	int r = index_read(u->g->index, &tx, err);

	if (r >= 0)
		r = record_load(tx, u->id, &image, err);
	if (r >= 0 && !path)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	return r < 0 ? r : inspect_data(&image, path, &u->found, err);
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
	return 0;
}

int data_upload_finish(struct request *q, const uint64_t *size, const char *md5,
		       struct error *err)
{
	struct upload *u = q->state;
	int r = digest_end(u->digest, u->md5, u->sha512, err);

	if (r >= 0)
		r = check_promise(u, size, md5, err);
	if (r >= 0)
		r = look_inside(u, err);
	if (r >= 0)
		r = store_incoming_commit(u->g->store, u->id, u->fd, err);
	if (r >= 0) {
		r = index_write(u->g->index, set_active, u, err);
		if (r < 0) /* it was deleted meanwhile */
			store_remove(u->g->store, u->id);
	}
	if (r < 0)
		upload_end(u);
	else
		u->saving = false;
	return r < 0 ? r : 0;
}

static void finish_upload(struct request *q)
{
	struct error err = { 0 };

	if (data_upload_finish(q, NULL, NULL, &err) < 0)
		respond_failure(q, &err);
	else
		respond_empty(q, 204);
}

/* ---- out ---- */

/*
 * "Range: bytes=A-B", A-, -N. 0: none, all; 1: this; -ERANGE: nothing of it is
 * there. Several ranges, and what cannot be understood, count as none.
 */
static int parse_range(const char *text, uint64_t bytes, uint64_t *ret_off,
		       uint64_t *ret_len)
{
	uint64_t first, last;
	char *end;

	*ret_off = 0;
	*ret_len = bytes;
	if (!text || strncmp(text, "bytes=", 6) || strchr(text, ','))
		return 0;
	text += 6;
	errno = 0;
	if (*text == '-') {
		first = strtoull(text + 1, &end, 10);
		if (end == text + 1 || *end || errno)
			return 0;
		if (!first || !bytes)
			return -ERANGE;
		*ret_len = min_u64(first, bytes);
		*ret_off = bytes - *ret_len;
		return 1;
	}
	first = strtoull(text, &end, 10);
	if (end == text || *text == '+' || *end != '-')
		return 0;
	last = UINT64_MAX;
	if (end[1]) {
		text = end + 1;
		last = strtoull(text, &end, 10);
		if (*end || *text == '+' || *text == '-' || last < first)
			return 0;
	}
	if (first >= bytes || errno)
		return -ERANGE;
	*ret_off = first;
	*ret_len = min_u64(last, bytes - 1) - first + 1;
	return 1;
}

/* The headers of a part; the status, or 0 when it was answered. */
static unsigned int begin_answer(struct request *q, uint64_t bytes,
				 uint64_t *ret_off, uint64_t *ret_len)
{
	int r = parse_range(request_header(q, "Range"), bytes, ret_off,
			    ret_len);
	char text[80];

	if (r == -ERANGE) {
		snprintf(text, sizeof(text), "bytes */%" PRIu64, bytes);
		respond_header(q, "Content-Range", text);
		respond_error(q, 416,
			      "The range requested is not satisfiable.");
		return 0;
	}
	respond_header(q, "Content-Type", "application/octet-stream");
	respond_header(q, "Accept-Ranges", "bytes");
	if (!r)
		return 200;
	snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
		 *ret_off, *ret_off + *ret_len - 1, bytes);
	respond_header(q, "Content-Range", text);
	return 206;
}

/* The bytes as they were put. */
static void send_stored(struct request *q, const struct record *image)
{
	struct glance *g = q->app;
	CLEANUP(freep) char *path = store_image_path(g->store, image->id);
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	uint64_t off, len;
	struct stat st;
	unsigned int status;

	if (fd < 0 || fstat(fd, &st) < 0) {
		closep(&fd);
		respond_errorf(q, 404, "The data of image %s are not there",
			       image->id);
		return;
	}
	status = begin_answer(q, (uint64_t)st.st_size, &off, &len);
	if (!status) {
		close(fd);
		return;
	}
	if (image->checksum)
		respond_header(q, "Content-MD5", image->checksum);
	respond_file(q, status, fd, off, len);
}

static int read_disk(void *opaque, void *buf, size_t len, uint64_t off)
{
	return image_read(opaque, buf, len, off, NULL);
}

static void disk_done(void *opaque)
{
	image_unref(opaque);
}

/* The disk, decoded. */
static void send_disk(struct request *q, const struct record *image)
{
	struct glance *g = q->app;
	CLEANUP(freep) char *path = store_image_path(g->store, image->id);
	struct open_options options = { .format = inspect_format(
						image->disk_format) };
	struct producer p = { .read = read_disk, .free = disk_done };
	struct error err = { 0 };
	struct image *disk;
	uint64_t len;
	unsigned int status;

	if (!path || !options.format ||
	    image_open(path, &options, &disk, &err) < 0) {
		respond_errorf(q, 400, "Image %s cannot be read as a disk",
			       image->id);
		return;
	}
	status = begin_answer(q, disk->bytes, &p.off, &len);
	if (!status) {
		image_unref(disk);
		return;
	}
	p.opaque = disk;
	respond_producer(q, status, &p, len);
}

void data_send(struct request *q, const struct record *image)
{
	const char *format = uri_query(&q->uri, "format");

	if (image->status == IMAGE_DEACTIVATED && !q->who.admin)
		respond_error(q, 403,
			      "The requested image has been deactivated. Image "
			      "data download is forbidden.");
	else if (image->status != IMAGE_ACTIVE &&
		 image->status != IMAGE_DEACTIVATED)
		respond_empty(q, 204);
	else if (!format)
		send_stored(q, image);
	else if (!strcmp(format, "raw"))
		send_disk(q, image);
	else
		respond_errorf(q, 400, "format \"%.32s\" is not raw", format);
}

static void get_data(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, q->uri.segments[2], &image, &err);
	index_read_end(TAKE_PTR(tx));
	if (r < 0)
		respond_failure(q, &err);
	else
		data_send(q, &image);
}

const struct route data_routes[] = {
	{ HTTP_PUT, "/v2/images/{}/file", finish_upload, begin_upload },
	{ HTTP_GET, "/v2/images/{}/file", get_data },
	{ 0 },
};
