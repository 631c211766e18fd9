/* SPDX-License-Identifier: BSD-3-Clause */
/* A store beside its index: what one of them has and the other has not. */
#ifndef GLANCE_SURVEY_H
#define GLANCE_SURVEY_H

#include "glance/index.h"
#include "glance/store.h"

enum survey_what {
	SURVEY_NO_DATA, /* an image's are missing */
	SURVEY_SIZE, /* they are of another size */
	SURVEY_UNKNOWN, /* data, or a sidecar, of no image */
	SURVEY_STRANGE, /* a file whose name is none of the store's */
	SURVEY_NO_SIDECAR,
	SURVEY_OLD_SIDECAR, /* not what the index says */
	SURVEY_NEW_SIDECAR, /* newer than the index, which is a copy */
	SURVEY_WHATS,
};

const char *survey_name(enum survey_what w);

struct survey_finding {
	enum survey_what what;
	const char *path; /* seen from the store */
	const char *id; /* NULL: SURVEY_STRANGE */
};

struct survey_result {
	uint64_t images; /* that have data here */
	uint64_t files; /* of data */
	uint64_t bytes; /* of these */
	uint64_t findings[SURVEY_WHATS];
};

/*
 * Calls @tell with what is found. Where a server may be at work, @beside, what
 * it may just be about is looked at again.
 */
int survey(struct store *s, struct index *ix, bool beside,
	   int (*tell)(void *opaque, const struct survey_finding *f),
	   void *opaque, struct survey_result *ret, struct error *err);

/*
 * Has the store data, of which the index @ix (NULL: there is none) says nothing
 * at all? How many; or a negative errno.
 */
int64_t survey_orphans(struct store *s, struct index *ix, struct error *err);

#endif
