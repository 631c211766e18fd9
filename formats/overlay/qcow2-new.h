/* SPDX-License-Identifier: BSD-3-Clause */
/* New qcow2 files for overlays. */
#ifndef FORMATS_OVERLAY_QCOW2_NEW_H
#define FORMATS_OVERLAY_QCOW2_NEW_H

#include "formats/overlay/overlay.h"
#include "iouring/source.h"

/* Can there be such a file? */
int qcow2_new_check(const struct overlay_new *n, struct error *err);

/* Writes it to @src, which is empty; durable when it returns 0. */
int qcow2_new_write(struct source *src, const struct overlay_new *n,
		    struct error *err);

#endif
