/* SPDX-License-Identifier: BSD-3-Clause */
/* platter image create and save: data, there and back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/format.h"
#include "glance/digest.h"
#include "iouring/write.h"
#include "nbd/cmd/cmd-image.h"
#include "nbd/cmd/output.h"
#include "nbd/cmd/progress.h"

/* ---- create ---- */

struct upload {
	const char *path;
	int fd;
	uint64_t done_bytes;
	struct progress progress;
};

/* Sets what was not given: the name, and the formats. */
static int complete_fields(json_t *fields, const char *file, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const char *base = strrchr(file, '/');
	const struct format_ops *ops;
	int r;

	base = base ? base + 1 : file;
	if (!json_object_get(fields, "name"))
		json_object_set_new(
			fields, "name",
			json_stringn(base, strcspn(base + 1, ".") + 1));
	if (!json_object_get(fields, "container_format"))
		json_object_set_new(fields, "container_format",
				    json_string("bare"));
	if (json_object_get(fields, "disk_format"))
		return 0;
	r = file_source_open(file, 0, &src, err);
	if (r >= 0)
		r = format_probe(src, &ops, err);
	if (r < 0)
		return r;
	if (!ops->glance_name)
		return error_set(err, -ENOTSUP, 0,
				 "%s: %s is none of an image service's "
				 "formats; platter convert makes qcow2 of it",
				 file, ops->name);
	json_object_set_new(fields, "disk_format",
			    json_string(ops->glance_name));
	return 0;
}

static ssize_t read_some(void *opaque, void *buf, size_t len, struct error *err)
{
	struct upload *u = opaque;
	ssize_t n;

	do
		n = read(u->fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, -errno, 0, "%s: %s", u->path,
				 errno_text(errno));
	u->done_bytes += (uint64_t)n;
	if (u->progress.total_bytes)
		progress_tell(&u->progress, u->done_bytes);
	return n;
}

static int open_file(const char *file, int *ret_fd, int64_t *ret_bytes,
		     struct error *err)
{
	struct stat st;
	int fd = !strcmp(file, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				    : open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		error_set(err, -errno, 0, "%s: %s", file, errno_text(errno));
		closep(&fd);
		return err->code;
	}
	*ret_fd = fd;
	*ret_bytes = S_ISREG(st.st_mode) && strcmp(file, "-") != 0
			     ? (int64_t)st.st_size
			     : -1;
	return 0;
}

static int upload(struct image_cmd *c, const char *image, struct upload *u,
		  int64_t bytes, struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	struct api_answer answer;
	int r;

	if (asprintf(&path, "%s/file", image) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	progress_begin(&u->progress, "upload", bytes > 0 ? (uint64_t)bytes : 0,
		       c->quiet);
	r = api_call(&c->api,
		     &(struct api_request){ .method = "PUT",
					    .path = path,
					    .type = "application/octet-stream",
					    .read = read_some,
					    .read_bytes = bytes,
					    .opaque = u },
		     &answer, err);
	progress_end(&u->progress);
	api_answer_done(&answer);
	return r;
}

/* What could not be uploaded does not stay behind, queued for ever. */
static int create(struct image_cmd *c, struct upload *u, int64_t bytes,
		  struct error *err)
{
	json_t *image = api_send(&c->api, "POST", "/v2/images", NULL,
				 json_incref(c->fields), err);
	CLEANUP(freep) char *path = NULL;
	struct error ignored = { 0 };
	int r = 0;

	if (!image)
		return err->code;
	path = image_path(c, json_string_value(json_object_get(image, "id")),
			  err);
	json_decref(image);
	if (!path)
		return err->code;
	if (u->fd >= 0)
		r = upload(c, path, u, bytes, err);
	if (r < 0) {
		c->api.insists = true;
		api_do(&c->api, "DELETE", path, &ignored);
		return r;
	}
	image = api_get(&c->api, path, err);
	if (!image)
		return err->code;
	image_print(c, image);
	return 0;
}

int image_create(struct image_cmd *c, int n, char **operands)
{
	const char *file = n ? operands[0] : NULL;
	struct upload u = { .path = file, .fd = -1 };
	struct error err = { 0 };
	int64_t bytes = -1;
	int r = 0;

	if (n > 1)
		return cmd_usage(&c->cmd, "create takes one FILE");
	if (file && !strcmp(file, "-") &&
	    !(json_object_get(c->fields, "name") &&
	      json_object_get(c->fields, "disk_format")))
		return cmd_usage(&c->cmd, "of standard input, --name and "
					  "--disk-format must be given");
	json_object_set(c->fields, "tags", c->tags);
	if (file)
		r = complete_fields(c->fields, file, &err);
	if (r >= 0 && file)
		r = open_file(file, &u.fd, &bytes, &err);
	if (r >= 0)
		r = create(c, &u, bytes, &err);
	closep(&u.fd);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

/* ---- save ---- */

struct download {
	struct output out; /* unless it is standard output */
	bool to_stdout;
	bool raw;
	uint64_t bytes; /* written so far */
	struct digest *digest; /* NULL: there is nothing to compare with */
	struct progress progress;
	bool quiet;
};

static void take_length(void *opaque, uint64_t bytes)
{
	struct download *d = opaque;

	progress_begin(&d->progress, "save", bytes, d->quiet);
}

static int put(struct download *d, const void *data, size_t len,
	       struct error *err)
{
	if (!d->to_stdout)
		/* Of a disk, what is zero stays a hole. */
		return d->raw && is_all_zero(data, len)
			       ? 0
			       : source_write(d->out.dst, data, len, d->bytes,
					      err);
	return fwrite(data, 1, len, stdout) == len
		       ? 0
		       : error_set(err, -EIO, 0, "cannot write the output: %s",
				   errno_text(errno));
}

static int take_data(void *opaque, const void *data, size_t len,
		     struct error *err)
{
	struct download *d = opaque;
	int r = put(d, data, len, err);

	if (r >= 0 && d->digest)
		r = digest_add(d->digest, data, len, err);
	d->bytes += len;
	if (d->progress.total_bytes)
		progress_tell(&d->progress, d->bytes);
	return r;
}

static int compare_digest(struct download *d, const char *want,
			  struct error *err)
{
	char md5[33], sha512[129];
	int r = digest_end(d->digest, md5, sha512, err);

	if (r >= 0 && strcmp(sha512, want) != 0)
		return error_set(err, -EIO, 0,
				 "the data's SHA-512 is %.16s..., not what the "
				 "image says (%.16s...)",
				 sha512, want);
	return r;
}

static int download(struct image_cmd *c, const char *image, struct download *d,
		    struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	struct api_answer answer;
	int r;

	if (asprintf(&path, "%s/file%s", image, d->raw ? "?format=raw" : "") <
	    0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = api_call(&c->api,
		     &(struct api_request){ .method = "GET",
					    .path = path,
					    .write = take_data,
					    .length = take_length,
					    .opaque = d },
		     &answer, err);
	if (r >= 0 && answer.status == 204)
		r = error_set(err, -ENODATA, 0, "the image has no data");
	progress_end(&d->progress);
	api_answer_done(&answer);
	return r;
}

/* Is there a digest to compare with? It is of the stored bytes. */
static const char *known_digest(const struct download *d, const json_t *image)
{
	const json_t *algo = json_object_get(image, "os_hash_algo");

	if (d->raw || !json_is_string(algo) ||
	    strcmp(json_string_value(algo), DIGEST_ALGO) != 0)
		return NULL;
	return json_string_value(json_object_get(image, "os_hash_value"));
}

static int save(struct image_cmd *c, struct download *d, const char *name,
		const char *file, struct error *err)
{
	CLEANUP(freep) char *path = image_path(c, name, err);
	json_t *image = path ? api_get(&c->api, path, err) : NULL;
	const char *want;
	int r = 0;

	if (!image)
		return err->code;
	want = known_digest(d, image);
	if (want)
		r = digest_new(&d->digest, err);
	if (r >= 0 && !d->to_stdout)
		r = output_begin(&d->out, file, c->overwrite, err);
	if (r >= 0)
		r = download(c, path, d, err);
	if (r >= 0 && want)
		r = compare_digest(d, want, err);
	if (r >= 0 && !d->to_stdout)
		r = source_truncate(d->out.dst, d->bytes, err);
	if (r >= 0 && !d->to_stdout)
		r = output_commit(&d->out, err);
	json_decref(image);
	return r;
}

int image_save(struct image_cmd *c, int n, char **operands)
{
	struct download d = { .raw = c->raw, .quiet = c->quiet };
	struct error err = { 0 };
	int r;

	if (n != 2)
		return cmd_usage(&c->cmd, "save takes IMAGE and FILE");
	d.to_stdout = !strcmp(operands[1], "-");
	r = save(c, &d, operands[0], operands[1], &err);
	output_done(&d.out);
	digest_free(d.digest);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}
