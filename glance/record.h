/* SPDX-License-Identifier: BSD-3-Clause */
/* An image as the index has it, in memory; record-rows.h brings it there. */
#ifndef GLANCE_RECORD_H
#define GLANCE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "glance/findings.h"

/* As the API spells them: image_status_name(). */
enum image_status {
	IMAGE_QUEUED, /* no data yet */
	IMAGE_SAVING, /* data are coming */
	IMAGE_UPLOADING, /* data are coming to the staging area */
	IMAGE_IMPORTING,
	IMAGE_ACTIVE,
	IMAGE_DEACTIVATED,
	IMAGE_KILLED,
	IMAGE_PENDING_DELETE,
	IMAGE_STATUSES, /* how many */
};

enum image_visibility {
	IMAGE_PUBLIC,
	IMAGE_COMMUNITY,
	IMAGE_SHARED,
	IMAGE_PRIVATE,
	IMAGE_VISIBILITIES,
};

const char *image_status_name(enum image_status s);
const char *image_visibility_name(enum image_visibility v);
/* False: there is none of that name. */
bool image_status_by_name(const char *name, enum image_status *ret);
bool image_visibility_by_name(const char *name, enum image_visibility *ret);

/* May an image go from @from to @to? */
bool image_status_may_become(enum image_status from, enum image_status to);

struct property {
	char *name;
	char *value;
};

/*
 * What reads a location: LOCATION_OWN is a folder of ours that has the data, its
 * url OWN_URL for the first of them, OWN_URL "NAME" for another; where no row of
 * LOCATION_OWN, _FILE, _HTTP or _FOUND is, the first has them. _PITHOS says
 * where they were copied from.
 */
#define LOCATION_OWN	"own"
#define LOCATION_FILE	"file"
#define LOCATION_HTTP	"http"
#define LOCATION_FOUND	"found"
#define LOCATION_PITHOS "pithos"
#define OWN_URL		"own:"

struct location {
	char *url;
	char *store; /* one of those above */
	char *metadata; /* JSON object */
	bool own; /* the store wrote the data, and deletes them */
};

/* Strings are owned; NULL: null. */
struct record {
	int64_t n; /* the index's number; 0: not in the index yet */
	char *id;
	char *name;
	enum image_status status;
	enum image_visibility visibility;
	char *owner;
	char *disk_format;
	char *container_format;
	bool has_size;
	bool has_virtual_size;
	uint64_t size; /* bytes */
	uint64_t virtual_size; /* bytes */
	uint64_t min_disk; /* GiB */
	uint64_t min_ram; /* MiB */
	bool protected_;
	bool hidden;
	char *checksum; /* MD5, hexadecimal */
	char *hash_algo;
	char *hash_value;
	int64_t created_usec; /* since 1970, UTC */
	int64_t updated_usec;
	int64_t changed_usec; /* that, or of its members; never goes back */
	char *dialect; /* which of the APIs made it */
	struct property *properties; /* by name */
	size_t n_properties;
	char **tags; /* in order */
	size_t n_tags;
	struct location *locations;
	size_t n_locations;
	struct findings *findings; /* to be written; NULL: as they are */
	char *seen_as; /* admit_label() of what the data were looked at as, for
			  the change that is under way; NULL: they were not */
};

void record_done(struct record *r);
void location_done(struct location *l);

/* Sets a field that is owned, to a copy. NULL is fine. */
int record_set(char **field, const char *value, struct error *err);

/* NULL: there is none. */
const char *record_property(const struct record *r, const char *name);
int record_set_property(struct record *r, const char *name, const char *value,
			struct error *err);
/* False: there was none. */
bool record_remove_property(struct record *r, const char *name);
/* Adds one behind the others, which is not among them; for who reads them in order. */
int record_append_property(struct record *r, const char *name,
			   const char *value, struct error *err);
int record_append_tag(struct record *r, const char *tag, struct error *err);
bool record_has_tag(const struct record *r, const char *tag);
int record_add_tag(struct record *r, const char *tag, struct error *err);
bool record_remove_tag(struct record *r, const char *tag);
/* Takes over what @l points to, also on failure. @at <= n_locations. */
int record_insert_location(struct record *r, size_t at, struct location *l,
			   struct error *err);
void record_remove_location(struct record *r, size_t at);
/*
 * Has store @name of ours the data of @r, which it has? "": the first. And
 * does any row say so?
 */
bool record_is_in(const struct record *r, const char *name);
/* Says @l that they are there? */
bool location_is_of(const struct location *l, const char *name);
/* Where at a web server the data of @r may be had; NULL: nowhere. */
const char *record_http(const struct record *r);
bool record_has_location(const struct record *r, const char *store);

/* 8-4-4-4-12 hexadecimal digits; any other text is no id, and no path. */
bool record_id_ok(const char *id);
/* A random one, after openssl_load(); @ret has room for 37 bytes. */
void record_new_id(char *ret);

#endif
