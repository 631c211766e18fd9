/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zlib rather than libdeflate, which cannot be told how far back it may refer.
 * Contexts are made once a thread and reset for each cluster.
 */
#include <errno.h>
#include <stdlib.h>

#include <zlib.h>
#include <zstd.h>

#include "formats/encoder.h"
#include "iouring/util.h"

#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL   9
#define DEFLATE_LEVEL_MAX   9

struct encoder {
	enum codec codec;
	z_stream z; /* CODEC_DEFLATE */
	ZSTD_CCtx *zstd; /* CODEC_ZSTD */
};

int encoder_level_max(enum codec codec)
{
	return codec == CODEC_ZSTD ? ZSTD_maxCLevel() : DEFLATE_LEVEL_MAX;
}

static bool encoder_init(struct encoder *e, int level)
{
	if (e->codec == CODEC_ZSTD) {
		e->zstd = ZSTD_createCCtx();
		return e->zstd &&
		       !ZSTD_isError(ZSTD_CCtx_setParameter(
			       e->zstd, ZSTD_c_compressionLevel, level));
	}
	/* A negative window: no header. */
	return deflateInit2(&e->z, level ? level : Z_DEFAULT_COMPRESSION,
			    Z_DEFLATED, -DEFLATE_WINDOW_BITS, DEFLATE_MEM_LEVEL,
			    Z_DEFAULT_STRATEGY) == Z_OK;
}

int encoder_new(enum codec codec, int level, struct encoder **ret,
		struct error *err)
{
	struct encoder *e = calloc(1, sizeof(*e));

	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");
	e->codec = codec;
	if (!encoder_init(e, level)) {
		encoder_free(e);
		return error_set(err, -ENOMEM, 0,
				 "no compressor for %s at level %d",
				 codec_name(codec), level);
	}
	*ret = e;
	return 0;
}

void encoder_free(struct encoder *e)
{
	if (!e)
		return;
	if (e->codec == CODEC_ZSTD)
		ZSTD_freeCCtx(e->zstd);
	else
		deflateEnd(&e->z);
	free(e);
}

static size_t run_deflate(z_stream *z, const void *in, size_t in_len, void *out,
			  size_t out_len)
{
	if (deflateReset(z) != Z_OK)
		return 0;
	z->next_in = (Bytef *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? z->total_out : 0;
}

size_t encoder_run(struct encoder *e, const void *in, size_t in_len, void *out,
		   size_t out_len)
{
	size_t n;

	if (e->codec != CODEC_ZSTD)
		return run_deflate(&e->z, in, in_len, out, out_len);
	n = ZSTD_compress2(e->zstd, out, out_len, in, in_len);
	return ZSTD_isError(n) ? 0 : n;
}
