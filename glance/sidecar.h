/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the index says of an image that has data, in a file beside them, so that
 * a lost index can be made anew: JSON, 0600, written by the service alone.
 *
 *	ID.json		what the index said when it was last committed
 *	ID.json.new	what it may say since: written and synced before the
 *			commit, renamed to ID.json after it
 *
 * So a sidecar is proven to be current where there is no ID.json.new. Where
 * there is one nobody knows which of them holds, and nobody but the owner may
 * see the image. Data were an image's if, and only if, there is an ID.json:
 * it has its name, durably, before anybody is told.
 *
 * Its time of modification is the image's changed_usec, so that a look at the
 * folder tells whether it is in step with the index.
 */
#ifndef GLANCE_SIDECAR_H
#define GLANCE_SIDECAR_H

#include "glance/record.h"
#include "glance/store.h"

#define SIDECAR_BYTES_MAX (32U << 20)

struct sidecar_member {
	char *project;
	char *status;
	bool can_share;
	int64_t created_usec, updated_usec;
};

struct sidecar {
	struct record image; /* without a number, or findings */
	struct sidecar_member *members;
	size_t n_members;
};

void sidecar_done(struct sidecar *c);

/* Does an image have one? It has data, which are not found in place. */
bool sidecar_wanted(const struct record *r);

/* As JSON, to be freed. */
int sidecar_text(struct index_tx *tx, const struct record *r, char **ret,
		 struct error *err);

/*
 * @text of @len bytes, said of image @id. -EBADMSG: it is damaged, in one line
 * that names the field.
 */
int sidecar_parse(const char *text, size_t len, const char *id,
		  struct sidecar *ret, struct error *err);

/* -ENOENT: there is none. */
int sidecar_read(struct store *s, const char *id, enum store_file file,
		 struct sidecar *ret, struct error *err);

/*
 * In index_write(): the image becomes what @c says, if need be a new one. Not
 * @trusted, it is private, and has no members.
 */
int sidecar_apply(struct index_tx *tx, struct sidecar *c, bool trusted,
		  struct error *err);

/* ---- in step with the index ---- */

struct sidecars;

/* Follows @ix; index_follow(). */
int sidecars_new(struct store *s, struct index *ix, struct sidecars **ret,
		 struct error *err);
void sidecars_free(struct sidecars *c); /* after index_close(); NULL is fine */

/*
 * Those of @ids anew, out of the index, while nobody writes to it. An image
 * that should have none loses what there is.
 */
int sidecars_write(struct store *s, struct index *ix, char (*ids)[37],
		   size_t n_ids, struct error *err);

#endif
