/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <stdatomic.h>

#include "formats/codec/codec-lib.h"
#include "iouring/library.h"
#include "iouring/util.h"

struct zlib_api zlib;
struct libdeflate_api libdeflate;
#ifdef HAVE_ISAL
struct isal_api isal;
#endif
struct zstd_api zstd;
struct bzip2_api bzip2;
struct xz_api xz;
struct lz4_api lz4;

#define SYMBOL(lib, prefix, name)                 \
	{                                         \
		prefix #name, (void **)&lib.name, \
	}

static const struct library_symbol zlib_symbols[] = {
	SYMBOL(zlib, "", deflate),
	SYMBOL(zlib, "", deflateEnd),
	SYMBOL(zlib, "", deflateInit2_),
	SYMBOL(zlib, "", deflateReset),
	SYMBOL(zlib, "", inflate),
	SYMBOL(zlib, "", inflateEnd),
	SYMBOL(zlib, "", inflateGetDictionary),
	SYMBOL(zlib, "", inflateInit2_),
	SYMBOL(zlib, "", inflatePrime),
	SYMBOL(zlib, "", inflateReset2),
	SYMBOL(zlib, "", inflateSetDictionary),
};

static const struct library_symbol libdeflate_symbols[] = {
	SYMBOL(libdeflate, "libdeflate_", alloc_decompressor),
	SYMBOL(libdeflate, "libdeflate_", deflate_decompress_ex),
	SYMBOL(libdeflate, "libdeflate_", free_decompressor),
	SYMBOL(libdeflate, "libdeflate_", zlib_decompress_ex),
};

#ifdef HAVE_ISAL
static const struct library_symbol isal_symbols[] = {
	SYMBOL(isal, "isal_", inflate_init),
	SYMBOL(isal, "isal_", inflate_stateless),
};
#endif

static const struct library_symbol zstd_symbols[] = {
	SYMBOL(zstd, "ZSTD_", CCtx_setParameter),
	SYMBOL(zstd, "ZSTD_", DCtx_reset),
	SYMBOL(zstd, "ZSTD_", DCtx_setParameter),
	SYMBOL(zstd, "ZSTD_", compress2),
	SYMBOL(zstd, "ZSTD_", createCCtx),
	SYMBOL(zstd, "ZSTD_", createDCtx),
	SYMBOL(zstd, "ZSTD_", decompressDCtx),
	SYMBOL(zstd, "ZSTD_", decompressStream),
	SYMBOL(zstd, "ZSTD_", findFrameCompressedSize),
	SYMBOL(zstd, "ZSTD_", freeCCtx),
	SYMBOL(zstd, "ZSTD_", freeDCtx),
	SYMBOL(zstd, "ZSTD_", isError),
	SYMBOL(zstd, "ZSTD_", maxCLevel),
};

static const struct library_symbol bzip2_symbols[] = {
	SYMBOL(bzip2, "BZ2_bz", Decompress),
	SYMBOL(bzip2, "BZ2_bz", DecompressEnd),
	SYMBOL(bzip2, "BZ2_bz", DecompressInit),
};

static const struct library_symbol xz_symbols[] = {
	SYMBOL(xz, "lzma_", block_decoder),
	SYMBOL(xz, "lzma_", block_header_decode),
	SYMBOL(xz, "lzma_", code),
	SYMBOL(xz, "lzma_", end),
	SYMBOL(xz, "lzma_", file_info_decoder),
	SYMBOL(xz, "lzma_", filters_free),
	SYMBOL(xz, "lzma_", index_end),
	SYMBOL(xz, "lzma_", index_iter_init),
	SYMBOL(xz, "lzma_", index_iter_next),
	SYMBOL(xz, "lzma_", index_uncompressed_size),
	SYMBOL(xz, "lzma_", raw_decoder_memusage),
	SYMBOL(xz, "lzma_", stream_decoder),
};

static const struct library_symbol lz4_symbols[] = {
	SYMBOL(lz4, "LZ4_", compress_default),
	SYMBOL(lz4, "LZ4_", compress_HC),
	SYMBOL(lz4, "LZ4_", decompress_safe),
	SYMBOL(lz4, "LZ4_", decompress_safe_usingDict),
};

#define ALL_ARE_LOOKED_UP(lib)                                             \
	_Static_assert(sizeof(lib) ==                                      \
			       ARRAY_SIZE(lib##_symbols) * sizeof(void *), \
		       "all are looked up")

ALL_ARE_LOOKED_UP(zlib);
ALL_ARE_LOOKED_UP(libdeflate);
#ifdef HAVE_ISAL
ALL_ARE_LOOKED_UP(isal);
#endif
ALL_ARE_LOOKED_UP(zstd);
ALL_ARE_LOOKED_UP(bzip2);
ALL_ARE_LOOKED_UP(xz);
ALL_ARE_LOOKED_UP(lz4);

static const struct {
	const char *name;
	const char *soname; /* NULL: built without it */
	const struct library_symbol *symbols;
	size_t n;
} libs[CODEC_LIBS] = {
	[LIB_ZLIB] = { "libz", "libz.so.1", zlib_symbols,
		       ARRAY_SIZE(zlib_symbols) },
	[LIB_DEFLATE] = { "libdeflate", "libdeflate.so.0", libdeflate_symbols,
			  ARRAY_SIZE(libdeflate_symbols) },
#ifdef HAVE_ISAL
	[LIB_ISAL] = { "libisal", "libisal.so.2", isal_symbols,
		       ARRAY_SIZE(isal_symbols) },
#else
	[LIB_ISAL] = { .name = "libisal" },
#endif
	[LIB_ZSTD] = { "libzstd", "libzstd.so.1", zstd_symbols,
		       ARRAY_SIZE(zstd_symbols) },
	[LIB_BZIP2] = { "libbz2", "libbz2.so.1.0", bzip2_symbols,
			ARRAY_SIZE(bzip2_symbols) },
	[LIB_XZ] = { "liblzma", "liblzma.so.5", xz_symbols,
		     ARRAY_SIZE(xz_symbols) },
	[LIB_LZ4] = { "liblz4", "liblz4.so.1", lz4_symbols,
		      ARRAY_SIZE(lz4_symbols) },
};

enum { NOT_TRIED, THERE, NOT_THERE };

static atomic_uchar states[CODEC_LIBS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void load(enum codec_lib lib)
{
	bool there;

	pthread_mutex_lock(&lock);
	if (atomic_load(&states[lib]) == NOT_TRIED) {
		there = libs[lib].soname &&
			library_load(libs[lib].soname, libs[lib].symbols,
				     libs[lib].n);
		atomic_store_explicit(&states[lib], there ? THERE : NOT_THERE,
				      memory_order_release);
	}
	pthread_mutex_unlock(&lock);
}

bool codec_lib_load(enum codec_lib lib)
{
	if (atomic_load_explicit(&states[lib], memory_order_acquire) ==
	    NOT_TRIED)
		load(lib);
	return atomic_load_explicit(&states[lib], memory_order_acquire) ==
	       THERE;
}

const char *codec_lib_name(enum codec_lib lib)
{
	return libs[lib].name;
}
