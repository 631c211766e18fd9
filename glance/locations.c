/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/reference.h"
#include "glance/digest.h"
#include "glance/http/json-in.h"
#include "glance/inspect.h"
#include "glance/http/json-body.h"
#include "glance/locations.h"
#include "glance/scan.h"
#include "glance/http/uri.h"

#define FILE_STORE  "file"
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

static const struct location *location_of(const struct record *r,
					  const char *store)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, store))
			return &r->locations[i];
	return NULL;
}

static const struct location *file_location(const struct record *r)
{
	return location_of(r, FILE_STORE);
}

int location_open(const struct glance *g, const struct record *r, int *ret,
		  char **ret_path, struct error *err)
{
	const struct location *l = file_location(r);
	const struct location *found = location_of(r, SCAN_STORE);
	CLEANUP(closep) int fd = -1;
	int code = l	   ? open_url(g->locations, l->url, false, &fd, err)
		   : found ? open_url(g->locations, found->url, true, &fd, err)
			   : store_data_open(g->store, r->id, &fd, err);

	if (code >= 0 && ret_path) {
		*ret_path = l || found ? path_of_fd(fd)
				       : store_image_path(g->store, r->id);
		if (!*ret_path)
			code = error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (code >= 0)
		*ret = TAKE_FD(fd);
	return code;
}

const char *location_shown(const struct record *r)
{
	const struct location *l = r->n_locations ? &r->locations[0] : NULL;

	return l && strcmp(l->store, SCAN_STORE) != 0 ? l->url : NULL;
}

/* ---- changes ---- */

static const char *verb(const struct patch_change *c)
{
	return c->op == PATCH_ADD      ? "add"
	       : c->op == PATCH_REMOVE ? "remove"
				       : "replace";
}

static int check_may(const struct glance *g, const struct identity *who,
		     const struct record *r, const struct patch_change *c,
		     struct error *err)
{
	if (!g->locations->show)
		return error_set(err, -EPERM, 0,
				 "It's not allowed to %s locations if "
				 "locations are invisible.",
				 c->op == PATCH_REPLACE ? "update" : verb(c));
	if (!who->admin)
		return error_set(err, -EPERM, 0,
				 "You are not authorized to complete "
				 "%s_image_location action.",
				 c->op == PATCH_REMOVE ? "delete" : "set");
	if (r->status != IMAGE_ACTIVE &&
	    (r->status != IMAGE_QUEUED || c->op == PATCH_REMOVE))
		return error_set(err, -EEXIST, 0,
				 "It's not allowed to %s locations if image "
				 "status is %s.",
				 verb(c), image_status_name(r->status));
	if (r->status == IMAGE_ACTIVE && !file_location(r))
		return error_set(err, -EEXIST, 0,
				 "The data of image %s are the store's own: it "
				 "has no other locations",
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

static int make_location(const json_t *v, struct location *ret,
			 struct error *err)
{
	const char *url = json_member(v, "url");

	if (strncmp(url, FILE_SCHEME "/", strlen(FILE_SCHEME "/")) != 0)
		return error_set(err, -EINVAL, 0,
				 "Invalid location: %.256s is not file:///PATH",
				 url);
	ret->url = strdup(url);
	ret->store = strdup(FILE_STORE);
	ret->metadata =
		json_dumps(json_object_get(v, "metadata"), JSON_COMPACT);
	return 0;
}

/* What the client says of the data, which nobody has read. */
static int take_validation(const json_t *v, struct record *r, struct error *err)
{
	const json_t *data = json_object_get(v, "validation_data");
	const char *algo = json_member(data, "os_hash_algo");
	const char *value = json_member(data, "os_hash_value");
	const char *md5 = json_member(data, "checksum");
	int code;

	if (!data)
		return 0;
	if (r->status != IMAGE_QUEUED)
		return error_set(err, -EEXIST, 0,
				 "Validation data may only be set while the "
				 "image is queued");
	if (!algo || strcmp(algo, DIGEST_ALGO) != 0)
		return error_set(err, -EINVAL, 0, "os_hash_algo must be %s",
				 DIGEST_ALGO);
	if (strlen(value) != 128 || strspn(value, "0123456789abcdef") != 128 ||
	    (md5 && strspn(md5, "0123456789abcdef") != 32))
		return error_set(err, -EINVAL, 0,
				 "os_hash_value and checksum are hexadecimal, "
				 "of 128 and 32 digits");
	code = record_set(&r->hash_algo, algo, err);
	if (code >= 0)
		code = record_set(&r->hash_value, value, err);
	return code < 0 || !md5 ? code : record_set(&r->checksum, md5, err);
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

int location_look_again(const struct glance *g, struct record *r,
			struct error *err)
{
	CLEANUP(inspection_done) struct inspection found = { 0 };
	CLEANUP(closep) int fd = -1;
	struct error why = { 0 };
	int code = location_open(g, r, &fd, NULL, &why);

	if (code < 0)
		return error_set(err, code == -ENOMEM ? code : -EEXIST, 0,
				 "The data of image %s are not there", r->id);
	code = inspect_data(r, fd, &found, err);
	if (code >= 0)
		inspection_apply(&found, r, false);
	return code;
}

static int add_one(const struct glance *g, struct record *r, size_t at,
		   const json_t *v, struct error *err)
{
	struct location l = { 0 };
	const char *url = json_member(v, "url");
	size_t i;
	int code;

	if (r->n_locations >= LOCATIONS_MAX)
		return error_set(err, -EFBIG, 0,
				 "The limit has been exceeded on the number of "
				 "allowed image locations. Attempted: %zu, "
				 "Maximum: %u",
				 r->n_locations + 1, LOCATIONS_MAX);
	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].url, url))
			return error_set(err, -EINVAL, 0,
					 "The location %.256s already exists",
					 url);
	if (!r->disk_format || !r->container_format)
		return error_set(err, -EINVAL, 0,
				 "Properties disk_format, container_format "
				 "must be set prior to saving data.");
	code = make_location(v, &l, err);
	if (code >= 0)
		code = record_insert_location(r, at, &l, err);
	if (code >= 0)
		code = look_at(g, r, url, err);
	if (code >= 0)
		code = take_validation(v, r, err);
	return code;
}

static int add(const struct glance *g, struct record *r,
	       const struct patch_change *c, struct error *err)
{
	size_t at;
	int code = parse_position(c->at, r->n_locations, true, &at, err);

	if (code >= 0)
		code = add_one(g, r, at, c->value, err);
	if (code >= 0)
		r->status = IMAGE_ACTIVE;
	return code;
}

static int drop(struct record *r, const struct patch_change *c,
		struct error *err)
{
	size_t at;
	int code;

	if (r->n_locations == 1)
		return error_set(err, -EPERM, 0,
				 "Cannot remove last location in the image.");
	code = parse_position(c->at, r->n_locations, false, &at, err);
	if (code >= 0)
		record_remove_location(r, at);
	return code;
}

static int replace(const struct glance *g, struct record *r,
		   const struct patch_change *c, struct error *err)
{
	size_t i, n = json_array_size(c->value);
	int code = 0;

	if (!n && r->status == IMAGE_ACTIVE)
		return error_set(err, -EPERM, 0,
				 "Cannot remove last location in the image.");
	while (r->n_locations)
		record_remove_location(r, 0);
	for (i = 0; i < n && code >= 0; i++)
		code = add_one(g, r, i, json_array_get(c->value, i), err);
	if (code >= 0 && n)
		r->status = IMAGE_ACTIVE;
	return code;
}

int location_patch(const struct glance *g, const struct identity *who,
		   struct record *r, const struct patch_change *c,
		   struct error *err)
{
	int code = check_may(g, who, r, c, err);

	if (code < 0)
		return code;
	switch (c->op) {
	case PATCH_ADD:
		return add(g, r, c, err);
	case PATCH_REMOVE:
		return drop(r, c, err);
	default:
		return replace(g, r, c, err);
	}
}

int location_add(const struct glance *g, const struct identity *who,
		 struct record *r, json_t *value, struct error *err)
{
	char at[] = "-", name[] = "locations";
	const struct patch_change c = {
		.op = PATCH_ADD, .name = name, .at = at, .value = value
	};

	return location_patch(g, who, r, &c, err);
}

int location_add_file(const struct glance *g, const struct identity *who,
		      struct record *r, const char *url, struct error *err)
{
	CLEANUP(json_decrefp)
	json_t *v = json_pack("{s:s, s:{}}", "url", url, "metadata");

	return v ? location_add(g, who, r, v, err)
		 : error_set(err, -ENOMEM, 0, "out of memory");
}
