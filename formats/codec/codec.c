/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/adc.h"
#include "formats/codec/codec-lib.h"
#include "formats/codec/codec-scratch.h"
#include "formats/codec/codec.h"
#include "iouring/nowait.h"

/* A frame may ask for as much memory as its window: not for more than this. */
#define ZSTD_WINDOW_LOG_MAX 26 /* 64 MiB */
#define XZ_MEMORY_MAX	    (66ULL << 20) /* a dictionary of 64 MiB */

/*
 * What decoders need beside in and out. As many at most as processors can
 * decode, however many threads want to: who finds none waits, as he would for
 * a processor. The one used last is the next to be used, as it is in caches.
 * Each decoder is made on first use.
 */
struct decoders {
	struct decoders *next; /* idle */
	struct libdeflate_decompressor *deflate;
	ZSTD_DCtx *zstd;
	bool has_zlib;
	z_stream zlib;
#ifdef HAVE_ISAL
	struct inflate_state isal;
#endif
	struct codec_scratch scratch; /* bzip2's and xz's */
};

#define DECODERS_MIN 4U

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static struct decoders *idle;
static unsigned int n_made, n_max;

static unsigned int processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > (long)DECODERS_MIN ? (unsigned int)n : DECODERS_MIN;
}

/* NULL when there is no memory. */
static struct decoders *decoders_take(void)
{
	struct decoders *d;

	pthread_mutex_lock(&lock);
	if (!n_max)
		n_max = processors();
	while (!idle && n_made == n_max)
		wait_on(&given, &lock);
	d = idle;
	if (d) {
		idle = d->next;
	} else {
		d = calloc(1, sizeof(*d));
		n_made += d != NULL;
	}
	pthread_mutex_unlock(&lock);
	return d;
}

static void decoders_give(struct decoders *d)
{
	pthread_mutex_lock(&lock);
	d->next = idle;
	idle = d;
	pthread_cond_signal(&given);
	pthread_mutex_unlock(&lock);
}

void codec_shutdown(void)
{
	struct decoders *d;

	while ((d = idle)) {
		idle = d->next;
		if (d->deflate)
			libdeflate.free_decompressor(d->deflate);
		if (d->zstd)
			zstd.freeDCtx(d->zstd);
		if (d->has_zlib)
			zlib.inflateEnd(&d->zlib);
		scratch_done(&d->scratch);
		free(d);
	}
	n_made = 0;
}

static bool need_deflate(struct decoders *d)
{
	if (!d->deflate)
		d->deflate = libdeflate.alloc_decompressor();
	if (!d->has_zlib)
		d->has_zlib =
			zlib.inflateInit2_(&d->zlib, MAX_WBITS, ZLIB_VERSION,
					   sizeof(d->zlib)) == Z_OK;
	return d->deflate && d->has_zlib;
}

static bool need_zstd(struct decoders *d)
{
	if (d->zstd)
		return true;
	d->zstd = zstd.createDCtx();
	if (d->zstd)
		zstd.DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax,
				       ZSTD_WINDOW_LOG_MAX);
	return d->zstd;
}

const char *codec_name(enum codec codec)
{
	static const char *const names[] = {
		[CODEC_DEFLATE] = "deflate", [CODEC_ZLIB] = "zlib",
		[CODEC_ZSTD] = "zstd",	     [CODEC_BZIP2] = "bzip2",
		[CODEC_XZ] = "xz",	     [CODEC_ADC] = "adc",
	};

	return names[codec];
}

/* Deflate's window is the format's: raw streams do not tell theirs. */
static bool inflate_until_full(z_stream *z, bool raw, const void *in,
			       size_t in_len, void *out, size_t out_len)
{
	int r;

	if (in_len > UINT_MAX || out_len > UINT_MAX ||
	    zlib.inflateReset2(z, raw ? -MAX_WBITS : MAX_WBITS) != Z_OK)
		return false;
	z->next_in = (Bytef *)(uintptr_t)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	r = zlib.inflate(z, Z_FINISH);
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z->avail_out;
}

/*
 * ISA-L and zlib can stop anywhere. Over the whole ISA-L is as fast as
 * libdeflate, zlib takes 1.3 (little to match) to 2.2 times (programs, text)
 * as long. What was decoded whole may be asked for again.
 */
#ifdef HAVE_ISAL
#define WORTHWHILE_EIGHTHS 7

static bool inflate_beginning(struct decoders *d, bool raw, const void *in,
			      size_t in_len, void *out, size_t out_len)
{
	struct inflate_state *s = &d->isal;
	int r;

	if (!codec_lib_load(LIB_ISAL))
		return inflate_until_full(&d->zlib, raw, in, in_len, out,
					  out_len);
	if (in_len > UINT_MAX || out_len > UINT_MAX)
		return false;
	isal.inflate_init(s);
	s->crc_flag = raw ? ISAL_DEFLATE : ISAL_ZLIB;
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uint32_t)in_len;
	s->next_out = out;
	s->avail_out = (uint32_t)out_len;
	r = isal.inflate_stateless(s);
	/* Positive: one of the two ended before the stream did. */
	return r >= ISAL_DECOMP_OK && !s->avail_out;
}
#else
#define WORTHWHILE_EIGHTHS 5

static bool inflate_beginning(struct decoders *d, bool raw, const void *in,
			      size_t in_len, void *out, size_t out_len)
{
	return inflate_until_full(&d->zlib, raw, in, in_len, out, out_len);
}
#endif

uint32_t codec_worthwhile(enum codec codec, uint32_t bytes, uint32_t unit_bytes)
{
	switch (codec) {
	case CODEC_DEFLATE:
	case CODEC_ZLIB:
		return bytes <= unit_bytes / 8 * WORTHWHILE_EIGHTHS
			       ? bytes
			       : unit_bytes;
	case CODEC_XZ:
	case CODEC_ADC:
		return bytes;
	case CODEC_ZSTD:
	case CODEC_BZIP2:
		/* A block is decoded whole or not at all. */
		break;
	}
	return unit_bytes;
}

/*
 * libdeflate wants the stream to end where the unit does. zlib takes what is
 * longer (its output is cut) or whose end mark was lost: both are readable,
 * since all of the unit is there.
 */
static bool decode_deflate(struct decoders *d, bool raw, const void *in,
			   size_t in_len, void *out, size_t out_len, bool whole)
{
	enum libdeflate_result r;
	size_t used, made = 0;

	if (!whole)
		return inflate_beginning(d, raw, in, in_len, out, out_len);
	r = (raw ? libdeflate.deflate_decompress_ex
		 : libdeflate.zlib_decompress_ex)(d->deflate, in, in_len, out,
						  out_len, &used, &made);
	if (r == LIBDEFLATE_SUCCESS)
		return made == out_len;
	return inflate_until_full(&d->zlib, raw, in, in_len, out, out_len);
}

/*
 * In one piece where the frame's end can be found, as that needs no window;
 * else, for several frames or one whose end was lost, as a stream.
 */
static bool decode_zstd(struct decoders *d, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	size_t frame = zstd.findFrameCompressedSize(in, in_len), r;
	ZSTD_inBuffer src = { in, in_len, 0 };
	ZSTD_outBuffer dst = { out, out_len, 0 };

	if (!zstd.isError(frame) &&
	    zstd.decompressDCtx(d->zstd, out, out_len, in, frame) == out_len)
		return true;
	zstd.DCtx_reset(d->zstd, ZSTD_reset_session_only);
	while (dst.pos < dst.size && src.pos < src.size) {
		r = zstd.decompressStream(d->zstd, &dst, &src);
		if (zstd.isError(r))
			return false;
	}
	return dst.pos == dst.size;
}

static bool need_library(enum codec_lib lib, struct error *err)
{
	if (codec_lib_load(lib))
		return true;
	error_set(err, -ENOTSUP, 0,
		  "%s is needed to read this, and not installed",
		  codec_lib_name(lib));
	return false;
}

int codec_need(enum codec codec, struct error *err)
{
	bool ok = true;

	switch (codec) {
	case CODEC_DEFLATE:
	case CODEC_ZLIB:
		ok = need_library(LIB_ZLIB, err) &&
		     need_library(LIB_DEFLATE, err);
		break;
	case CODEC_ZSTD:
		ok = need_library(LIB_ZSTD, err);
		break;
	case CODEC_BZIP2:
		ok = need_library(LIB_BZIP2, err);
		break;
	case CODEC_XZ:
		ok = need_library(LIB_XZ, err);
		break;
	case CODEC_ADC:
		break;
	}
	return ok ? 0 : -ENOTSUP;
}

static void *bzip2_alloc(void *scratch, int items, int bytes)
{
	return scratch_alloc(scratch, (size_t)items, (size_t)bytes);
}

static void bzip2_free(void *scratch, void *p)
{
	scratch_free(scratch, p);
}

static bool decode_bzip2(struct decoders *d, const void *in, size_t in_len,
			 void *out, size_t out_len)
{
	bz_stream z = { .bzalloc = bzip2_alloc,
			.bzfree = bzip2_free,
			.opaque = scratch_begin(&d->scratch) };
	int r = BZ_OK;

	if (in_len > UINT_MAX || out_len > UINT_MAX ||
	    bzip2.DecompressInit(&z, 0, 0) != BZ_OK)
		return false;
	z.next_in = (char *)(uintptr_t)in;
	z.avail_in = (unsigned int)in_len;
	z.next_out = out;
	z.avail_out = (unsigned int)out_len;
	while (r == BZ_OK && z.avail_out && z.avail_in)
		r = bzip2.Decompress(&z);
	/* What it holds back comes when there is nothing to read. */
	if (r == BZ_OK && z.avail_out)
		r = bzip2.Decompress(&z);
	bzip2.DecompressEnd(&z);
	return (r == BZ_OK || r == BZ_STREAM_END) && !z.avail_out;
}

static void *xz_alloc(void *scratch, size_t items, size_t bytes)
{
	return scratch_alloc(scratch, items, bytes);
}

static void xz_free(void *scratch, void *p)
{
	scratch_free(scratch, p);
}

static bool decode_xz(struct decoders *d, const void *in, size_t in_len,
		      void *out, size_t out_len)
{
	const lzma_allocator allocator = {
		.alloc = xz_alloc,
		.free = xz_free,
		.opaque = scratch_begin(&d->scratch),
	};
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r;

	z.allocator = &allocator;

	if (xz.stream_decoder(&z, XZ_MEMORY_MAX, 0) != LZMA_OK)
		return false;
	z.next_in = in;
	z.avail_in = in_len;
	z.next_out = out;
	z.avail_out = out_len;
	r = xz.code(&z, LZMA_RUN);
	xz.end(&z);
	return (r == LZMA_OK || r == LZMA_STREAM_END) && !z.avail_out;
}

static bool decode(enum codec codec, struct decoders *d, const void *in,
		   size_t in_len, void *out, size_t out_len, bool whole)
{
	switch (codec) {
	case CODEC_DEFLATE:
	case CODEC_ZLIB:
		return need_deflate(d) &&
		       decode_deflate(d, codec == CODEC_DEFLATE, in, in_len,
				      out, out_len, whole);
	case CODEC_ZSTD:
		return need_zstd(d) && decode_zstd(d, in, in_len, out, out_len);
	case CODEC_BZIP2:
		return decode_bzip2(d, in, in_len, out, out_len);
	case CODEC_XZ:
		return decode_xz(d, in, in_len, out, out_len);
	case CODEC_ADC:
		return adc_decode(in, in_len, out, out_len);
	}
	return false;
}

int codec_decode(enum codec codec, const void *in, size_t in_len, void *out,
		 size_t out_len, bool whole, struct error *err)
{
	struct decoders *d;
	int r = codec_need(codec, err);
	bool ok;

	if (r < 0)
		return r;
	d = decoders_take();
	if (!d)
		return error_set(err, -ENOMEM, 0, "out of memory");
	ok = decode(codec, d, in, in_len, out, out_len, whole);
	decoders_give(d);
	if (!ok)
		return error_set(err, -EIO, 0,
				 "%s data do not decode to %zu bytes",
				 codec_name(codec), out_len);
	return 0;
}
