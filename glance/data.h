/* SPDX-License-Identifier: BSD-3-Clause */
/* An image's data, for those who speak of them in one dialect or another. */
#ifndef GLANCE_DATA_H
#define GLANCE_DATA_H

#include "glance/http/http.h"
#include "glance/record.h"
#include "glance/upload.h"

/*
 * In a route's begin(): the body is the data of image @id, which is queued;
 * it is saving from then on. On failure nothing has been answered.
 */
int data_upload_begin(struct request *q, const char *id, enum upload_kind kind,
		      struct error *err);
/*
 * In handle(), when data_upload_begin() went well: the image is active when
 * this returns 0, else queued again (or killed). @size, @md5: what they must be; NULL: as
 * they are. -EINVAL: they are not, or the content is not what it should be.
 */
int data_upload_finish(struct request *q, const uint64_t *size, const char *md5,
		       struct error *err);

/* Answers with the data of @image, or the range that is asked for. */
void data_send(struct request *q, const struct record *image);

#endif
