/* SPDX-License-Identifier: BSD-3-Clause */
/* What platter migrate would do, and what is under way. */
#ifndef NBD_CMD_MIGRATE_PLAN_H
#define NBD_CMD_MIGRATE_PLAN_H

#include <jansson.h>

#include "nbd/cmd/qmp.h"

struct migrate_plan {
	const char *qmp_path;
	const char *device; /* NULL: all disks */
	const char *to;
	const char *from; /* NULL: not given */
};

/* Prints commands, of platter's and of libvirt's; asks, and changes nothing. */
int migrate_plan_print(const struct migrate_plan *plan, struct qmp *q,
		       struct error *err);

/* Adds "disks" and "jobs" to @j. */
int migrate_status_add(struct qmp *q, json_t *j, struct error *err);

/* The same for people, with what the server says. */
void migrate_status_print(const json_t *j);

#endif
