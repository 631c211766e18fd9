/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where data of images lie: in the store; or files beneath folders that the
 * operator names, registered in place by a location "file:///PATH", which an
 * administrator may; or at a web server, by "http[s]://...", from where they are
 * handed on to who asks for them. The last two are never written or removed.
 */
#ifndef GLANCE_LOCATIONS_H
#define GLANCE_LOCATIONS_H

#include "glance/glance.h"
#include "glance/json-patch.h"
#include "glance/record.h"

#define LOCATION_DIRS_MAX 16
#define LOCATIONS_MAX	  10U /* of one image, Glance's image_location_quota */

struct location_rules;

/*
 * @store: the folder, where scanned files may lie. @show: "true", "false",
 * NULL: may locations be seen and set? @dirs: folders by colons; NULL: none. -EINVAL: the parameter and what is wrong.
 */
int location_rules_new(const char *store, const char *show, const char *dirs,
		       struct location_rules **ret, struct error *err);
void location_rules_free(struct location_rules *r); /* NULL is fine */
bool location_rules_show(const struct location_rules *r);

/*
 * Opens the file that has the data of @r, to be read; *ret is the caller's to
 * close. Nobody can put another one in its place between a check and its use:
 * whoever wants it again opens it again. *ret_path, to be freed, says where it
 * lies, to people and in overlays; @ret_path may be NULL. -ENOENT: it is not
 * there, or not beneath the folders any more.
 */
int location_open(const struct glance *g, const struct record *r, int *ret,
		  char **ret_path, struct error *err);

/*
 * Looks at the data of @r, which is about to be active again. -EEXIST: they
 * are not there; -EINVAL: they are not what it says.
 */
int location_look_again(const struct glance *g, struct record *r,
			struct error *err);

/*
 * The location that the older dialects show; NULL: none. Where scanned files
 * of this machine lie is nobody's business.
 */
const char *location_shown(const struct record *r);

/*
 * What is shown as the URL of @l; NULL: of the data that the store has of @r.
 * To be freed; NULL: no memory.
 */
char *location_url(const struct glance *g, const struct record *r,
		   const struct location *l);

/* What web servers have said of the size of their data. */
struct location_sizes {
	struct {
		const char *url; /* of the JSON */
		uint64_t bytes;
	} of[LOCATIONS_MAX];
	size_t n;
};

/*
 * Asks for those of the locations in @value, one or a list as PATCH has them;
 * others are left out. Waits for other servers: nothing is to be held.
 */
int location_probe(const struct glance *g, const json_t *value,
		   struct location_sizes *ret, struct error *err);

/* A change of locations, on behalf of @who, who may change the image. */
struct location_change {
	const struct glance *g;
	const struct identity *who;
	const struct location_sizes *sizes; /* NULL: none were asked for */
	bool unwanted; /* out: the store has data that no location names */
};

/* A PATCH of "locations". Errors are as for image_set_field(). */
int location_patch(struct location_change *x, struct record *r,
		   const struct patch_change *c, struct error *err);
/* One more location, behind those there are: an object, as PATCH has it. */
int location_add(const struct location_change *x, struct record *r,
		 json_t *value, struct error *err);
/* The same of a file, by an administrator. */
int location_add_file(const struct glance *g, const struct identity *who,
		      struct record *r, const char *url, struct error *err);

#endif
