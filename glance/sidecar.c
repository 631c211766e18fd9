/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/scan.h"
#include "glance/sidecar.h"
#include "glance/http/text-buf.h"
#include "glance/time-text.h"

#define VERSION	       1
#define TEXT_BYTES_MAX (1U << 20) /* of one value */
#define LINKS_MAX      4096U /* properties, tags, locations */
#define MEMBERS_MAX    65536U
#define MD5_DIGITS     32U
#define HASH_DIGITS    128U

static void member_done(struct sidecar_member *m)
{
	free(m->project);
	free(m->status);
}

void sidecar_done(struct sidecar *c)
{
	size_t i;

	record_done(&c->image);
	for (i = 0; i < c->n_members; i++)
		member_done(&c->members[i]);
	free(c->members);
	*c = (struct sidecar){ 0 };
}

bool sidecar_wanted(const struct record *r)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, SCAN_STORE))
			return false;
	return r->status == IMAGE_ACTIVE || r->status == IMAGE_DEACTIVATED;
}

/* ---- writing ---- */

static void add_name(struct text_buf *b, const char *name)
{
	text_addf(b, "%s\n\"%s\": ", b->len > 1 ? "," : "", name);
}

static void add_text(struct text_buf *b, const char *name, const char *value)
{
	add_name(b, name);
	text_add_json(b, value);
}

static void add_i64(struct text_buf *b, const char *name, int64_t value)
{
	add_name(b, name);
	text_addf(b, "%" PRId64, value);
}

static void add_size(struct text_buf *b, const char *name, bool has,
		     uint64_t value)
{
	add_name(b, name);
	if (has)
		text_add_u64(b, value);
	else
		text_add(b, "null");
}

static void add_bool(struct text_buf *b, const char *name, bool value)
{
	add_name(b, name);
	text_add(b, value ? "true" : "false");
}

static void add_links(struct text_buf *b, const struct record *r)
{
	size_t i;

	add_name(b, "properties");
	text_add_char(b, '{');
	for (i = 0; i < r->n_properties; i++) {
		text_add(b, i ? ", " : "");
		text_add_json(b, r->properties[i].name);
		text_add(b, ": ");
		text_add_json(b, r->properties[i].value);
	}
	text_add_char(b, '}');
	add_name(b, "tags");
	text_add_char(b, '[');
	for (i = 0; i < r->n_tags; i++) {
		text_add(b, i ? ", " : "");
		text_add_json(b, r->tags[i]);
	}
	text_add_char(b, ']');
	add_name(b, "locations");
	text_add_char(b, '[');
	for (i = 0; i < r->n_locations; i++) {
		const struct location *l = &r->locations[i];

		text_add(b, i ? ", {\"url\": " : "{\"url\": ");
		text_add_json(b, l->url);
		text_add(b, ", \"store\": ");
		text_add_json(b, l->store);
		text_add(b, ", \"metadata\": ");
		text_add_json(b, l->metadata);
		text_addf(b, ", \"own\": %s}", l->own ? "true" : "false");
	}
	text_add_char(b, ']');
}

static int add_member(void *opaque, const struct member *m)
{
	struct text_buf *b = opaque;

	text_add(b, b->text[b->len - 1] == '[' ? "" : ", ");
	text_add(b, "{\"member\": ");
	text_add_json(b, m->project);
	text_add(b, ", \"status\": ");
	text_add_json(b, m->status);
	text_addf(b,
		  ", \"can_share\": %s, \"created_at\": %" PRId64
		  ", \"updated_at\": %" PRId64 "}",
		  m->can_share ? "true" : "false", m->created_usec,
		  m->updated_usec);
	return 0;
}

int sidecar_text(struct index_tx *tx, const struct record *r, char **ret,
		 struct error *err)
{
	struct text_buf b = { .max = SIDECAR_BYTES_MAX };
	int code;

	text_add_char(&b, '{');
	add_i64(&b, "platter_sidecar", VERSION);
	add_text(&b, "id", r->id);
	add_i64(&b, "changed_at", r->changed_usec);
	add_text(&b, "name", r->name);
	add_text(&b, "status", image_status_name(r->status));
	add_text(&b, "visibility", image_visibility_name(r->visibility));
	add_text(&b, "owner", r->owner);
	add_text(&b, "disk_format", r->disk_format);
	add_text(&b, "container_format", r->container_format);
	add_size(&b, "size", r->has_size, r->size);
	add_size(&b, "virtual_size", r->has_virtual_size, r->virtual_size);
	add_size(&b, "min_disk", true, r->min_disk);
	add_size(&b, "min_ram", true, r->min_ram);
	add_bool(&b, "protected", r->protected_);
	add_bool(&b, "os_hidden", r->hidden);
	add_text(&b, "checksum", r->checksum);
	add_text(&b, "os_hash_algo", r->hash_algo);
	add_text(&b, "os_hash_value", r->hash_value);
	add_i64(&b, "created_at", r->created_usec);
	add_i64(&b, "updated_at", r->updated_usec);
	add_text(&b, "dialect", r->dialect);
	add_links(&b, r);
	add_name(&b, "members");
	text_add_char(&b, '[');
	code = b.failed ? 0 : members_each(tx, r->n, add_member, &b, err);
	text_add(&b, "]\n}\n");
	*ret = text_buf_take(&b);
	if (code < 0 || !*ret) {
		free(*ret);
		return code < 0 ? code
				: error_set(err, -EFBIG, 0,
					    "what is said of image %s has over "
					    "%u bytes",
					    r->id, SIDECAR_BYTES_MAX);
	}
	return 0;
}

/* ---- reading ---- */

static int bad(struct error *err, const char *field, const char *what)
{
	return error_set(err, -EBADMSG, 0, "%s %s", field, what);
}

static int take_text(const json_t *j, const char *name, bool must, char **ret,
		     struct error *err)
{
	const json_t *v = json_object_get(j, name);

	if (!v || json_is_null(v))
		return must ? bad(err, name, "is missing") : 0;
	if (!json_is_string(v) || json_string_length(v) > TEXT_BYTES_MAX)
		return bad(err, name, "is no text of at most 1 MiB");
	return record_set(ret, json_string_value(v), err);
}

static int take_i64(const json_t *j, const char *name, int64_t *ret,
		    struct error *err)
{
	const json_t *v = json_object_get(j, name);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return bad(err, name, "is no number that is not negative");
	*ret = json_integer_value(v);
	return 0;
}

static int take_u64(const json_t *j, const char *name, uint64_t *ret,
		    struct error *err)
{
	int64_t v = 0;
	int r = take_i64(j, name, &v, err);

	*ret = (uint64_t)v;
	return r;
}

static int take_size(const json_t *j, const char *name, bool *has,
		     uint64_t *ret, struct error *err)
{
	const json_t *v = json_object_get(j, name);

	*has = v && !json_is_null(v);
	return *has ? take_u64(j, name, ret, err) : 0;
}

static int take_bool(const json_t *j, const char *name, bool *ret,
		     struct error *err)
{
	const json_t *v = json_object_get(j, name);

	if (!json_is_boolean(v))
		return bad(err, name, "is neither true nor false");
	*ret = json_is_true(v);
	return 0;
}

static int take_digest(const json_t *j, const char *name, size_t digits,
		       char **ret, struct error *err)
{
	int r = take_text(j, name, false, ret, err);

	if (r >= 0 && *ret &&
	    (strlen(*ret) != digits ||
	     strspn(*ret, "0123456789abcdef") != digits))
		return bad(err, name, "is no digest");
	return r;
}

static int take_enums(const json_t *j, struct record *r, struct error *err)
{
	const char *status = json_member(j, "status");
	const char *visibility = json_member(j, "visibility");

	if (!status || !image_status_by_name(status, &r->status) ||
	    (r->status != IMAGE_ACTIVE && r->status != IMAGE_DEACTIVATED))
		return bad(err, "status", "is neither active nor deactivated");
	if (!visibility ||
	    !image_visibility_by_name(visibility, &r->visibility))
		return bad(err, "visibility", "is none");
	return 0;
}

static int take_properties(const json_t *j, struct record *r, struct error *err)
{
	json_t *all = json_object_get(j, "properties"), *v;
	const char *name;
	int code = 0;

	if (!json_is_object(all) || json_object_size(all) > LINKS_MAX)
		return bad(err, "properties", "is no object of at most 4096");
	json_object_foreach(all, name, v) {
		if (!json_is_string(v) ||
		    json_string_length(v) > TEXT_BYTES_MAX)
			return bad(err, "properties",
				   "has one that is no text");
		code = record_set_property(r, name, json_string_value(v), err);
		if (code < 0)
			break;
	}
	return code;
}

static int take_tags(const json_t *j, struct record *r, struct error *err)
{
	const json_t *all = json_object_get(j, "tags"), *v;
	int code = 0;
	size_t i;

	if (!json_is_array(all) || json_array_size(all) > LINKS_MAX)
		return bad(err, "tags", "is no list of at most 4096");
	json_array_foreach(all, i, v) {
		if (!json_is_string(v))
			return bad(err, "tags", "has one that is no text");
		code = record_add_tag(r, json_string_value(v), err);
		if (code < 0)
			break;
	}
	return code;
}

static bool is_json_object(const char *text)
{
	json_t *j = NULL;
	bool ok = json_in_parse(text, strlen(text), &j, NULL) >= 0 &&
		  json_is_object(j);

	json_decref(j);
	return ok;
}

static bool is_location(const struct location *l)
{
	return !strcmp(l->store, LOCATION_FILE) ||
	       !strcmp(l->store, LOCATION_PITHOS) ||
	       !strcmp(l->store, LOCATION_HTTP) ||
	       (!strcmp(l->store, LOCATION_OWN) &&
		!strncmp(l->url, OWN_URL, strlen(OWN_URL)));
}

static int take_location(const json_t *v, struct record *r, struct error *err)
{
	struct location l = { 0 };
	int code = take_text(v, "url", true, &l.url, err);

	if (code >= 0)
		code = take_text(v, "store", true, &l.store, err);
	if (code >= 0)
		code = take_text(v, "metadata", true, &l.metadata, err);
	if (code >= 0)
		code = take_bool(v, "own", &l.own, err);
	if (code >= 0 && !is_json_object(l.metadata))
		code = bad(err, "metadata", "of a location is no JSON object");
	/* What was found in place has none. */
	if (code >= 0 && !is_location(&l))
		code = bad(err, "store", "of a location is none");
	if (code >= 0)
		return record_insert_location(r, r->n_locations, &l, err);
	free(l.url);
	free(l.store);
	free(l.metadata);
	return code;
}

static int take_locations(const json_t *j, struct record *r, struct error *err)
{
	const json_t *all = json_object_get(j, "locations"), *v;
	int code = 0;
	size_t i;

	if (!json_is_array(all) || json_array_size(all) > LINKS_MAX)
		return bad(err, "locations", "is no list of at most 4096");
	json_array_foreach(all, i, v) {
		code = take_location(v, r, err);
		if (code < 0)
			break;
	}
	return code;
}

static int take_member(const json_t *v, struct sidecar_member *m,
		       struct error *err)
{
	int r = take_text(v, "member", true, &m->project, err);

	if (r >= 0)
		r = take_text(v, "status", true, &m->status, err);
	if (r >= 0 && !member_status_ok(m->status))
		r = bad(err, "status", "of a member is none");
	if (r >= 0)
		r = take_bool(v, "can_share", &m->can_share, err);
	if (r >= 0)
		r = take_i64(v, "created_at", &m->created_usec, err);
	return r < 0 ? r : take_i64(v, "updated_at", &m->updated_usec, err);
}

static int take_members(const json_t *j, struct sidecar *c, struct error *err)
{
	const json_t *all = json_object_get(j, "members");
	size_t i, n = json_array_size(all);
	int r = 0;

	if (!json_is_array(all) || n > MEMBERS_MAX)
		return bad(err, "members", "is no list of at most 65536");
	c->members = calloc(n ? n : 1, sizeof(*c->members));
	if (!c->members)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->n_members = n;
	for (i = 0; i < n && r >= 0; i++)
		r = take_member(json_array_get(all, i), &c->members[i], err);
	return r;
}

static int take_fields(const json_t *j, struct record *r, struct error *err)
{
	const struct {
		const char *name;
		char **field;
	} texts[] = {
		{ "name", &r->name },
		{ "owner", &r->owner },
		{ "disk_format", &r->disk_format },
		{ "container_format", &r->container_format },
		{ "os_hash_algo", &r->hash_algo },
		{ "dialect", &r->dialect },
	};
	size_t i;
	int code = 0;

	for (i = 0; i < ARRAY_SIZE(texts) && code >= 0; i++)
		code = take_text(j, texts[i].name, false, texts[i].field, err);
	if (code >= 0)
		code = take_digest(j, "checksum", MD5_DIGITS, &r->checksum,
				   err);
	if (code >= 0)
		code = take_digest(j, "os_hash_value", HASH_DIGITS,
				   &r->hash_value, err);
	if (code >= 0)
		code = take_size(j, "size", &r->has_size, &r->size, err);
	if (code >= 0)
		code = take_size(j, "virtual_size", &r->has_virtual_size,
				 &r->virtual_size, err);
	if (code >= 0)
		code = take_u64(j, "min_disk", &r->min_disk, err);
	if (code >= 0)
		code = take_u64(j, "min_ram", &r->min_ram, err);
	if (code >= 0)
		code = take_bool(j, "protected", &r->protected_, err);
	if (code >= 0)
		code = take_bool(j, "os_hidden", &r->hidden, err);
	if (code >= 0)
		code = take_i64(j, "created_at", &r->created_usec, err);
	if (code >= 0)
		code = take_i64(j, "updated_at", &r->updated_usec, err);
	if (code >= 0)
		code = take_i64(j, "changed_at", &r->changed_usec, err);
	return code;
}

static int take_all(const json_t *j, const char *id, struct sidecar *c,
		    struct error *err)
{
	struct record *r = &c->image;
	const json_t *version = json_object_get(j, "platter_sidecar");
	int code;

	if (!json_is_integer(version))
		return bad(err, "platter_sidecar", "is missing");
	if (json_integer_value(version) != VERSION)
		return error_set(err, -ENOTSUP, 0,
				 "platter_sidecar is %" JSON_INTEGER_FORMAT
				 ", this program knows %d",
				 json_integer_value(version), VERSION);
	code = take_text(j, "id", true, &r->id, err);
	if (code >= 0 && strcmp(r->id, id) != 0)
		code = bad(err, "id", "is another than the file's");
	if (code >= 0)
		code = take_enums(j, r, err);
	if (code >= 0)
		code = take_fields(j, r, err);
	if (code >= 0)
		code = take_properties(j, r, err);
	if (code >= 0)
		code = take_tags(j, r, err);
	if (code >= 0)
		code = take_locations(j, r, err);
	return code < 0 ? code : take_members(j, c, err);
}

int sidecar_parse(const char *text, size_t len, const char *id,
		  struct sidecar *ret, struct error *err)
{
	CLEANUP(json_in_freep) json_t *j = NULL;
	struct sidecar c = { 0 };
	int r;

	if (json_in_parse(text, len, &j, NULL) < 0 || !json_is_object(j))
		return error_set(err, -EBADMSG, 0, "is no JSON object");
	r = take_all(j, id, &c, err);
	if (r < 0) {
		sidecar_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

static int read_all(int fd, char **ret, size_t *ret_len, struct error *err)
{
	CLEANUP(freep) char *text = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, 0, "%s", errno_text(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > SIDECAR_BYTES_MAX)
		return error_set(err, -EBADMSG, 0,
				 "is no regular file of at most %u bytes",
				 SIDECAR_BYTES_MAX);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (len < (size_t)st.st_size) {
		n = pread(fd, text + len, (size_t)st.st_size - len, (off_t)len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, 0, "%s",
					 errno_text(errno));
		if (!n)
			break;
		len += (size_t)n;
	}
	*ret = TAKE_PTR(text);
	*ret_len = len;
	return 0;
}

int sidecar_read(struct store *s, const char *id, enum store_file file,
		 struct sidecar *ret, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	CLEANUP(freep) char *text = NULL;
	struct error why = { 0 };
	size_t len = 0;
	int r = store_file_open(s, id, file, O_RDONLY | O_NONBLOCK, &fd, err);

	if (r < 0)
		return r;
	r = read_all(fd, &text, &len, &why);
	if (r >= 0)
		r = sidecar_parse(text, len, id, ret, &why);
	return r < 0 ? error_set(err, r, 0, "the sidecar of %s: %s", id,
				 why.msg)
		     : 0;
}

/* ---- into the index ---- */

static int add_members(struct index_tx *tx, const struct sidecar *c,
		       struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < c->n_members && r >= 0; i++) {
		const struct sidecar_member *m = &c->members[i];
		const struct member copy = { m->project, m->status,
					     m->can_share, m->created_usec,
					     m->updated_usec };

		r = member_insert_as_is(tx, c->image.n, &copy, err);
	}
	return r;
}

int sidecar_apply(struct index_tx *tx, struct sidecar *c, bool trusted,
		  struct error *err)
{
	CLEANUP(record_done) struct record old = { 0 };
	int r = record_load(tx, c->image.id, &old, NULL);

	if (r < 0 && r != -ENOENT)
		return error_set(err, r, 0, "image %s cannot be read",
				 c->image.id);
	if (!trusted) {
		c->image.visibility = IMAGE_PRIVATE;
		c->image.changed_usec = time_now_usec();
	}
	c->image.n = old.n;
	r = r < 0 ? record_insert_as_is(tx, &c->image, err)
		  : record_update_as_is(tx, &c->image, err);
	if (r >= 0)
		r = members_forget(tx, c->image.n, err);
	return r < 0 || !trusted ? r : add_members(tx, c, err);
}
