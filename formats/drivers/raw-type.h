/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What raw blocks look like: partition tables, file systems, CD images,
 * kernels and initial RAM disks. For people to see; nothing depends on it.
 */
#ifndef FORMATS_DRIVERS_RAW_TYPE_H
#define FORMATS_DRIVERS_RAW_TYPE_H

#include "formats/format.h"

/*
 * Tells @s "content" and what there is to say of it; nothing when the beginning
 * cannot be read.
 */
void raw_describe(struct source *src, struct info_sink *s);

/*
 * layer.remark of what is to be unpacked before it is a disk, such as a gzip stream
 * or a tar archive; NULL: it does not look so.
 */
const char *raw_packed(struct source *src);

#endif
