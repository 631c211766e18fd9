/* SPDX-License-Identifier: BSD-3-Clause */
/* Compresses clusters, as qcow2's readers expect them. */
#ifndef FORMATS_CODEC_ENCODER_H
#define FORMATS_CODEC_ENCODER_H

#include <stddef.h>

#include "formats/codec/codec.h"
#include "iouring/error.h"

/* One thread's. */
struct encoder;

/*
 * @codec: CODEC_DEFLATE, in a window of 4 KiB, as the readers' is no larger
 * (QEMU's docs/interop/qcow2.txt, "Compressed Clusters"); or CODEC_ZSTD.
 * @level: 0: the library's default; else 1 to encoder_level_max().
 */
int encoder_new(enum codec codec, int level, struct encoder **ret,
		struct error *err);
void encoder_free(struct encoder *e); /* NULL is fine */

int encoder_level_max(enum codec codec);

/*
 * Compresses @in_len bytes into @out. Returns how many came out, or 0 when
 * they do not fit into @out_len, or for any other reason do not come out.
 */
size_t encoder_run(struct encoder *e, const void *in, size_t in_len, void *out,
		   size_t out_len);

#endif
