/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where data of images lie that are not the store's own: files beneath folders
 * that the operator names, registered in place by a location
 * "file:///PATH". They are read there and never written or removed.
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

/* A PATCH of "locations", by @who. Errors are as for image_set_field(). */
int location_patch(const struct glance *g, const struct identity *who,
		   struct record *r, const struct patch_change *c,
		   struct error *err);
/* One more location, behind those there are: an object, as PATCH has it. */
int location_add(const struct glance *g, const struct identity *who,
		 struct record *r, json_t *value, struct error *err);
int location_add_file(const struct glance *g, const struct identity *who,
		      struct record *r, const char *url, struct error *err);

#endif
