/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/reference.h"
#include "glance/admit.h"
#include "glance/copies.h"
#include "glance/digest.h"
#include "glance/fetch.h"
#include "glance/http/json-in.h"
#include "glance/inspect.h"
#include "glance/http/json-body.h"
#include "glance/locations.h"
#include "glance/scan.h"
#include "glance/signature.h"
#include "glance/stores.h"
#include "glance/http/uri.h"

#define FILE_SCHEME "file://"

struct location_rules {
	bool show;
	struct folder *dirs[LOCATION_DIRS_MAX + 1]; /* the store's is behind */
	size_t n_dirs;
};

static int add_dir(struct location_rules *r, const char *dir, struct error *err)
{
	struct error why = { 0 };

	if (r->n_dirs == LOCATION_DIRS_MAX)
		return error_set(err, -EINVAL, 0,
				 "location-dirs: over %d folders",
				 LOCATION_DIRS_MAX);
	if (*dir != '/')
		return error_set(err, -EINVAL, 0,
				 "location-dirs: %s is no absolute path", dir);
	if (folder_open(dir, &r->dirs[r->n_dirs], &why) < 0)
		return error_set(err, -EINVAL, 0, "location-dirs: %s", why.msg);
	r->n_dirs++;
	return 0;
}

/* @list is cut to pieces. */
static int add_dirs(struct location_rules *r, char *list, struct error *err)
{
	char *dir, *rest = NULL;
	int code = 0;

	for (dir = strtok_r(list, ":", &rest); dir && code >= 0;
	     dir = strtok_r(NULL, ":", &rest))
		code = add_dir(r, dir, err);
	return code;
}

static int fill_rules(struct location_rules *r, const char *show,
		      const char *dirs, struct error *err)
{
	CLEANUP(freep) char *copy = dirs ? strdup(dirs) : NULL;

	r->show = show && !strcmp(show, "true");
	if (show && !r->show && strcmp(show, "false") != 0)
		return error_set(err, -EINVAL, 0,
				 "show-locations is true or false, not "
				 "\"%.32s\"",
				 show);
	if (!dirs)
		return 0;
	return copy ? add_dirs(r, copy, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
}

int location_rules_new(const char *store, const char *show, const char *dirs,
		       struct location_rules **ret, struct error *err)
{
	struct location_rules *r = calloc(1, sizeof(*r));
	int code = r ? fill_rules(r, show, dirs, err)
		     : error_set(err, -ENOMEM, 0, "out of memory");

	if (code >= 0)
		code = folder_open(store, &r->dirs[r->n_dirs], err);
	if (code < 0) {
		location_rules_free(r);
		return code;
	}
	*ret = r;
	return 0;
}

void location_rules_free(struct location_rules *r)
{
	size_t i;

	if (!r)
		return;
	for (i = 0; i < ARRAY_SIZE(r->dirs); i++)
		folder_unref(r->dirs[i]);
	free(r);
}

bool location_rules_show(const struct location_rules *r)
{
	return r->show;
}

/* ---- files ---- */

static char *path_of(const char *url, struct error *err)
{
	CLEANUP(uri_done) struct uri u = { 0 };
	struct text_buf b = { 0 };
	char *path;
	size_t i;

	if (uri_parse(url + strlen(FILE_SCHEME), &u, err) < 0)
		return NULL;
	for (i = 0; i < u.n_segments; i++) {
		text_add_char(&b, '/');
		text_add(&b, u.segments[i]);
	}
	path = text_buf_take(&b);
	if (!path)
		error_set(err, -ENOMEM, 0, "out of memory");
	return path;
}

/*
 * Opens the file, once. One answer for what is not there and what is elsewhere.
 * @found: nobody but the scan has named it, and it may lie in the store.
 */
static int open_url(const struct location_rules *r, const char *url, bool found,
		    int *ret, struct error *err)
{
	CLEANUP(freep) char *path = path_of(url, err);
	int fd;

	if (!path)
		return err->code;
	fd = folders_open_file(r->dirs, r->n_dirs + found, path);
	if (fd < 0)
		return error_set(err, -ENOENT, 0,
				 "there is no file at %.256s that may be "
				 "registered",
				 url);
	*ret = fd;
	return 0;
}

static bool is_own_url(const struct location *l)
{
	return !strcmp(l->store, LOCATION_OWN);
}

static struct store *store_of(const struct glance *g, const struct location *l)
{
	return stores_find(g, l->url + strlen(OWN_URL));
}

/* -ENOENT, too, where it is at none of the places that can be opened. */
static int open_at(const struct glance *g, const struct record *r,
		   const struct location *l, int *ret, char **ret_path,
		   struct error *err)
{
	struct store *s;
	int code;

	*ret_path = NULL;
	if (!strcmp(l->store, LOCATION_FILE) ||
	    !strcmp(l->store, LOCATION_FOUND)) {
		code = open_url(g->locations, l->url,
				!strcmp(l->store, LOCATION_FOUND), ret, err);
		if (code >= 0)
			*ret_path = path_of_fd(*ret);
		return code;
	}
	s = is_own_url(l) ? store_of(g, l) : NULL;
	if (!s)
		return error_set(err, -ENOENT, 0,
				 "the data of image %s are at no place that "
				 "can be opened",
				 r->id);
	code = store_data_open(s, r->id, ret, err);
	if (code >= 0)
		*ret_path = store_image_path(s, r->id);
	return code;
}

int location_open(const struct glance *g, const struct record *r, int *ret,
		  char **ret_path, struct error *err)
{
	static char own[] = LOCATION_OWN, url[] = OWN_URL;
	const struct location first = { .store = own, .url = url };
	CLEANUP(closep) int fd = -1;
	CLEANUP(freep) char *path = NULL;
	struct error why = { 0 };
	int code = -ENOENT;
	size_t i;

	error_set(&why, code, 0, "image %s has no data to be opened", r->id);
	for (i = 0; i < r->n_locations && code < 0; i++) {
		error_clear(&why);
		code = open_at(g, r, &r->locations[i], &fd, &path, &why);
	}
	if (code < 0 && record_is_in(r, "") &&
	    !record_has_location(r, LOCATION_OWN)) {
		error_clear(&why);
		code = open_at(g, r, &first, &fd, &path, &why);
	}
	if (code < 0)
		return error_set(err, code, 0, "%s", why.msg);
	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*ret = TAKE_FD(fd);
	if (ret_path)
		*ret_path = TAKE_PTR(path);
	return 0;
}

const char *location_shown(const struct record *r)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!is_own_url(&r->locations[i]))
			return strcmp(r->locations[i].store, SCAN_STORE) != 0
				       ? r->locations[i].url
				       : NULL;
	return NULL;
}

/* "file://" and the path, as a URL has it. */
static char *file_url(const struct store *s, const char *id)
{
	CLEANUP(freep) char *path = store_image_path(s, id);
	struct text_buf b = { 0 };
	const char *p = path;
	size_t len;

	text_add(&b, FILE_SCHEME);
	while (p && *p) {
		CLEANUP(freep) char *part = NULL;

		text_add_char(&b, '/');
		p += strspn(p, "/");
		len = strcspn(p, "/");
		part = strndup(p, len);
		text_add_percent(&b, part ? part : "");
		p += len;
	}
	return path ? text_buf_take(&b) : NULL;
}

char *location_url(const struct glance *g, const struct record *r,
		   const struct location *l)
{
	struct store *s = l && is_own_url(l) ? store_of(g, l) : g->store;
	char *url;

	if (l && (!is_own_url(l) || !s))
		return strdup(l->url);
	if (g->config->direct_url && (!l || s == g->store))
		return asprintf(&url, "%s%s", g->config->direct_url, r->id) < 0
			       ? NULL
			       : url;
	return file_url(s, r->id);
}

/* ---- changes ---- */

static const char *verb(const struct patch_change *c)
{
	return c->op == PATCH_ADD      ? "add"
	       : c->op == PATCH_REMOVE ? "remove"
				       : "replace";
}

static int check_may(const struct glance *g, const struct record *r,
		     const struct patch_change *c, struct error *err)
{
	if (!g->locations->show)
		return error_set(err, -EPERM, 0,
				 "It's not allowed to %s locations if "
				 "locations are invisible.",
				 c->op == PATCH_REPLACE ? "update" : verb(c));
	if (r->status != IMAGE_ACTIVE &&
	    (r->status != IMAGE_QUEUED || c->op == PATCH_REMOVE))
		return error_set(err, -EEXIST, 0,
				 "It's not allowed to %s locations if image "
				 "status is %s.",
				 verb(c), image_status_name(r->status));
	if (record_has_location(r, LOCATION_FOUND) ||
	    record_has_location(r, LOCATION_PITHOS))
		return error_set(err, -EEXIST, 0,
				 "Image %s is what its file is: it has no "
				 "other locations",
				 r->id);
	return 0;
}

/* "-" or 0 to @n; at the end, "-" is where one is added. */
static int parse_position(const char *text, size_t n, bool adding, size_t *ret,
			  struct error *err)
{
	unsigned long at;
	char *end;

	if (adding && !strcmp(text, "-")) {
		*ret = n;
		return 0;
	}
	at = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || at >= n + adding)
		return error_set(err, -EINVAL, 0,
				 "Invalid position for %s a location.",
				 adding ? "adding" : "removing");
	*ret = at;
	return 0;
}

static bool is_http(const char *url)
{
	return !strncasecmp(url, "http://", 7) ||
	       !strncasecmp(url, "https://", 8);
}

/* Files of this machine are an administrator's to name. */
static int make_location(const struct identity *who, const json_t *v,
			 struct location *ret, struct error *err)
{
	const char *url = json_member(v, "url");
	bool file = !strncmp(url, FILE_SCHEME "/", strlen(FILE_SCHEME "/"));

	if (!is_http(url) && !(file && who->admin))
		return error_set(err, -EINVAL, 0, "Invalid location");
	ret->url = strdup(url);
	ret->store = strdup(file ? LOCATION_FILE : LOCATION_HTTP);
	ret->metadata =
		json_dumps(json_object_get(v, "metadata"), JSON_COMPACT);
	return 0;
}

/* @field is to be @value; new: it was not set. */
static int take_value(char **field, const char *name, const char *value,
		      bool *new, struct error *err)
{
	if (!value || (*field && !strcmp(*field, value)))
		return 0;
	if (*field)
		return error_set(err, -EEXIST, 0,
				 "%s is already set with a different value",
				 name);
	*new = true;
	return record_set(field, value, err);
}

static bool is_hex(const char *text, size_t digits)
{
	return strlen(text) == digits &&
	       strspn(text, "0123456789abcdefABCDEF") == digits;
}

/* What the client says of the data, which nobody has read. */
static int take_validation(const json_t *v, struct record *r, struct error *err)
{
	const json_t *data = json_object_get(v, "validation_data");
	const char *algo = json_member(data, "os_hash_algo");
	const char *value = json_member(data, "os_hash_value");
	const char *md5 = json_member(data, "checksum");
	bool new = false, queued = r->status == IMAGE_QUEUED;
	int code = take_value(&r->checksum, "checksum", md5, &new, err);

	if (code >= 0)
		code = take_value(&r->hash_algo, "os_hash_algo", algo, &new,
				  err);
	if (code >= 0)
		code = take_value(&r->hash_value, "os_hash_value", value, &new,
				  err);
	if (code < 0 || !new)
		return code;
	if (!queued)
		return error_set(err, -EEXIST, 0,
				 "New value(s) for validation_data may only be "
				 "provided when image status is 'queued'");
	if (strcmp(algo, DIGEST_ALGO) != 0)
		return error_set(err, -EEXIST, 0,
				 "os_hash_algo must be %s, not %.64s",
				 DIGEST_ALGO, algo);
	if (!is_hex(value, 128) || (md5 && !is_hex(md5, 32)))
		return error_set(err, -EEXIST, 0,
				 "os_hash_value and checksum are hexadecimal, "
				 "of 128 and 32 digits");
	return 0;
}

/* The file is what @r says, and of the size that others of it have. */
static int look_at(const struct glance *g, struct record *r, const char *url,
		   struct error *err)
{
	CLEANUP(inspection_done) struct inspection found = { 0 };
	CLEANUP(closep) int fd = -1;
	struct error why = { 0 };
	struct stat st;
	int code = open_url(g->locations, url, false, &fd, &why);

	/* 400 where there is none, as for a URI that is malformed. */
	if (code < 0)
		return error_set(err, code == -ENOENT ? -EINVAL : code, 0, "%s",
				 why.msg);
	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, 0, "%.256s: %s", url,
				 errno_text(errno));
	code = inspect_data(r, fd, &found, err);
	if (code < 0)
		return code;
	if (r->status == IMAGE_ACTIVE && r->size != (uint64_t)st.st_size)
		return error_set(err, -EINVAL, 0,
				 "%.256s has not the size of the image", url);
	r->has_size = true;
	r->size = (uint64_t)st.st_size;
	/* An active image's min_disk is what its owner has made of it. */
	inspection_apply(&found, r,
			 r->status != IMAGE_ACTIVE &&
				 glance_config_sets_min_disk(g->config));
	return 0;
}

/* What is a web server's may be another tomorrow: nobody looks at it here. */
static int take_unseen(struct record *r, const char *url,
		       const struct location_sizes *sizes, struct error *err)
{
	size_t i = 0;

	while (sizes && i < sizes->n && strcmp(sizes->of[i].url, url) != 0)
		i++;
	if (!sizes || i == sizes->n || !sizes->of[i].bytes)
		return error_set(err, -EINVAL, 0, "Invalid location");
	if (!r->has_size) {
		r->has_size = true;
		r->size = sizes->of[i].bytes;
	}
	return admit_unseen(r, err);
}

int location_probe(const struct glance *g, const json_t *value,
		   struct location_sizes *ret, struct error *err)
{
	const json_t *one = json_is_array(value) ? NULL : value;
	size_t i, n = one ? 1 : json_array_size(value);
	struct error why = { 0 };

	for (i = 0; i < n; i++) {
		const char *url = json_member(
			one ? one : json_array_get(value, i), "url");
		uint64_t bytes = 0;

		if (!url || !is_http(url) || ret->n == LOCATIONS_MAX)
			continue;
		if (fetch_size(g->fetch, url, &bytes, &why) < 0)
			return error_set(err, -EINVAL, 0,
					 "Invalid location: %s", why.msg);
		ret->of[ret->n].url = url;
		ret->of[ret->n++].bytes = bytes;
	}
	return 0;
}

int location_look_again(const struct glance *g, struct record *r,
			struct error *err)
{
	CLEANUP(inspection_done) struct inspection found = { 0 };
	CLEANUP(closep) int fd = -1;
	struct error why = { 0 };
	int code = location_open(g, r, &fd, NULL, &why);

	if (code == -ENOENT && record_http(r))
		return admit_unseen(r, err);
	if (code < 0)
		return error_set(err, code == -ENOMEM ? code : -EEXIST, 0,
				 "The data of image %s are not there", r->id);
	code = inspect_data(r, fd, &found, err);
	if (code >= 0)
		inspection_apply(&found, r, false);
	return code;
}

static bool has_url(const struct glance *g, const struct record *r,
		    const char *url)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++) {
		CLEANUP(freep)
		char *shown = location_url(g, r, &r->locations[i]);

		if (shown && !strcmp(shown, url))
			return true;
	}
	return false;
}

static int check_addition(const struct glance *g, const struct record *r,
			  const char *url, struct error *err)
{
	if (r->n_locations >= LOCATIONS_MAX)
		return error_set(err, -EFBIG, 0,
				 "The limit has been exceeded on the number of "
				 "allowed image locations. Attempted: %zu, "
				 "Maximum: %u",
				 r->n_locations + 1, LOCATIONS_MAX);
	if (has_url(g, r, url))
		return error_set(err, -EINVAL, 0,
				 "The location %.256s already exists", url);
	/* Nobody reads all of them here. */
	if (r->status != IMAGE_ACTIVE && signature_is_on(r))
		return error_set(err, -EINVAL, 0,
				 "Signature verification failed for image %s: "
				 "only data that are uploaded or imported are "
				 "verified",
				 r->id);
	if (!r->disk_format || !r->container_format)
		return error_set(err, -EINVAL, 0,
				 "Properties disk_format, container_format "
				 "must be set prior to saving data.");
	return 0;
}

static int add_one(const struct location_change *x, struct record *r, size_t at,
		   const json_t *v, struct error *err)
{
	struct location l = { 0 };
	const char *url = json_member(v, "url");
	int code = check_addition(x->g, r, url, err);

	if (code >= 0)
		code = make_location(x->who, v, &l, err);
	if (code < 0)
		return code;
	code = record_insert_location(r, at, &l, err);
	if (code >= 0)
		code = is_http(url) ? take_unseen(r, url, x->sizes, err)
				    : look_at(x->g, r, url, err);
	return code < 0 ? code : take_validation(v, r, err);
}

static int add(const struct location_change *x, struct record *r,
	       const struct patch_change *c, struct error *err)
{
	size_t at;
	int code = parse_position(c->at, r->n_locations, true, &at, err);

	if (code >= 0)
		code = add_one(x, r, at, c->value, err);
	if (code >= 0)
		r->status = IMAGE_ACTIVE;
	return code;
}

static int drop(struct location_change *x, struct record *r,
		const struct patch_change *c, struct error *err)
{
	size_t at;
	int code;

	if (r->n_locations == 1)
		return error_set(err, -EPERM, 0,
				 "Cannot remove last location in the image.");
	code = parse_position(c->at, r->n_locations, false, &at, err);
	if (code < 0)
		return code;
	if (is_own_url(&r->locations[at]))
		x->unwanted = true;
	record_remove_location(r, at);
	return 0;
}

/* The same locations again, in the order of @list and with its metadata. */
static int reorder(const struct glance *g, struct record *r, const json_t *list,
		   struct error *err)
{
	size_t i, at, n = r->n_locations;

	if (json_array_size(list) != n)
		return error_set(err, -EINVAL, 0,
				 "Original locations is not empty");
	for (i = 0; i < n; i++) {
		CLEANUP(freep) char *url = NULL;
		struct location *l;

		for (at = i; at < n; at++) {
			url = location_url(g, r, &r->locations[at]);
			if (url &&
			    !strcmp(url, json_member(json_array_get(list, i),
						     "url")))
				break;
			free(TAKE_PTR(url));
		}
		if (at == n)
			return error_set(err, -EINVAL, 0,
					 "Original locations is not empty");
		l = &r->locations[at];
		free(l->metadata);
		l->metadata = json_dumps(
			json_object_get(json_array_get(list, i), "metadata"),
			JSON_COMPACT);
		if (!l->metadata)
			return error_set(err, -ENOMEM, 0, "out of memory");
		if (at != i) {
			struct location moved = *l;

			*l = r->locations[i];
			r->locations[i] = moved;
		}
	}
	return 0;
}

static int replace(const struct location_change *x, struct record *r,
		   const struct patch_change *c, struct error *err)
{
	size_t i, n = json_array_size(c->value);
	int code = 0;

	if (!n)
		return error_set(err, -EPERM, 0,
				 "Cannot set locations to empty list.");
	if (r->n_locations) {
		code = reorder(x->g, r, c->value, err);
		for (i = 0; i < n && code >= 0; i++)
			code = take_validation(json_array_get(c->value, i), r,
					       err);
		return code;
	}
	for (i = 0; i < n && code >= 0; i++)
		code = add_one(x, r, i, json_array_get(c->value, i), err);
	if (code >= 0)
		r->status = IMAGE_ACTIVE;
	return code;
}

/* Own data are a location like others, where there is a choice. */
static int say_own(struct record *r, struct error *err)
{
	return r->status == IMAGE_ACTIVE && record_is_in(r, "")
		       ? copies_say(r, "", err)
		       : 0;
}

int location_patch(struct location_change *x, struct record *r,
		   const struct patch_change *c, struct error *err)
{
	int code = check_may(x->g, r, c, err);

	if (code >= 0)
		code = say_own(r, err);
	if (code < 0)
		return code;
	switch (c->op) {
	case PATCH_ADD:
		return add(x, r, c, err);
	case PATCH_REMOVE:
		return drop(x, r, c, err);
	default:
		return replace(x, r, c, err);
	}
}

int location_add(const struct location_change *x, struct record *r,
		 json_t *value, struct error *err)
{
	char at[] = "-", name[] = "locations";
	const struct patch_change c = {
		.op = PATCH_ADD, .name = name, .at = at, .value = value
	};
	struct location_change one = *x;

	return location_patch(&one, r, &c, err);
}

int location_add_file(const struct glance *g, const struct identity *who,
		      struct record *r, const char *url, struct error *err)
{
	const struct location_change x = { .g = g, .who = who };
	CLEANUP(json_decrefp)
	json_t *v = json_pack("{s:s, s:{}}", "url", url, "metadata");

	if (!v)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return who->admin ? location_add(&x, r, v, err)
			  : error_set(err, -EPERM, 0,
				      "You are not authorized to complete "
				      "set_image_location action.");
}
