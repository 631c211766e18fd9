/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks as the index has them: work that goes on when its request is over. */
#ifndef GLANCE_TASK_H
#define GLANCE_TASK_H

#include "glance/record.h"

#define TASK_IMPORT	"import" /* an administrator's, makes its image */
#define TASK_API_IMPORT "api_image_import" /* of an image's data */

#define TASK_PENDING	"pending"
#define TASK_PROCESSING "processing"
#define TASK_SUCCESS	"success"
#define TASK_FAILURE	"failure"

/* Strings are owned; NULL: null. */
struct task {
	char *id;
	char *type;
	char *status;
	char *owner; /* a project */
	char *image_id;
	char *request_id;
	char *user_id;
	char *input; /* JSON object */
	char *result; /* JSON object */
	char *message;
	int64_t created_usec; /* since 1970, UTC */
	int64_t updated_usec;
	bool has_expires;
	int64_t expires_usec; /* forgotten then */
};

void task_done(struct task *t);

/* In index_write(). With a new id and the status pending. */
int task_insert(struct index_tx *tx, struct task *t, struct error *err);

/* -ENOENT: there is none. */
int task_load(struct index_tx *tx, const char *id, struct task *ret,
	      struct error *err);

struct task_filter {
	const char *image_id; /* NULL: of any; the rest too */
	const char *status;
	const char *type;
	const char *marker; /* behind this one, which exists */
	const char *sort_key; /* a column's name; NULL: when they were made */
	bool ascending;
	uint64_t limit;
};

/* Is @key a column that tasks may be sorted by? */
bool task_sorts_by(const char *key);

/* Calls @each, which may take over what is in @t, until it returns non-zero. */
int task_each(struct index_tx *tx, const struct task_filter *f,
	      int (*each)(void *opaque, struct task *t), void *opaque,
	      struct error *err);

/*
 * In index_write(). A pending task, processing from now on: 1; 0: there is none
 * that may begin. Projects take turns: of those with less than @per_project
 * tasks under way, one with the fewest of these, and of them the one that was
 * served longest ago; its oldest task.
 */
int task_take(struct index_tx *tx, unsigned int per_project, struct task *ret,
	      struct error *err);
/* In index_write(). What a server that has ended was at is pending again. */
int task_reset(struct index_tx *tx, struct error *err);

/* In index_write(). It is over, and will be forgotten two days from now. */
int task_end(struct index_tx *tx, const char *id, const char *status,
	     const char *result, const char *message, struct error *err);
/* In index_write(). It has an image from now on. */
int task_set_image(struct index_tx *tx, const char *id, const char *image_id,
		   struct error *err);

#endif
