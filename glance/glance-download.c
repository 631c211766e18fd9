/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "glance/digest.h"
#include "glance/glance-download.h"
#include "glance/http/json-in.h"
#include "glance/image-fields.h"
#include "glance/keystone.h"
#include "glance/log.h"
#include "glance/schemas.h"
#include "glance/task-tokens.h"

/* Of the properties, those whose names begin so: Glance's default list. */
#define PREFIXES "hw_,trait:,os_distro,os_secure_boot,os_type"

bool glance_download_offered(const struct glance *g)
{
	return g->auth && auth_keystone(g->auth);
}

static int check_there(const json_t *method, const char *name,
		       struct error *err)
{
	if (json_member(method, name))
		return 0;
	return error_set(err, -EINVAL, 0,
			 "'%s' needs to be set for glance-download import "
			 "method",
			 name);
}

int glance_download_check(json_t *method, struct error *err)
{
	static const char interface[] = "glance_service_interface";
	int r = check_there(method, "glance_region", err);

	if (r >= 0)
		r = check_there(method, "glance_image_id", err);
	if (r < 0)
		return r;
	if (!record_id_ok(json_member(method, "glance_image_id")))
		return error_set(err, -EINVAL, 0,
				 "Remote image id does not look like a UUID: "
				 "%.64s",
				 json_member(method, "glance_image_id"));
	if (!json_object_get(method, interface))
		json_object_set_new(method, interface, json_string("public"));
	return check_there(method, interface, err);
}

void far_image_done(struct far_image *f)
{
	task_token_freep(&f->header);
	free(f->url);
	json_decref(f->fields);
	json_decref(f->told);
	*f = (struct far_image){ 0 };
}

/* ---- where it is ---- */

static const char *endpoint_of(const json_t *service, const char *region,
			       const char *interface)
{
	const json_t *list = json_object_get(service, "endpoints"), *e;
	size_t i;

	json_array_foreach((json_t *)list, i, e) {
		const char *where = json_member(e, "region");
		const char *kind = json_member(e, "interface");

		if (where && kind && !strcasecmp(where, region) &&
		    !strcmp(kind, interface))
			return json_member(e, "url");
	}
	return NULL;
}

/* In what Keystone says of a token; NULL: there is none. */
static const char *find_endpoint(const json_t *token, const char *region,
				 const char *interface)
{
	const json_t *catalog = json_object_get(token, "catalog"), *service;
	const char *type, *url = NULL;
	size_t i;

	json_array_foreach((json_t *)catalog, i, service) {
		type = json_member(service, "type");
		if (!url && type && !strcmp(type, "image"))
			url = endpoint_of(service, region, interface);
	}
	return url;
}

static int ask_catalog(struct glance *g, const char *token, json_t **ret,
		       struct error *err)
{
	struct error why = { 0 };
	int r = keystone_token(auth_keystone(g->auth), token, ret, &why);

	if (r == -EACCES)
		return error_set(err, r, 0,
				 "the token that asked for the import is not "
				 "valid any more");
	if (r >= 0)
		return 0;
	log_line("glance-download: %s", why.msg);
	return error_set(err, r, 0,
			 "Keystone cannot be asked for its catalog at present");
}

/* *ret: of the image at the service, without "/file"; to be freed. */
static int find_url(struct glance *g, const json_t *method, const char *token,
		    char **ret, struct error *err)
{
	const char *region = json_member(method, "glance_region");
	const char *interface = json_member(method, "glance_service_interface");
	CLEANUP(json_in_freep) json_t *answer = NULL;
	const char *url;
	size_t len;
	int r = ask_catalog(g, token, &answer, err);

	if (r < 0)
		return r;
	url = find_endpoint(answer, region, interface);
	if (!url)
		return error_set(err, -ENOENT, 0,
				 "%.64s glance endpoint not found for region "
				 "%.64s",
				 interface, region);
	len = strlen(url);
	while (len && url[len - 1] == '/')
		len--;
	if (len > 3 && !strncmp(url + len - 3, "/v2", 3))
		len -= 3;
	if (asprintf(ret, "%.*s/v2/images/%s", (int)len, url,
		     json_member(method, "glance_image_id")) < 0) {
		*ret = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return 0;
}

/* ---- what it is ---- */

struct description {
	struct text_buf text;
	bool (*stop)(void *opaque);
	void *opaque;
};

static int add_text(void *opaque, const void *data, size_t len,
		    struct error *err)
{
	struct description *d = opaque;

	text_add_bytes(&d->text, data, len);
	if (!d->text.failed)
		return 0;
	return error_set(err, -EFBIG, 0,
			 "the image's description is over %u bytes",
			 FAR_JSON_BYTES_MAX);
}

static bool stops(void *opaque)
{
	const struct description *d = opaque;

	return d->stop(d->opaque);
}

/* @prefixes: separated by commas, and spaces as they are in Glance's own list. */
static bool begins_with_one(const char *name, const char *prefixes)
{
	const char *between = ", \t";
	size_t len;

	for (; *prefixes; prefixes += len + strspn(prefixes + len, between)) {
		len = strcspn(prefixes, between);
		if (len && !strncmp(name, prefixes, len))
			return true;
	}
	return false;
}

/* What is no property is the other image's alone, whatever it begins with. */
static bool is_copied(const struct glance *g, const char *name)
{
	const char *prefixes = g->config->import_properties;

	if (schema_image_base(name))
		return !strcmp(name, "disk_format") ||
		       !strcmp(name, "container_format");
	return !image_name_reserved(name) &&
	       begins_with_one(name, prefixes ? prefixes : PREFIXES);
}

/* Of what was told, what the image here gets. */
static int take_fields(const struct glance *g, struct far_image *f,
		       struct error *err)
{
	const char *name;
	json_t *v;

	f->fields = json_object();
	json_object_foreach(f->told, name, v) {
		if (is_copied(g, name) && !json_is_null(v) &&
		    json_object_set(f->fields, name, v) < 0)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return f->fields ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

/* In what was told of image @id. */
static int take_told(const struct glance *g, struct far_image *f,
		     const char *id, struct error *err)
{
	const char *status = json_member(f->told, "status");
	const char *algo = json_member(f->told, "os_hash_algo");
	const json_t *size = json_object_get(f->told, "size");

	if (!status || strcmp(status, "active") != 0)
		return error_set(err, -EINVAL, 0,
				 "Source image status should be active instead "
				 "of %.32s",
				 status ? status : "None");
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return error_set(err, -EINVAL, 0,
				 "Size attribute of remote image %s could not "
				 "be determined.",
				 id);
	f->size = (uint64_t)json_integer_value(size);
	f->md5 = json_member(f->told, "checksum");
	if (algo && !strcmp(algo, DIGEST_ALGO))
		f->sha512 = json_member(f->told, "os_hash_value");
	return take_fields(g, f, err);
}

static int parse(const struct text_buf *b, json_t **ret, struct error *err)
{
	if (b->text && json_in_parse(b->text, b->len, ret, NULL) >= 0 &&
	    json_is_object(*ret))
		return 0;
	return error_set(err, -EINVAL, 0,
			 "what the other service says of the image is no JSON "
			 "object, or one that is nested over %d deep",
			 JSON_IN_DEPTH_MAX);
}

static int ask_service(const struct glance *g, const char *url,
		       struct description *d, struct far_image *f,
		       struct error *err)
{
	const struct fetch_sink sink = { add_text, stops, d };
	int r;

	d->text.max = FAR_JSON_BYTES_MAX;
	r = fetch_as(g->fetch, url, f->header, &sink, err);
	if (r >= 0)
		r = parse(&d->text, &f->told, err);
	text_buf_done(&d->text);
	return r;
}

int glance_download_find(struct glance *g, const json_t *method,
			 const char *token, bool (*stop)(void *opaque),
			 void *opaque, struct far_image *f, struct error *err)
{
	struct description d = { .stop = stop, .opaque = opaque };
	CLEANUP(freep) char *url = NULL;
	int r = find_url(g, method, token, &url, err);

	if (r < 0)
		return r;
	if (asprintf(&f->header, "X-Auth-Token: %s", token) < 0) {
		f->header = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = ask_service(g, url, &d, f, err);
	if (r >= 0)
		r = take_told(g, f, json_member(method, "glance_image_id"),
			      err);
	if (r >= 0 && asprintf(&f->url, "%s/file", url) < 0) {
		f->url = NULL;
		r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	return r;
}

/* ---- its data ---- */

struct limited {
	const struct fetch_sink *to;
	uint64_t size, left;
};

static int add_limited(void *opaque, const void *data, size_t len,
		       struct error *err)
{
	struct limited *l = opaque;

	if (len > l->left)
		return error_set(err, -EFBIG, 0,
				 "more comes than the %" PRIu64
				 " bytes that the image has",
				 l->size);
	l->left -= len;
	return l->to->add(l->to->opaque, data, len, err);
}

static bool stop_limited(void *opaque)
{
	const struct limited *l = opaque;

	return l->to->stop(l->to->opaque);
}

int glance_download_data(const struct glance *g, const struct far_image *f,
			 const struct fetch_sink *to, struct error *err)
{
	struct limited l = { .to = to, .size = f->size, .left = f->size };
	const struct fetch_sink sink = { add_limited, stop_limited, &l };

	/* Without data there is no answer with 200. */
	return f->size ? fetch_as(g->fetch, f->url, f->header, &sink, err) : 0;
}
