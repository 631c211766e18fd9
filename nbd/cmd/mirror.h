/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A running guest's disk is moved to an NBD export by QEMU itself: blockdev-add,
 * blockdev-mirror, job-complete. Nodes and jobs are called by what they are for, so
 * that whoever asks again for the same goes on with what is under way, and what is
 * done is found done.
 */
#ifndef NBD_CMD_MIRROR_H
#define NBD_CMD_MIRROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd/cmd/qmp.h"

#define MIRROR_NAME_BYTES 32U

/* A disk of a guest. Strings are the answer's that it was found in. */
struct guest_disk {
	const char *name; /* what people call it: device, qdev path, or node */
	const char *node;
	const char *format; /* of the image, as QEMU calls it */
	const char *file; /* or URI, or json: */
	json_int_t bytes;
};

/*
 * The disk that @device names, by its device, qdev id or node; NULL: the only
 * one. Strings live as long as *ret_answer, which is the caller's.
 */
int guest_disk_find(struct qmp *q, const char *device, struct guest_disk *ret,
		    json_t **ret_answer, struct error *err);

/* Calls @each with every disk of an answer to query-block that is written. */
int guest_disk_each(const json_t *answer,
		    int (*each)(void *opaque, const struct guest_disk *d),
		    void *opaque);

/* So many bytes of @d->file may be shown: the right to an export is not. */
size_t guest_disk_shown_bytes(const struct guest_disk *d);

/* Does QEMU refuse to migrate a guest that has such a disk? */
bool guest_disk_is_blocked(const struct guest_disk *d);

enum mirror_what {
	MIRROR_ALL,
	MIRROR_ALLOCATED, /* what the target's base has not: QEMU's sync=top */
	MIRROR_NOTHING, /* it is the same disk, by another name */
};

struct mirror {
	struct qmp *qmp;
	const char *device; /* as of guest_disk_find() */
	const char *to; /* the export's URI */
	enum mirror_what what;
	uint64_t rate; /* bytes a second at most; 0: no limit */
	const char *tls; /* what QEMU calls keys for TLS; or NULL */
	bool quiet; /* no progress */
};

/*
 * Moves it, while the guest goes on, and waits for the end; 0 also where it is
 * there already. A failure, or a signal (stop.h), leaves the guest on the disk that
 * it had. Who is killed leaves a job that goes on, and waits, when all is copied,
 * for whoever asks for the same.
 */
int mirror_run(const struct mirror *m, struct error *err);

/* What has become of a mirror to @to, whoever asked for it. */
enum mirror_state { MIRROR_UNKNOWN, MIRROR_UNDER_WAY, MIRROR_DONE };
int mirror_find(struct qmp *q, const char *to, enum mirror_state *ret,
		struct error *err);

/* What the job for moving @device to @to, and its node, are called. */
void mirror_names(const char *to, char ret_node[MIRROR_NAME_BYTES],
		  char ret_job[MIRROR_NAME_BYTES]);

/* Is @name of those? */
bool mirror_is_ours(const char *name);

#endif
