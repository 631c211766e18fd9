/* SPDX-License-Identifier: BSD-3-Clause */
/* Containers, and the machines that their OVF descriptors tell of. */
#ifndef NBD_CMD_PACKAGE_H
#define NBD_CMD_PACKAGE_H

#include "formats/containers/container.h"
#include "nbd/cmd/cmd.h"

/*
 * The container that the image's file is, if it is one: *ret, the caller's to
 * container_unref(); else NULL. What cannot be read is none. @r: what layers_open()
 * of it has given, which filled @ls; what that says to be none is not read again.
 */
void package_of(const struct cmd *c, int r, const struct layers *ls,
		struct container **ret);

/* The container, its machines and disks, as lines, or as members of @j. */
void package_print(const struct cmd *cmd, const struct container *c);
void package_json(const struct cmd *cmd, const struct container *c, json_t *j);

/*
 * platter check: reads what the manifest names. Findings are printed, or appended to
 * @findings. Returns an exit status.
 */
int package_check(const struct container *c, bool verbose, json_t *findings);

#endif
