/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much a project may have, by the names of Glance's unified limits. A
 * file of JSON, read again when it changes:
 *
 *	{ "default": { "image_size_total": 10240, "image_count_total": 100 },
 *	  "PROJECT": { "image_size_total": -1 } }
 *
 * Sizes are MiB. -1, or what is not named: no limit. As in Glance, data may go
 * over a limit of size once they are on their way; what comes next is refused.
 */
#ifndef GLANCE_LIMITS_H
#define GLANCE_LIMITS_H

#include <jansson.h>

#include "glance/index.h"

enum limit {
	LIMIT_SIZE_TOTAL, /* image_size_total: of active images */
	LIMIT_STAGE_TOTAL, /* image_stage_total: of what waits for import */
	LIMIT_COUNT_TOTAL, /* image_count_total: images */
	LIMIT_COUNT_UPLOADING, /* image_count_uploading: data on their way */
	LIMITS,
};

struct limits;

struct keystone;

/*
 * @where: the file; "keystone", or "keystone:SECONDS": Keystone has them, and
 * is asked again so often, once a minute if not told. NULL: there are none;
 * then *ret is NULL, which all functions take.
 */
int limits_open(const char *where, struct limits **ret, struct error *err);
/* Is @where the word for Keystone, and no file? */
bool limits_are_keystones(const char *where);
/*
 * Asks Keystone (NULL: it is not known), and goes on to; waits for its first
 * answer no longer than some seconds. After the fork.
 */
int limits_start(struct limits *l, struct keystone *k, struct error *err);
void limits_free(struct limits *l);

/*
 * May @project (NULL: nobody's) have @more of @what, by the view of @tx?
 * -EDQUOT: no. -EAGAIN: Keystone has not told yet.
 */
int limits_check(struct limits *l, struct index_tx *tx, const char *project,
		 enum limit what, uint64_t more, struct error *err);

/* {"NAME": {"usage": N, "limit": N}, ...}; {} without limits. */
int limits_usage(struct limits *l, struct index_tx *tx, const char *project,
		 json_t **ret, struct error *err);

#endif
