/* SPDX-License-Identifier: BSD-3-Clause */
/* Decoders of compressed clusters, grains and blocks. */
#ifndef FORMATS_CODEC_CODEC_H
#define FORMATS_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

enum codec {
	CODEC_DEFLATE, /* RFC 1951, no header */
	CODEC_ZLIB, /* RFC 1950 */
	CODEC_ZSTD, /* RFC 8878, window at most 64 MiB */
	CODEC_BZIP2,
	CODEC_XZ, /* dictionary at most 64 MiB */
	CODEC_ADC, /* Apple's; adc.h */
};

/* "deflate", "zlib", "zstd", "bzip2", "xz", "adc" */
const char *codec_name(enum codec codec);

/*
 * For drivers, in open(): will @codec's library be there? -ENOTSUP when it is
 * not installed.
 */
int codec_need(enum codec codec, struct error *err);

/*
 * Decodes @in until @out is full: exactly @out_len bytes, never one more.
 * Bytes of @in behind the stream's end are ignored, as the formats round
 * lengths up to sectors. A stream that is damaged or ends early is -EIO.
 * @whole: the stream is expected to end there; else only its beginning is
 * wanted. Any thread; waits for a decoder when all are at work.
 */
int codec_decode(enum codec codec, const void *in, size_t in_len, void *out,
		 size_t out_len, bool whole, struct error *err);

/* Frees decoders' memory; nobody may be decoding. */
void codec_shutdown(void);

/*
 * Of a unit of @unit_bytes only the first @bytes are wanted: how many should
 * be decoded? @bytes, where stopping there is cheaper than the rest.
 */
uint32_t codec_worthwhile(enum codec codec, uint32_t bytes,
			  uint32_t unit_bytes);

#endif
