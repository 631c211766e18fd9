/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lists of images: which, in what order, from where on.
 *
 * A page begins behind the image that the client saw last: its place in the
 * order is looked up in an index, so that a page costs what it holds, however
 * many images there are before it.
 */
#ifndef GLANCE_IMAGE_LIST_H
#define GLANCE_IMAGE_LIST_H

#include "glance/auth.h"
#include "glance/record.h"
#include "glance/http/uri.h"

enum list_op { LIST_EQ, LIST_NEQ, LIST_LT, LIST_LTE, LIST_GT, LIST_GTE };

#define LIST_TERMS_MAX	   64
#define LIST_SORT_MAX	   8
#define LIST_LIMIT_DEFAULT 25U
#define LIST_LIMIT_MAX	   1000U

/* One condition; all must hold. */
struct list_term {
	const char *column; /* of images, a literal; NULL: a property or tag */
	const char *property; /* its name; NULL with column NULL: a tag */
	enum list_op op;
	bool is_number;
	int64_t number;
	char *text; /* owned */
	char **any_of; /* owned, also the texts; NULL: none */
	size_t n_any_of;
};

struct list_sort {
	const char *column; /* a literal */
	bool descending;
};

struct image_list {
	const struct identity *who;
	struct list_term terms[LIST_TERMS_MAX];
	size_t n_terms;
	struct list_sort sort[LIST_SORT_MAX + 2];
	size_t n_sort;
	/* created_at and id come last, and make the order total. */
	bool tie_descending;
	/* NULL: what the asker sees by default; else one, or "all". */
	const char *visibility;
	/* Of images that are shared with the asker; NULL: any. */
	const char *member_status;
	/*
	 * What an administrator sees is everything, unless he asks as a
	 * member of his project.
	 */
	bool as_member;
	uint64_t limit;
	const char
		*marker; /* id of the last image seen; NULL: from the start */
};

void image_list_done(struct image_list *l);

/*
 * Glance v2's query: filters, sort, limit, marker. Points into @u and @who.
 * -EINVAL: a 400 with that message.
 */
int image_list_parse_v2(const struct uri *u, const struct identity *who,
			struct image_list *ret, struct error *err);

/* For the dialects: a condition on a column of images (a literal). */
int image_list_add_text(struct image_list *l, const char *column,
			enum list_op op, const char *text, struct error *err);
int image_list_add_number(struct image_list *l, const char *column,
			  enum list_op op, int64_t number, struct error *err);
/* @name and @value outlive @l; @name NULL: a tag. */
int image_list_add_property(struct image_list *l, const char *name,
			    const char *value, struct error *err);
/* By the API's name of the key; -EINVAL: cannot be sorted by. */
int image_list_add_sort(struct image_list *l, const char *key, bool descending,
			struct error *err);

/*
 * Calls @each with every image of the page, in order, until it returns
 * non-zero, and returns that, or 0. A marker that the asker cannot see is
 * -EINVAL.
 */
int image_list_run(struct index_tx *tx, const struct image_list *l,
		   int (*each)(void *opaque, const struct record *r),
		   void *opaque, struct error *err);

#endif
