/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the format drivers found in an image's data, as the index keeps it: so
 * that questions about it need not open the file again.
 */
#ifndef GLANCE_FINDINGS_H
#define GLANCE_FINDINGS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "glance/index.h"

/*
 * A file may list more snapshots, or say more of itself: then nothing is kept,
 * and who asks is answered from the file.
 */
#define FINDINGS_SNAPSHOTS_MAX	  1024U
#define FINDINGS_REPORT_BYTES_MAX (1U << 20)

struct found_snapshot {
	char *id;
	char *name;
	uint64_t bytes; /* virtual size of the disk then */
	uint64_t date_sec; /* since 1970, UTC */
};

struct found_layer {
	char *format;
	char *file; /* as the image names it; its own: the image's id */
	uint64_t bytes;
};

/* What a file that nobody has changed has in common with itself. */
struct file_looks {
	char text[64]; /* "": there is no file */
};

void file_looks(int fd, struct file_looks *ret);

struct findings {
	struct file_looks looks; /* of the file in which they were found */
	char *format; /* NULL: nothing is known, or kept */
	char *report; /* JSON, of GET /v2/images/ID/inspect */
	struct found_snapshot *snapshots; /* in the file's order */
	size_t n_snapshots;
	struct found_layer *layers; /* the image itself first */
	size_t n_layers;
};

void findings_free(struct findings *f); /* NULL is fine */

/* In index_write(): they take the place of what image @n had. */
int findings_save(struct index_tx *tx, int64_t n, const struct findings *f,
		  struct error *err);

/*
 * 1: *ret is the report of image @n, 0: there is none, or it was made of a file
 * that has not @looks.
 */
int findings_report(struct index_tx *tx, int64_t n,
		    const struct file_looks *looks, json_t **ret,
		    struct error *err);

#endif
