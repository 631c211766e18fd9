/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zlib rather than libdeflate, which cannot be told how far back it may refer.
 * Contexts are made once a thread and reset for each cluster.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "formats/codec/codec-lib.h"
#include "formats/codec/encoder.h"
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
	if (codec != CODEC_ZSTD)
		return DEFLATE_LEVEL_MAX;
	/* encoder_new() says that it is not installed. */
	return codec_lib_load(LIB_ZSTD) ? zstd.maxCLevel() : INT_MAX;
}

static bool encoder_init(struct encoder *e, int level)
{
	if (e->codec == CODEC_ZSTD) {
		e->zstd = zstd.createCCtx();
		return e->zstd &&
		       !zstd.isError(zstd.CCtx_setParameter(
			       e->zstd, ZSTD_c_compressionLevel, level));
	}
	/* A negative window: no header. */
	return zlib.deflateInit2_(&e->z, level ? level : Z_DEFAULT_COMPRESSION,
				  Z_DEFLATED, -DEFLATE_WINDOW_BITS,
				  DEFLATE_MEM_LEVEL, Z_DEFAULT_STRATEGY,
				  ZLIB_VERSION, sizeof(e->z)) == Z_OK;
}

int encoder_new(enum codec codec, int level, struct encoder **ret,
		struct error *err)
{
	enum codec_lib lib = codec == CODEC_ZSTD ? LIB_ZSTD : LIB_ZLIB;
	struct encoder *e;

	if (!codec_lib_load(lib))
		return error_set(err, -ENOTSUP, 0,
				 "%s is needed to write this, and not "
				 "installed",
				 codec_lib_name(lib));
	e = calloc(1, sizeof(*e));
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
		zstd.freeCCtx(e->zstd);
	else
		zlib.deflateEnd(&e->z);
	free(e);
}

static size_t run_deflate(z_stream *z, const void *in, size_t in_len, void *out,
			  size_t out_len)
{
	if (zlib.deflateReset(z) != Z_OK)
		return 0;
	z->next_in = (Bytef *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	return zlib.deflate(z, Z_FINISH) == Z_STREAM_END ? z->total_out : 0;
}

size_t encoder_run(struct encoder *e, const void *in, size_t in_len, void *out,
		   size_t out_len)
{
	size_t n;

	if (e->codec != CODEC_ZSTD)
		return run_deflate(&e->z, in, in_len, out, out_len);
	n = zstd.compress2(e->zstd, out, out_len, in, in_len);
	return zstd.isError(n) ? 0 : n;
}
