/* SPDX-License-Identifier: BSD-3-Clause */
/* An image's data: their way in (see upload.h) and out, over HTTP. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "formats/chain.h"
#include "formats/image.h"
#include "formats/report.h"
#include "glance/cache-list.h"
#include "glance/data.h"
#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/inspect.h"
#include "glance/http/json-body.h"
#include "glance/locations.h"
#include "glance/remote.h"
#include "glance/routes.h"
#include "glance/stores.h"

/* ---- in ---- */

static void free_upload(void *state)
{
	upload_free(state);
}

/* Ends the upload of @q now: what follows may want the image queued. */
static void drop_upload(struct request *q)
{
	upload_free(q->state);
	q->state = NULL;
	q->state_free = NULL;
}

static int take_chunk(struct request *q, const void *data, size_t len)
{
	struct error err = { 0 };
	int r = upload_add(q->state, data, len, &err);

	if (r < 0) {
		drop_upload(q);
		respond_failure(q, &err);
	}
	return r;
}

static const struct body_sink upload_sink = { .chunk = take_chunk };

int data_upload_begin(struct request *q, const char *id, enum upload_kind kind,
		      struct error *err)
{
	struct upload *u;
	int r = upload_begin(q->app, &q->who, id, kind, &u, err);

	if (r < 0)
		return r;
	q->state = u;
	q->state_free = free_upload;
	q->sink = &upload_sink;
	return 0;
}

int data_upload_finish(struct request *q, const uint64_t *size, const char *md5,
		       struct error *err)
{
	int r = upload_finish(q->state, size, md5, err);

	if (r < 0)
		drop_upload(q);
	return r;
}

static void begin_octets(struct request *q, enum upload_kind kind)
{
	struct error err = { 0 };

	if (!request_type_is(q, "application/octet-stream"))
		respond_unsupported(q);
	else if (data_upload_begin(q, q->uri.segments[2], kind, &err) < 0)
		respond_failure(q, &err);
}

/* Into another store than the first, where there are several. */
static void choose_store(struct request *q, const char *name)
{
	struct glance *g = q->app;
	const char *key = stores_key_of(g, name);
	struct error err = { 0 };

	if (!key)
		error_set(&err, -EINVAL, 0,
			  "Store for identifier %.64s not found", name);
	else
		upload_set_stores(q->state, &key, 1, true, &err);
	if (!err.code)
		return;
	q->sink = NULL;
	drop_upload(q);
	respond_failure(q, &err);
}

static void begin_upload(struct request *q)
{
	const char *store = request_header(q, "X-Image-Meta-Store");

	begin_octets(q, UPLOAD_DATA);
	if (q->state && store && stores_many(q->app))
		choose_store(q, store);
}

static void begin_stage(struct request *q)
{
	begin_octets(q, UPLOAD_STAGE);
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

/* What is over 64 bits is as far as they go. */
static bool take_number(const char **text, uint64_t *ret)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	*ret = strtoull(*text, &end, 10);
	*text = end;
	return true;
}

/* "-N": the last bytes, all of them where there are fewer. */
static int parse_suffix(const char *text, uint64_t bytes, uint64_t *ret_off,
			uint64_t *ret_len)
{
	uint64_t n;

	if (!take_number(&text, &n) || *text || !n || !bytes)
		return -ERANGE;
	*ret_len = min_u64(n, bytes);
	*ret_off = bytes - *ret_len;
	return 1;
}

/*
 * "Range: bytes=A-B", A-, -N. 0: none, all; 1: this; -ERANGE: nothing of it is
 * there, or it is malformed; -EINVAL: several. Units that are not known are
 * none, as [RFC 9110] 14.2 says.
 */
static int parse_range(const char *text, uint64_t bytes, uint64_t *ret_off,
		       uint64_t *ret_len)
{
	uint64_t first, last = UINT64_MAX;

	*ret_off = 0;
	*ret_len = bytes;
	if (!text || strncasecmp(text, "bytes=", 6) != 0)
		return 0;
	if (strchr(text, ','))
		return -EINVAL;
	text += 6;
	if (*text == '-')
		return parse_suffix(text + 1, bytes, ret_off, ret_len);
	if (!take_number(&text, &first) || *text++ != '-' ||
	    (*text && !take_number(&text, &last)) || *text || last < first ||
	    first >= bytes)
		return -ERANGE;
	*ret_off = first;
	*ret_len = min_u64(last, bytes - 1) - first + 1;
	return 1;
}

/*
 * "Content-Range: bytes A-B/LENGTH" of a request, which Glance takes from of
 * old. The length may be "*"; B is inside the data then. As parse_range(), but
 * what cannot be understood is not satisfied.
 */
static int parse_content_range(const char *text, uint64_t bytes,
			       uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t first, last, length = 0;
	bool known;

	if (!text)
		return 0;
	if (strncmp(text, "bytes ", 6) != 0)
		return -ERANGE;
	text += 6;
	if (!take_number(&text, &first) || *text++ != '-' ||
	    !take_number(&text, &last) || *text++ != '/')
		return -ERANGE;
	known = *text != '*';
	if (!known)
		text++;
	else if (!take_number(&text, &length))
		return -ERANGE;
	if (*text || last < first || first >= bytes ||
	    (known ? last >= length : last >= bytes))
		return -ERANGE;
	*ret_off = first;
	*ret_len = min_u64(last, bytes - 1) - first + 1;
	return 1;
}

/* The headers of a part; the status, or 0 when it was answered. */
static unsigned int begin_answer(struct request *q, uint64_t bytes,
				 uint64_t *ret_off, uint64_t *ret_len)
{
	const char *range = request_header(q, "Range");
	int r = parse_range(range, bytes, ret_off, ret_len);
	char text[80];

	if (!range)
		r = parse_content_range(request_header(q, "Content-Range"),
					bytes, ret_off, ret_len);
	if (r == -EINVAL) {
		respond_error(q, 400,
			      "Several ranges are not supported: ask for one "
			      "at a time.");
		return 0;
	}
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

/* Those that a web server has, as it gives them. */
static void send_remote(struct request *q, const struct record *image)
{
	struct glance *g = q->app;
	struct producer p;
	struct error err = { 0 };
	uint64_t off, len;
	unsigned int status = begin_answer(q, image->size, &off, &len);

	if (!status)
		return;
	if (remote_open(g->fetch, record_http(image), off, len, &p, &err) < 0) {
		respond_errorf(q, err.code == -ENOENT ? 404 : 503,
			       "The data of image %s are not there", image->id);
		return;
	}
	if (image->checksum)
		respond_header(q, "Content-MD5", image->checksum);
	respond_producer(q, status, &p, len);
}

/* The bytes as they were put. */
static void send_stored(struct request *q, const struct record *image)
{
	struct glance *g = q->app;
	CLEANUP(closep) int fd = -1;
	uint64_t off, len;
	struct stat st;
	unsigned int status;
	int r;

	r = location_open(g, image, &fd, NULL, NULL);
	if (r == -ENOENT && record_http(image)) {
		send_remote(q, image);
		return;
	}
	if (r < 0 || fstat(fd, &st) < 0) {
		respond_errorf(q, 404, "The data of image %s are not there",
			       image->id);
		return;
	}
	status = begin_answer(q, (uint64_t)st.st_size, &off, &len);
	if (!status)
		return;
	if (image->checksum)
		respond_header(q, "Content-MD5", image->checksum);
	cache_list_enter(g->cached, image->id, (uint64_t)st.st_size, true);
	respond_file(q, status, TAKE_FD(fd), off, len);
}

static int read_disk(void *opaque, void *buf, size_t len, uint64_t off)
{
	return image_read(opaque, buf, len, off, NULL);
}

static void disk_done(void *opaque)
{
	image_unref(opaque);
}

/* @o: how to open the data of @image as a disk; *ret_src is o->src. */
static int find_disk(const struct glance *g, const struct record *image,
		     struct open_options *o, struct source **ret_src,
		     struct error *err)
{
	CLEANUP(closep) int fd = -1;
	bool is_disk = inspect_disk(image, o);
	int r = location_open(g, image, &fd, NULL, err);

	if (r >= 0 && !is_disk)
		r = error_set(err, -EINVAL, 0, "they are no disk");
	if (r >= 0)
		r = file_source_adopt(TAKE_FD(fd), 0, ret_src, err);
	if (r >= 0)
		o->src = *ret_src;
	return r;
}

/* The disk, decoded. */
static void send_disk(struct request *q, const struct record *image)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct open_options options;
	struct producer p = { .read = read_disk, .free = disk_done };
	struct error err = { 0 };
	struct image *disk;
	uint64_t len;
	unsigned int status;

	if (find_disk(q->app, image, &options, &src, &err) < 0 ||
	    image_open(image->id, &options, &disk, &err) < 0) {
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
	CLEANUP(record_done) struct record image = { 0 };

	if (image_of_request(q, &image) >= 0)
		data_send(q, &image);
}

/* ---- what they are ---- */

static void respond_report(struct request *q, const struct record *image,
			   json_t *j)
{
	json_object_set_new(j, "declared-format",
			    json_string(image->disk_format));
	json_object_set_new(j, "min-disk",
			    json_integer((json_int_t)image->min_disk));
	respond_json_value(q, 200, j);
}

/* NULL: the index does not know what is in that file. */
static json_t *known_report(const struct glance *g, const struct record *image)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(closep) int fd = -1;
	struct file_looks looks;
	json_t *j;

	if (location_open(g, image, &fd, NULL, NULL) < 0)
		return NULL;
	file_looks(fd, &looks);
	if (index_read(g->index, &tx, NULL) < 0 ||
	    findings_report(tx, image->n, &looks, &j, NULL) <= 0)
		return NULL;
	return j;
}

static void look_into_file(struct request *q, const struct record *image)
{
	CLEANUP(inspection_done) struct inspection found = { 0 };
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct open_options options;
	struct error err = { 0 }, refused = { 0 };
	struct layer *l;

	int r = find_disk(q->app, image, &options, &src, &err);

	if (r == -ENOENT)
		respond_failure(q, &err);
	else if (r < 0 || chain_open_top(image->id, &options, &l, &err) < 0)
		respond_errorf(q, 400, "Image %s cannot be read as a disk",
			       image->id);
	else {
		inspect_data(image, source_file(src)->fd, &found, &refused);
		respond_report(q, image,
			       inspect_report(l, image->id, &refused));
		layer_unref(l);
	}
}

static void inspect(struct request *q, const struct record *image)
{
	json_t *known;

	if (image->status != IMAGE_ACTIVE &&
	    image->status != IMAGE_DEACTIVATED) {
		respond_errorf(q, 409, "Image %s is %s: it has no data",
			       image->id, image_status_name(image->status));
		return;
	}
	known = known_report(q->app, image);
	if (known)
		respond_report(q, image, known);
	else
		look_into_file(q, image);
}

static void get_inspect(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };

	if (image_of_request(q, &image) >= 0)
		inspect(q, &image);
}

const struct route data_routes[] = {
	{ HTTP_PUT, "/v2/images/{}/file", finish_upload, begin_upload },
	{ HTTP_GET, "/v2/images/{}/file", get_data, .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/images/{}/inspect", get_inspect },
	{ HTTP_PUT, "/v2/images/{}/stage", finish_upload, begin_stage },
	{ 0 },
};
