/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the older dialects share. */
#ifndef GLANCE_LEGACY_INSIDE_H
#define GLANCE_LEGACY_INSIDE_H

#include "glance/glance.h"
#include "glance/meta-headers.h"
#include "glance/record.h"

/* ---- legacy-show.c ---- */

/* By the request's path. */
const struct dialect *legacy_dialect(const struct request *q);

/* A refusal for want of permission is 405 in both. */
void legacy_refuse(struct request *q, const struct error *err);

/* @r as JSON; @detail: whole, as lists have it where they are asked to. */
void legacy_add_image(struct text_buf *b, const struct dialect *d,
		      const struct record *r, bool detail);

/* What v1 answers to a change. */
void legacy_respond(struct request *q, const char *id);

/* ---- legacy-create.c ---- */

/* v1 has data in the body; what else it may come from is not taken. */
int legacy_check_sources(const struct request *q, const struct meta *m,
			 struct error *err);

/* route.begin and route.handle of a new image */
void legacy_begin_post(struct request *q);

/* Data that are not what the headers say kill the image. */
void legacy_finish_data(struct request *q, const struct meta *m);

void legacy_post(struct request *q);

#endif
