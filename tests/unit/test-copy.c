/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies to raw and qcow2 files, and what becomes of failures. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "formats/codec/encoder.h"
#include "formats/overlay/qcow2-sink.h"
#include "iouring/write.h"
#include "tests/lib/unit.h"

#define DISK ((size_t)(9U << 20) + 1000)

static struct error err;
static uint8_t *disk;
static struct image *img;

/* Noise, what compresses, and zeroes, by turns of 100,000 bytes. */
static void make_disk(void)
{
	size_t at, n;

	disk = calloc(1, DISK);
	for (at = 0; at < DISK; at += 100000) {
		n = min_size(100000, DISK - at);
		switch (at / 100000 % 4) {
		case 0:
			unit_fill(disk + at, n, (unsigned int)at);
			break;
		case 1:
			memset(disk + at, (int)(at / 100000), n);
			break;
		default:
			break;
		}
	}
	unit_write(unit_path("disk"), disk, DISK);
	must(image_open(unit_path("disk"),
			&(struct open_options){ .format = "raw" }, &img, &err),
	     err);
}

static void drop_disk(void)
{
	image_unref(img);
	free(disk);
}

static const struct kind {
	uint32_t cluster_bits; /* 0: raw */
	bool compress;
	enum codec codec;
	unsigned int threads;
} kinds[] = {
	{ 0, false, CODEC_DEFLATE, 1 },	 { 0, false, CODEC_DEFLATE, 5 },
	{ 16, false, CODEC_DEFLATE, 3 }, { 9, false, CODEC_DEFLATE, 3 },
	{ 16, true, CODEC_DEFLATE, 3 },	 { 16, true, CODEC_ZSTD, 3 },
	{ 12, true, CODEC_ZSTD, 1 },	 { 21, true, CODEC_DEFLATE, 2 },
	{ 9, true, CODEC_DEFLATE, 3 },
};

static int tell(void *opaque, uint64_t done)
{
	uint64_t *last = opaque;

	ck_assert_uint_ge(done, *last);
	ck_assert_uint_le(done, DISK);
	*last = done;
	return 0;
}

static int copy_to(const struct kind *k, struct source *dst)
{
	CLEANUP(qcow2_sink_done) struct qcow2_sink s = { 0 };
	struct qcow2_file_dst file;
	struct raw_sink raw;
	uint64_t last = 0, bytes;
	int r;

	if (!k->cluster_bits) {
		raw_sink_init(&raw, dst);
		r = copy_image(img, &raw.sink, k->threads, tell, &last, &err);
		return r < 0 ? r : source_truncate(dst, img->bytes, &err);
	}
	qcow2_file_dst_init(&file, dst);
	r = qcow2_sink_init(&s, &file.dst, img->bytes, k->cluster_bits,
			    k->compress, k->codec, 0, &err);
	if (r >= 0)
		r = copy_image(img, &s.sink, k->threads, tell, &last, &err);
	return r < 0 ? r : qcow2_create_finish(s.file, &bytes, &err);
}

static int copy(const struct kind *k)
{
	CLEANUP(source_unrefp) struct source *dst = NULL;

	error_clear(&err);
	unit_write(unit_path("out"), "", 0);
	must(file_source_open_rw(unit_path("out"), 0, &dst, &err), err);
	return copy_to(k, dst);
}

static unsigned int findings;

static void count_finding(struct check_report *r, const char *line)
{
	findings++;
}

/* The copy is sound, and reads as the disk. */
static void is_disk(const struct kind *k)
{
	const struct open_options declared = { .format = k->cluster_bits
								 ? "qcow2"
								 : "raw" };
	struct check_report report = { .say = count_finding };
	uint8_t *got = malloc(DISK);
	struct image *out = NULL;
	struct layer *top;

	must(image_open(unit_path("out"), &declared, &out, &err), err);
	ck_assert_uint_eq(out->bytes, DISK);
	must(image_read(out, got, DISK, 0, &err), err);
	ck_assert(!memcmp(got, disk, DISK));
	top = out->chain.layers[0];
	if (k->cluster_bits) {
		must(top->ops->check(top, &report, &err), err);
		ck_assert_uint_eq(report.corruptions + report.leaks + findings,
				  0);
		ck_assert_int_eq(report.compressed_units > 0, k->compress);
	}
	image_unref(out);
	free(got);
}

START_TEST(a_copy_is_sound_and_reads_as_the_disk)
{
	make_disk();
	must(copy(&kinds[_i]), err);
	is_disk(&kinds[_i]);
	drop_disk();
}
END_TEST

struct faults {
	struct write_watcher watcher;
	atomic_int left; /* until one fails */
};

static int fail_one(struct write_watcher *w, const struct write_event *e)
{
	struct faults *f = container_of(w, struct faults, watcher);

	return atomic_fetch_sub(&f->left, 1) == 1 ? -ENOSPC : 0;
}

static void nothing_after(struct write_watcher *w, const struct write_event *e,
			  int code)
{
}

START_TEST(whichever_write_fails_the_copy_fails_with_that)
{
	static const struct kind few[] = {
		{ 0, false, CODEC_DEFLATE, 3 },
		{ 20, false, CODEC_DEFLATE, 3 },
		{ 16, true, CODEC_ZSTD, 3 },
	};
	struct faults f = { .watcher = { .before = fail_one,
					 .after = nothing_after } };
	int n, r = -ENOSPC;

	make_disk();
	for (n = 1; r; n++) {
		atomic_store(&f.left, n);
		write_watch(&f.watcher);
		r = copy(&few[_i]);
		write_watch(NULL);
		ck_assert_int_eq(r, r ? -ENOSPC : 0);
		if (r)
			unit_says(&err, "No space left");
		ck_assert_int_lt(n, 1000);
	}
	ck_assert_int_gt(n, 5);
	is_disk(&few[_i]);
	drop_disk();
}
END_TEST

static int say_stop(void *opaque, uint64_t done)
{
	return -EINTR;
}

START_TEST(a_copy_ends_when_it_is_told_to)
{
	CLEANUP(source_unrefp) struct source *dst = NULL;
	struct raw_sink raw;

	make_disk();
	unit_write(unit_path("out"), "", 0);
	must(file_source_open_rw(unit_path("out"), 0, &dst, &err), err);
	raw_sink_init(&raw, dst);
	ck_assert_int_eq(copy_image(img, &raw.sink, 2, say_stop, NULL, &err),
			 -EINTR);
	drop_disk();
}
END_TEST

START_TEST(what_cannot_be_counted_is_refused)
{
	static const struct {
		uint64_t bytes;
		uint32_t bits;
		int code;
	} sizes[] = {
		{ 128ULL << 30, 9, 0 }, /* an L1 table of 32 MiB */
		{ (128ULL << 30) + 1, 9, -EFBIG },
		{ 2ULL << 50, 16, 0 },
		{ (2ULL << 50) + 1, 16, -EFBIG },
		{ 2ULL << 60, 21, 0 },
		{ (2ULL << 60) + 1, 21, -EFBIG },
	};
	struct qcow2_file_dst dst;
	size_t i;

	qcow2_file_dst_init(&dst, NULL); /* nothing is written */
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct qcow2_create *q = NULL;

		error_clear(&err);
		ck_assert_int_eq(qcow2_create_new(&dst.dst, sizes[i].bytes,
						  sizes[i].bits, CODEC_DEFLATE,
						  &q, &err),
				 sizes[i].code);
		if (sizes[i].code)
			unit_says(&err, "take larger clusters");
		qcow2_create_free(q);
	}
}
END_TEST

static const struct {
	enum codec codec;
	int level;
} levels[] = { { CODEC_DEFLATE, 0 }, { CODEC_DEFLATE, 1 }, { CODEC_DEFLATE, 9 },
	       { CODEC_ZSTD, 0 },    { CODEC_ZSTD, 1 },	   { CODEC_ZSTD, 22 } };

START_TEST(what_is_encoded_is_decoded)
{
	static uint8_t in[65536], out[65536], back[65536];
	struct encoder *e = NULL;
	unsigned int i;
	size_t n;

	must(encoder_new(levels[_i].codec, levels[_i].level, &e, &err), err);
	for (i = 0; i < 3; i++) {
		unit_fill(in, 20000, i);
		memcpy(in + 30000, in, 20000); /* farther than 4 KiB */
		n = encoder_run(e, in, sizeof(in), out, sizeof(out) - 1);
		ck_assert_uint_gt(n, 0);
		must(codec_decode(levels[_i].codec, out, n, back, sizeof(back),
				  true, &err),
		     err);
		ck_assert_mem_eq(in, back, sizeof(in));
	}
	/* Noise does not fit, and spoils nothing. */
	unit_fill(in, sizeof(in), 9);
	ck_assert_uint_eq(encoder_run(e, in, sizeof(in), out, sizeof(out) - 1),
			  0);
	memset(in, 1, sizeof(in));
	ck_assert_uint_gt(encoder_run(e, in, sizeof(in), out, sizeof(out)), 0);
	encoder_free(e);
	encoder_free(NULL);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_copy_is_sound_and_reads_as_the_disk, kinds);
	tcase_add_loop_test(tc, whichever_write_fails_the_copy_fails_with_that,
			    0, 3);
	tcase_add_test(tc, a_copy_ends_when_it_is_told_to);
	tcase_add_test(tc, what_cannot_be_counted_is_refused);
	LOOP(tc, what_is_encoded_is_decoded, levels);
}

int main(void)
{
	return unit_main("copy", add);
}
