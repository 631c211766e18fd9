/* SPDX-License-Identifier: BSD-3-Clause */
/* An image as API v2 shows it, and whom it is shown to. */
#ifndef GLANCE_IMAGE_JSON_H
#define GLANCE_IMAGE_JSON_H

#include "glance/auth.h"
#include "glance/http/http.h"
#include "glance/record.h"
#include "glance/http/text-buf.h"

struct glance;

/* What is shown beside the fields. */
struct image_view {
	const struct glance *g;
	const struct identity *who; /* is it shown to */
};

/* Adds the JSON object of @r to @b. */
void image_json_add(struct text_buf *b, const struct record *r,
		    const struct image_view *view);

/* Their list alone. */
void image_json_add_locations(struct text_buf *b, const struct record *r,
			      const struct image_view *view);

/*
 * May @who see @r? The index is asked about members. 1, 0 or a negative
 * errno.
 */
int image_may_see(struct index_tx *tx, const struct identity *who,
		  const struct record *r, struct error *err);

/*
 * Is it of @who's project, or is he an administrator? Sees its members, and more
 * only where his roles let him.
 */
bool image_is_own(const struct identity *who, const struct record *r);

/* May @who change it: its owner, or an administrator? */
bool image_may_change(const struct identity *who, const struct record *r);

/*
 * Loads image @id for @who. One that he must not see is -ENOENT, as if there
 * were none.
 */
int image_load(struct index_tx *tx, const struct identity *who, const char *id,
	       struct record *ret, struct error *err);
/*
 * Loads the image in the path of @q (/v2/images/ID...) for who sent it; answers
 * on failure.
 */
int image_of_request(struct request *q, struct record *ret);
/* image_load() to be changed: -EPERM where he may only look. */
int image_load_own(struct index_tx *tx, const struct identity *who,
		   const char *id, struct record *ret, struct error *err);

#endif
