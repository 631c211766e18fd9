/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "glance/record.h"

static const char *const status_names[IMAGE_STATUSES] = {
	[IMAGE_QUEUED] = "queued",
	[IMAGE_SAVING] = "saving",
	[IMAGE_UPLOADING] = "uploading",
	[IMAGE_IMPORTING] = "importing",
	[IMAGE_ACTIVE] = "active",
	[IMAGE_DEACTIVATED] = "deactivated",
	[IMAGE_KILLED] = "killed",
	[IMAGE_PENDING_DELETE] = "pending_delete",
};

static const char *const visibility_names[IMAGE_VISIBILITIES] = {
	[IMAGE_PUBLIC] = "public",
	[IMAGE_COMMUNITY] = "community",
	[IMAGE_SHARED] = "shared",
	[IMAGE_PRIVATE] = "private",
};

const char *image_status_name(enum image_status s)
{
	return status_names[s];
}

const char *image_visibility_name(enum image_visibility v)
{
	return visibility_names[v];
}

bool image_status_by_name(const char *name, enum image_status *ret)
{
	size_t i;

	for (i = 0; i < IMAGE_STATUSES; i++) {
		if (!strcmp(status_names[i], name)) {
			*ret = (enum image_status)i;
			return true;
		}
	}
	return false;
}

bool image_visibility_by_name(const char *name, enum image_visibility *ret)
{
	size_t i;

	for (i = 0; i < IMAGE_VISIBILITIES; i++) {
		if (!strcmp(visibility_names[i], name)) {
			*ret = (enum image_visibility)i;
			return true;
		}
	}
	return false;
}

#define TO(status) (1U << (IMAGE_##status))

bool image_status_may_become(enum image_status from, enum image_status to)
{
	static const unsigned int next[IMAGE_STATUSES] = {
		[IMAGE_QUEUED] =
			TO(SAVING) | TO(UPLOADING) | TO(IMPORTING) | TO(ACTIVE),
		[IMAGE_SAVING] = TO(ACTIVE) | TO(KILLED) | TO(QUEUED),
		[IMAGE_UPLOADING] = TO(IMPORTING) | TO(QUEUED),
		[IMAGE_IMPORTING] = TO(ACTIVE) | TO(QUEUED),
		[IMAGE_ACTIVE] = TO(PENDING_DELETE) | TO(DEACTIVATED),
		[IMAGE_PENDING_DELETE] = TO(ACTIVE),
		[IMAGE_DEACTIVATED] = TO(ACTIVE),
	};

	return next[from] & 1U << to;
}

/* ---- memory ---- */

static void property_done(struct property *p)
{
	free(p->name);
	free(p->value);
}

void location_done(struct location *l)
{
	free(l->url);
	free(l->store);
	free(l->metadata);
	*l = (struct location){ 0 };
}

void record_done(struct record *r)
{
	size_t i;

	free(r->id);
	free(r->name);
	free(r->owner);
	free(r->disk_format);
	free(r->container_format);
	free(r->checksum);
	free(r->hash_algo);
	free(r->hash_value);
	free(r->dialect);
	for (i = 0; i < r->n_properties; i++)
		property_done(&r->properties[i]);
	free(r->properties);
	for (i = 0; i < r->n_tags; i++)
		free(r->tags[i]);
	free(r->tags);
	for (i = 0; i < r->n_locations; i++)
		location_done(&r->locations[i]);
	free(r->locations);
	findings_free(r->findings);
	free(r->seen_as);
	*r = (struct record){ 0 };
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, 0, "out of memory");
}

int record_set(char **field, const char *value, struct error *err)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return no_memory(err);
	free(*field);
	*field = copy;
	return 0;
}

/* Room for one more element of @bytes; grows by powers of two. */
static int grow(void *array, size_t n, size_t bytes, struct error *err)
{
	void **p = array, *more;

	if (n & (n - 1) || (n && n < 4))
		return 0; /* there is room */
	more = reallocarray(*p, n ? 2 * n : 4, bytes);
	if (!more)
		return no_memory(err);
	*p = more;
	return 0;
}

const char *record_property(const struct record *r, const char *name)
{
	size_t i;

	for (i = 0; i < r->n_properties; i++)
		if (!strcmp(r->properties[i].name, name))
			return r->properties[i].value;
	return NULL;
}

int record_append_property(struct record *r, const char *name,
			   const char *value, struct error *err)
{
	struct property p = { .name = strdup(name), .value = strdup(value) };
	int r2 = p.name && p.value
			 ? grow(&r->properties, r->n_properties, sizeof(p), err)
			 : no_memory(err);

	if (r2 < 0)
		property_done(&p);
	else
		r->properties[r->n_properties++] = p;
	return r2;
}

int record_set_property(struct record *r, const char *name, const char *value,
			struct error *err)
{
	size_t i;

	for (i = 0; i < r->n_properties; i++)
		if (!strcmp(r->properties[i].name, name))
			return record_set(&r->properties[i].value, value, err);
	return record_append_property(r, name, value, err);
}

bool record_remove_property(struct record *r, const char *name)
{
	size_t i;

	for (i = 0; i < r->n_properties; i++)
		if (!strcmp(r->properties[i].name, name))
			break;
	if (i == r->n_properties)
		return false;
	property_done(&r->properties[i]);
	r->n_properties--;
	memmove(&r->properties[i], &r->properties[i + 1],
		(r->n_properties - i) * sizeof(*r->properties));
	return true;
}

static size_t find_tag(const struct record *r, const char *tag)
{
	size_t i;

	for (i = 0; i < r->n_tags && strcmp(r->tags[i], tag); i++)
		;
	return i;
}

bool record_has_tag(const struct record *r, const char *tag)
{
	return find_tag(r, tag) < r->n_tags;
}

int record_append_tag(struct record *r, const char *tag, struct error *err)
{
	char *copy = strdup(tag);
	int r2 = copy ? grow(&r->tags, r->n_tags, sizeof(copy), err)
		      : no_memory(err);

	if (r2 < 0)
		free(copy);
	else
		r->tags[r->n_tags++] = copy;
	return r2;
}

int record_add_tag(struct record *r, const char *tag, struct error *err)
{
	return record_has_tag(r, tag) ? 0 : record_append_tag(r, tag, err);
}

bool record_remove_tag(struct record *r, const char *tag)
{
	size_t i = find_tag(r, tag);

	if (i == r->n_tags)
		return false;
	free(r->tags[i]);
	r->n_tags--;
	memmove(&r->tags[i], &r->tags[i + 1],
		(r->n_tags - i) * sizeof(*r->tags));
	return true;
}

int record_insert_location(struct record *r, size_t at, struct location *l,
			   struct error *err)
{
	int r2 = l->url && l->store && l->metadata
			 ? grow(&r->locations, r->n_locations, sizeof(*l), err)
			 : no_memory(err);

	if (r2 < 0) {
		location_done(l);
		return r2;
	}
	memmove(&r->locations[at + 1], &r->locations[at],
		(r->n_locations - at) * sizeof(*l));
	r->locations[at] = *l;
	r->n_locations++;
	*l = (struct location){ 0 };
	return 0;
}

void record_remove_location(struct record *r, size_t at)
{
	location_done(&r->locations[at]);
	r->n_locations--;
	memmove(&r->locations[at], &r->locations[at + 1],
		(r->n_locations - at) * sizeof(*r->locations));
}

bool record_has_location(const struct record *r, const char *store)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, store))
			return true;
	return false;
}

bool location_is_of(const struct location *l, const char *name)
{
	size_t len = strlen(OWN_URL);

	return !strcmp(l->store, LOCATION_OWN) &&
	       !strncmp(l->url, OWN_URL, len) && !strcmp(l->url + len, name);
}

bool record_is_in(const struct record *r, const char *name)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (location_is_of(&r->locations[i], name))
			return true;
	return !*name && !record_has_location(r, LOCATION_OWN) &&
	       !record_has_location(r, LOCATION_FILE) &&
	       !record_has_location(r, LOCATION_HTTP) &&
	       !record_has_location(r, LOCATION_FOUND);
}

/* ---- ids ---- */

bool record_id_ok(const char *id)
{
	size_t i;

	for (i = 0; i < 36; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (id[i] != '-')
				return false;
		} else if (!isxdigit((unsigned char)id[i])) {
			return false;
		}
	}
	return !id[36];
}

void record_new_id(char *ret)
{
	uint8_t b[16];

	if (openssl.RAND_bytes(b, sizeof(b)) != 1)
		abort(); /* ids that can be guessed are worse */
	snprintf(ret, 37,
		 "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 0xfU, b[7],
		 (b[8] & 0x3fU) | 0x80U, b[9], b[10], b[11], b[12], b[13],
		 b[14], b[15]);
}

const char *record_http(const struct record *r)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, LOCATION_HTTP))
			return r->locations[i].url;
	return NULL;
}
