/* SPDX-License-Identifier: BSD-3-Clause */
/* Compression libraries, each loaded when the first data of its kind are met. */
#ifndef FORMATS_CODEC_CODEC_LIB_H
#define FORMATS_CODEC_CODEC_LIB_H

#include <bzlib.h>
#include <libdeflate.h>
#include <lz4.h>
#include <lz4hc.h>
#include <lzma.h>
#include <stdbool.h>
#include <zlib.h>
#include <zstd.h>
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

enum codec_lib {
	LIB_ZLIB,
	LIB_DEFLATE,
	LIB_ISAL, /* never there without HAVE_ISAL */
	LIB_ZSTD,
	LIB_BZIP2,
	LIB_XZ,
	LIB_LZ4,
	CODEC_LIBS, /* how many */
};

/* False: it is not installed, or lacks a function. Any thread. */
bool codec_lib_load(enum codec_lib lib);

/* "libz", "libdeflate", ... */
const char *codec_lib_name(enum codec_lib lib);

/* The functions that are used, without their prefix; only when loaded. */

struct zlib_api {
	__typeof__(deflate) *deflate;
	__typeof__(deflateEnd) *deflateEnd;
	__typeof__(deflateInit2_) *deflateInit2_;
	__typeof__(deflateReset) *deflateReset;
	__typeof__(inflate) *inflate;
	__typeof__(inflateEnd) *inflateEnd;
	__typeof__(inflateGetDictionary) *inflateGetDictionary;
	__typeof__(inflateInit2_) *inflateInit2_;
	__typeof__(inflatePrime) *inflatePrime;
	__typeof__(inflateReset2) *inflateReset2;
	__typeof__(inflateSetDictionary) *inflateSetDictionary;
};
extern struct zlib_api zlib;

struct libdeflate_api {
	__typeof__(libdeflate_alloc_decompressor) *alloc_decompressor;
	__typeof__(libdeflate_deflate_decompress_ex) *deflate_decompress_ex;
	__typeof__(libdeflate_free_decompressor) *free_decompressor;
	__typeof__(libdeflate_zlib_decompress_ex) *zlib_decompress_ex;
};
extern struct libdeflate_api libdeflate;

#ifdef HAVE_ISAL
struct isal_api {
	__typeof__(isal_inflate_init) *inflate_init;
	__typeof__(isal_inflate_stateless) *inflate_stateless;
};
extern struct isal_api isal;
#endif

struct zstd_api {
	__typeof__(ZSTD_CCtx_setParameter) *CCtx_setParameter;
	__typeof__(ZSTD_DCtx_reset) *DCtx_reset;
	__typeof__(ZSTD_DCtx_setParameter) *DCtx_setParameter;
	__typeof__(ZSTD_compress2) *compress2;
	__typeof__(ZSTD_createCCtx) *createCCtx;
	__typeof__(ZSTD_createDCtx) *createDCtx;
	__typeof__(ZSTD_decompressDCtx) *decompressDCtx;
	__typeof__(ZSTD_decompressStream) *decompressStream;
	__typeof__(ZSTD_findFrameCompressedSize) *findFrameCompressedSize;
	__typeof__(ZSTD_freeCCtx) *freeCCtx;
	__typeof__(ZSTD_freeDCtx) *freeDCtx;
	__typeof__(ZSTD_isError) *isError;
	__typeof__(ZSTD_maxCLevel) *maxCLevel;
};
extern struct zstd_api zstd;

struct bzip2_api {
	__typeof__(BZ2_bzDecompress) *Decompress;
	__typeof__(BZ2_bzDecompressEnd) *DecompressEnd;
	__typeof__(BZ2_bzDecompressInit) *DecompressInit;
};
extern struct bzip2_api bzip2;

struct xz_api {
	__typeof__(lzma_block_decoder) *block_decoder;
	__typeof__(lzma_block_header_decode) *block_header_decode;
	__typeof__(lzma_code) *code;
	__typeof__(lzma_end) *end;
	__typeof__(lzma_file_info_decoder) *file_info_decoder;
	__typeof__(lzma_filters_free) *filters_free;
	__typeof__(lzma_index_end) *index_end;
	__typeof__(lzma_index_iter_init) *index_iter_init;
	__typeof__(lzma_index_iter_next) *index_iter_next;
	__typeof__(lzma_index_uncompressed_size) *index_uncompressed_size;
	__typeof__(lzma_raw_decoder_memusage) *raw_decoder_memusage;
	__typeof__(lzma_stream_decoder) *stream_decoder;
};
extern struct xz_api xz;

struct lz4_api {
	__typeof__(LZ4_compress_default) *compress_default;
	__typeof__(LZ4_compress_HC) *compress_HC;
	__typeof__(LZ4_decompress_safe) *decompress_safe;
	__typeof__(LZ4_decompress_safe_usingDict) *decompress_safe_usingDict;
};
extern struct lz4_api lz4;

#endif
