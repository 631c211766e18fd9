/* SPDX-License-Identifier: BSD-3-Clause */
/* What the words of platter index share. */
#ifndef NBD_CMD_CMD_INDEX_H
#define NBD_CMD_CMD_INDEX_H

#include "glance/index.h"
#include "glance/record.h"
#include "glance/store.h"
#include "nbd/cmd/cmd.h"

/* Something is damaged, missing, or known to nobody. */
#define STATUS_FINDINGS 3

struct index_cmd {
	struct cmd cmd;
	struct store *store;
	struct index *index;
	const char *folder; /* of the store */
	const char *owner;
	enum image_visibility visibility;
	bool overwrite;
	bool digests;
	bool quiet;
	json_t *events; /* for --json */
};

/* Exit statuses. */
int index_status(struct index_cmd *c);
int index_check(struct index_cmd *c);
int index_restore(struct index_cmd *c, const char *file);
int index_rebuild(struct index_cmd *c);

#endif
