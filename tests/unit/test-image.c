/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/image.h"
#include "tests/lib/delay-source.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define BITS	16U
#define CLUSTER (1U << BITS)
#define UNITS	48U
#define DISK	(UNITS * CLUSTER)

static struct error err;
static uint8_t disk[DISK], got[DISK];
static struct image *img;
static atomic_uint wrong;

static struct image *image_of(struct source *src,
			      const struct open_options *options)
{
	struct chain c = { 0 };
	struct image *i = NULL;

	must(chain_open_source(src, "NAME", NULL, options, &c, &err), err);
	must(image_from_chain(&c, &i, &err), err);
	ck_assert_uint_eq(c.depth, 0);
	return i;
}

static struct image *image_of_qb(struct qb *q)
{
	static const struct open_options options;
	struct source *s = NULL;

	must(memory_source_new(q->buf, q->len, &s, &err), err);
	return image_of(s, &options);
}

static void expect(bool ok)
{
	if (!ok)
		atomic_fetch_add(&wrong, 1);
}

static bool reads_as_disk(uint64_t off, size_t len, uint8_t *buf)
{
	memset(buf, 0xee, len + 1);
	return !image_read(img, buf, len, off, NULL) &&
	       !memcmp(buf, disk + off, len) && buf[len] == 0xee;
}

static void read_at_random(unsigned int number)
{
	uint8_t *buf = malloc(300001);
	uint32_t v[2];
	unsigned int i;

	for (i = 0; i < 150; i++) {
		uint64_t off;
		size_t len;

		unit_fill(v, sizeof(v), number * 1000 + i);
		off = v[0] % DISK;
		/* About the borders of clusters, mostly. */
		if (i % 3)
			off = round_down(off, CLUSTER) -
			      (off >= CLUSTER) * (v[1] % 9);
		len = (size_t)min_u64(v[1] % (i % 5 ? 6000 : 300000) + 1,
				      DISK - off);
		expect(reads_as_disk(off, len, buf));
	}
	free(buf);
}

/* Every kind of cluster in turn, in an order that is not the file's. */
static void make_mixed(struct qb *q)
{
	unsigned int i;

	qb_init(q, DISK, BITS, NULL, NULL);
	for (i = 0; i < UNITS; i++) {
		unsigned int k = (i * 29) % UNITS;
		uint8_t *at = disk + k * CLUSTER;

		unit_fill(at, CLUSTER, k);
		memset(at, 0x55, CLUSTER / 2);
		switch (k % 4) {
		case 0:
			qb_data(q, k, at);
			break;
		case 1:
			qb_compressed(q, k, at);
			break;
		case 2:
			memset(at, 0, CLUSTER);
			if (k % 8 == 2)
				qb_entry(q, k, QB_ZERO);
			break;
		default:
			if (k % 8 == 3)
				qb_data(q, k, at);
			else
				qb_compressed(q, k, at);
		}
	}
}

START_TEST(every_kind_of_extent_is_read_across_its_borders)
{
	struct qb q;
	unsigned int i;

	make_mixed(&q);
	img = image_of_qb(&q);
	ck_assert_uint_eq(img->bytes, DISK);
	must(image_read(img, got, DISK, 0, &err), err);
	ck_assert_mem_eq(got, disk, DISK);
	for (i = 0; i < 4; i++)
		read_at_random(i);
	ck_assert_uint_eq(wrong, 0);
	must(image_read(img, got, 0, DISK, &err), err);
	ck_assert_int_eq(image_read(img, got, 1, DISK, NULL), -EINVAL);
	image_unref(img);
	qb_done(&q);
}
END_TEST

static const uint64_t budgets[] = { 0, 200000, 1 << 20, 64 << 20 };

START_TEST(sixteen_threads_read_the_same_with_any_cache)
{
	struct qb q;

	cache_configure(budgets[_i]);
	make_mixed(&q);
	img = image_of_qb(&q);
	unit_threads(16, read_at_random);
	ck_assert_uint_eq(wrong, 0);
	image_unref(img);
	qb_done(&q);
	cache_shutdown();
}
END_TEST

static struct fault_source *counted;

static void read_all_backwards_or_not(unsigned int number)
{
	uint8_t *buf = malloc(CLUSTER + 1);
	unsigned int i;

	for (i = 0; i < UNITS; i++) {
		unsigned int k = number & 1 ? i : UNITS - 1 - i;

		expect(reads_as_disk(k * CLUSTER, CLUSTER, buf));
	}
	free(buf);
}

START_TEST(a_compressed_unit_is_decoded_once_for_all_threads)
{
	static const struct open_options options;
	struct cache_stats st;
	struct qb q;
	unsigned int i, opened;

	qb_init(&q, DISK, BITS, NULL, NULL);
	for (i = 0; i < UNITS; i++) {
		unit_fill(disk + i * CLUSTER, CLUSTER, i);
		memset(disk + i * CLUSTER, 0x55, CLUSTER / 2);
		qb_compressed(&q, i, disk + i * CLUSTER);
	}
	counted = fault_source_new(q.buf, q.len);
	img = image_of(&counted->base, &options);
	must(image_read(img, got, 1, 0, &err), err); /* table pages */
	cache_get_stats(&st);
	opened = counted->calls;
	ck_assert_uint_le(st.misses, 1);
	unit_threads(16, read_all_backwards_or_not);
	ck_assert_uint_eq(wrong, 0);
	cache_get_stats(&st);
	/* A first read of one byte may have decoded less than the unit. */
	ck_assert_uint_le(st.misses, UNITS + 1);
	ck_assert_uint_ge(st.misses, UNITS);
	ck_assert_uint_le(counted->calls - opened, UNITS + 1);
	image_unref(img);
	qb_done(&q);
	cache_shutdown();
}
END_TEST

/* Layer i of 64 has every 64th cluster, from i on, of 4 KiB. */
static void write_layers(unsigned int n)
{
	unsigned int i, k;
	uint8_t data[4096];
	char below[16];
	struct qb q;

	for (i = 0; i < n; i++) {
		snprintf(below, sizeof(below), "layer%u", i + 1);
		qb_init(&q, DISK, 12, i + 1 < n ? below : NULL,
			i + 1 < n ? "qcow2" : NULL);
		for (k = i; k < DISK / 4096; k += 64) {
			unit_fill(data, sizeof(data), k);
			memcpy(disk + k * 4096, data, 4096);
			qb_data(&q, k, data);
		}
		unit_write(unit_path("layer%u", i), q.buf, q.len);
		qb_done(&q);
	}
}

START_TEST(sixty_four_layers_read_as_one_would)
{
	static const struct open_options options;
	struct cache_stats first, then;

	write_layers(64);
	must(image_open(unit_path("layer0"), &options, &img, &err), err);
	ck_assert_uint_eq(img->chain.depth, 64);
	must(image_read(img, got, DISK, 0, &err), err);
	ck_assert_mem_eq(got, disk, DISK);
	cache_get_stats(&first);
	unit_threads(8, read_at_random);
	ck_assert_uint_eq(wrong, 0);
	/* What has been resolved once is not asked of the layers again. */
	cache_get_stats(&then);
	ck_assert_uint_eq(then.misses, first.misses);
	ck_assert_uint_eq(then.meta_misses, first.meta_misses);
	ck_assert_uint_gt(then.hits, first.hits);
	image_unref(img);
	cache_shutdown();
}
END_TEST

#define FAR_CLUSTERS 64U
#define FAR_DELAY_MS 20U

/* Clusters of 4 KiB, every one of @step from @first on, no two neighbours. */
static void make_scattered(struct qb *q, unsigned int first, unsigned int step)
{
	unsigned int i, n = FAR_CLUSTERS / step;

	qb_init(q, FAR_CLUSTERS * 4096, 12, NULL, NULL);
	for (i = 0; i < n; i++) {
		unsigned int k = first + i * 29 % n * step;

		unit_fill(disk + k * 4096, 4096, k);
		qb_data(q, k, disk + k * 4096);
	}
}

/* A layer in a file on one that is far away, or the latter alone. */
static struct image *far_image(struct qb *near, struct delay_source *far)
{
	static const struct open_options options;
	struct chain c = { .bytes = FAR_CLUSTERS * 4096 };
	struct image *i = NULL;
	struct source *src = NULL;

	if (near) {
		unit_write(unit_path("near"), near->buf, near->len);
		must(file_source_open(unit_path("near"), 0, &src, &err), err);
		must(layer_open(src, "near", NULL, NULL, true, &options,
				&c.layers[c.depth++], &err),
		     err);
	}
	must(layer_open(&far->base, "far", NULL, NULL, true, &options,
			&c.layers[c.depth++], &err),
	     err);
	must(image_from_chain(&c, &i, &err), err);
	return i;
}

START_TEST(what_is_far_away_is_asked_for_all_at_once)
{
	struct delay_source *far;
	struct qb near, q;
	unsigned int waits;
	uint64_t began;

	make_scattered(&q, _i, 1 + _i);
	if (_i)
		make_scattered(&near, 0, 2);
	far = delay_source_new(q.buf, q.len, FAR_DELAY_MS);
	img = far_image(_i ? &near : NULL, far);
	/* Tables, which are read before any data. */
	must(image_read(img, got, 1, (FAR_CLUSTERS - 1) * 4096, &err), err);
	waits = far->waits;
	began = now_nsec();
	must(image_read(img, got, FAR_CLUSTERS * 4096, 0, &err), err);
	ck_assert_uint_lt(now_nsec() - began,
			  FAR_CLUSTERS / 4 * FAR_DELAY_MS * 1000000ULL);
	ck_assert_mem_eq(got, disk, FAR_CLUSTERS * 4096);
	ck_assert_uint_le(far->waits - waits, 1);
	ck_assert_uint_eq(far->in_flight_max, FAR_CLUSTERS / (1 + _i));
	image_unref(img);
	qb_done(&q);
	if (_i)
		qb_done(&near);
	cache_shutdown();
}
END_TEST

/* Cluster 5 is broken so; clusters 4 and 6 are well. */
static const struct {
	const char *what;
	uint64_t entry; /* | sector count, for compressed ones */
} damages[] = {
	{ "behind the end", 1ULL << 40 },
	{ "not aligned", 0x200 + (7ULL << BITS) },
	{ "compressed, behind the end", QB_COMPRESSED | 1ULL << 40 },
	{ "compressed rubbish", QB_COMPRESSED | 7ULL << BITS },
};

START_TEST(damage_is_eio_for_its_range_and_no_other)
{
	struct qb q;
	unsigned int i;

	qb_init(&q, DISK, BITS, NULL, NULL);
	qb_fill(&q, 0);
	for (i = 0; i < UNITS; i++)
		unit_fill(disk + i * CLUSTER, CLUSTER, i);
	qb_entry(&q, 5, damages[_i].entry);
	img = image_of_qb(&q);
	for (i = 0; i < 2; i++) {
		error_clear(&err);
		ck_assert_int_eq(image_read(img, got, 1, 5 * CLUSTER, &err),
				 -EIO);
		ck_assert_int_eq(err.code, -EIO);
		ck_assert_uint_gt(strlen(err.msg), 10);
		ck_assert_int_eq(
			image_read(img, got, 3 * CLUSTER, 4 * CLUSTER, NULL),
			-EIO);
		ck_assert_int_eq(image_read(img, got, 2, 5 * CLUSTER - 1, NULL),
				 -EIO);
		ck_assert_int_eq(image_read(img, got, 1, 6 * CLUSTER - 1, NULL),
				 -EIO);
		must(image_read(img, got, 5 * CLUSTER, 0, NULL), err);
		ck_assert_mem_eq(got, disk, 5 * CLUSTER);
		must(image_read(img, got, DISK - 6 * CLUSTER, 6 * CLUSTER,
				NULL),
		     err);
		ck_assert_mem_eq(got, disk + 6 * CLUSTER, DISK - 6 * CLUSTER);
	}
	image_unref(img);
	qb_done(&q);
}
END_TEST

START_TEST(a_disk_that_fails_a_read_fails_that_read)
{
	static const struct open_options options;
	struct qb q;

	make_mixed(&q);
	counted = fault_source_new(q.buf, q.len);
	img = image_of(&counted->base, &options);
	must(image_read(img, got, DISK, 0, &err), err);
	cache_shutdown(); /* nothing that was decoded is left */
	counted->fail_call = 1;
	counted->fail_calls = 1U << 30;
	counted->fail_code = -EIO;
	ck_assert_int_eq(image_read(img, got, 10, 0, &err), -EIO);
	unit_says(&err, "cannot be read");
	ck_assert_int_eq(image_read(img, got, 10, CLUSTER, NULL), -EIO);
	counted->fail_call = 0;
	must(image_read(img, got, DISK, 0, NULL), err);
	ck_assert_mem_eq(got, disk, DISK);
	image_unref(img);
	qb_done(&q);
}
END_TEST

/* Fails the Nth read of the source, N = 1, 2, ... until none is the Nth. */
START_TEST(whichever_read_fails_nothing_hangs_or_leaks)
{
	static const struct open_options options;
	unsigned int n;
	bool struck = true;
	struct qb q;

	make_mixed(&q);
	for (n = 1; struck; n++) {
		struct fault_source *f = fault_source_new(q.buf, q.len);
		struct chain c = { 0 };
		struct image *i = NULL;
		int r;

		f->fail_call = n;
		f->fail_code = -EIO;
		error_clear(&err);
		source_ref(&f->base);
		r = chain_open_source(&f->base, "NAME", NULL, &options, &c,
				      &err);
		if (!r) {
			must(image_from_chain(&c, &i, &err), err);
			r = image_read(i, got, DISK, 0, &err);
			image_unref(i);
		}
		struck = f->calls >= n;
		/* A look ahead that failed is made again, as a need. */
		ck_assert(r == -EIO || !r);
		ck_assert(struck || !r);
		if (!r)
			ck_assert_mem_eq(got, disk, DISK);
		ck_assert_uint_eq(f->base.refs, 1);
		source_unref(&f->base);
		cache_shutdown();
	}
	ck_assert_uint_gt(n, 20);
	qb_done(&q);
}
END_TEST

struct told {
	uint64_t off, len, host_off;
	int kind;
	bool absent;
};

static struct told told[64];
static size_t n_told;
static int stop_at;

static int note(void *opaque, uint64_t off, const struct extent *e)
{
	ck_assert_uint_lt(n_told, ARRAY_SIZE(told));
	told[n_told++] =
		(struct told){ off, e->len, e->host_off, e->kind, e->absent };
	return stop_at && n_told == (size_t)stop_at ? 42 : 0;
}

START_TEST(a_walk_covers_the_range_joins_neighbours_and_ends)
{
	uint8_t data[CLUSTER];
	uint64_t end = 0, at;
	struct qb q;
	size_t i;

	unit_fill(data, sizeof(data), 1);
	qb_init(&q, 12 * CLUSTER, BITS, NULL, NULL);
	at = qb_data(&q, 1, data);
	qb_data(&q, 2, data); /* side by side: one extent */
	qb_data(&q, 4, data);
	qb_data(&q, 3, data); /* not so */
	qb_compressed(&q, 5, data);
	qb_compressed(&q, 6, data); /* each is its own */
	qb_entry(&q, 7, QB_ZERO);
	qb_entry(&q, 8, QB_ZERO);
	qb_entry(&q, 9, 1ULL << 40); /* damaged */
	img = image_of_qb(&q);
	must(image_walk(img, 0, 12 * CLUSTER, note, NULL, &end, &err), err);
	ck_assert_uint_eq(end, 12 * CLUSTER);
	ck_assert_uint_eq(n_told, 9);
	for (i = 0, end = 0; i < n_told; i++) {
		ck_assert_uint_eq(told[i].off, end);
		end += told[i].len;
	}
	ck_assert_uint_eq(end, 12 * CLUSTER);
	ck_assert(told[0].kind == EXTENT_ZERO && told[0].absent);
	ck_assert(told[1].kind == EXTENT_DATA && told[1].len == 2 * CLUSTER &&
		  told[1].host_off == at);
	ck_assert(told[2].kind == EXTENT_DATA && told[2].len == CLUSTER);
	ck_assert(told[4].kind == EXTENT_COMPRESSED);
	ck_assert(told[6].kind == EXTENT_ZERO && !told[6].absent &&
		  told[6].len == 2 * CLUSTER);
	ck_assert(told[7].kind == EXTENT_DAMAGED && told[7].len == CLUSTER);
	ck_assert(told[8].kind == EXTENT_ZERO && told[8].len == 2 * CLUSTER);
	/* Inside a cluster, and stopped. */
	n_told = 0;
	must(image_walk(img, CLUSTER + 5, 10, note, NULL, &end, &err), err);
	ck_assert(n_told == 1 && told[0].len == 10 &&
		  told[0].off == CLUSTER + 5);
	ck_assert_uint_eq(end, CLUSTER + 15);
	n_told = 0;
	stop_at = 2;
	ck_assert_int_eq(
		image_walk(img, 0, 12 * CLUSTER, note, NULL, &end, &err), 42);
	ck_assert_uint_eq(n_told, 2);
	must(image_prefetch(img, 0, 12 * CLUSTER, &err), err);
	image_unref(img);
	qb_done(&q);
}
END_TEST

/* AES-CBC of qcow2's legacy kind, made by the same cipher turned around. */
START_TEST(encrypted_sectors_are_read_from_any_byte)
{
	static const struct open_options options = {
		.key = (const uint8_t *)"0123456789abcdef", .key_bytes = 16
	};
	static const struct cipher_spec spec = { .algorithm = "aes",
						 .mode = CIPHER_CBC,
						 .iv = CIPHER_IV_PLAIN64 };
	struct cipher *cipher = NULL;
	struct source *s = NULL;
	struct qb q;
	unsigned int i;
	size_t off, len;

	/*
	 * What is stored is noise, so what it decrypts to is only known from
	 * cipher_decrypt() over whole sectors: reads from anywhere must be
	 * parts of that.
	 */
	qb_init(&q, DISK, BITS, NULL, NULL);
	qb_fill(&q, 0);
	qb_put32(&q, 32, 1);
	must(cipher_new(&spec, options.key, 16, &cipher, &err), err);
	for (i = 0; i < UNITS; i++) {
		unit_fill(disk + i * CLUSTER, CLUSTER, i);
		must(cipher_decrypt(cipher, i * (CLUSTER / 512),
				    disk + i * CLUSTER, CLUSTER),
		     err);
	}
	cipher_free(cipher);
	must(memory_source_new(q.buf, q.len, &s, &err), err);
	img = image_of(s, &options);
	must(image_read(img, got, DISK, 0, &err), err);
	ck_assert_mem_eq(got, disk, DISK);
	for (off = CLUSTER - 1025; off < CLUSTER + 3; off += 171)
		for (len = 1; len < 3000; len += 257)
			ck_assert(reads_as_disk(off, len, got));
	unit_threads(8, read_at_random);
	ck_assert_uint_eq(wrong, 0);
	image_unref(img);
	qb_done(&q);
}
END_TEST

START_TEST(an_encrypted_image_without_its_key_is_refused)
{
	static const struct open_options options;
	struct source *s = NULL;
	struct chain c = { 0 };
	struct qb q;

	qb_init(&q, DISK, BITS, NULL, NULL);
	qb_put32(&q, 32, 1);
	must(memory_source_new(q.buf, q.len, &s, &err), err);
	ck_assert_int_eq(chain_open_source(s, "NAME", NULL, &options, &c, &err),
			 -EACCES);
	unit_says(&err, "key=FILE");
	qb_done(&q);
}
END_TEST

START_TEST(an_image_lives_as_long_as_somebody_holds_it)
{
	struct qb q;

	make_mixed(&q);
	img = image_of_qb(&q);
	ck_assert_ptr_eq(image_ref(img), img);
	image_unref(img);
	ck_assert(reads_as_disk(0, CLUSTER, got));
	image_unrefp(&img);
	image_unref(NULL);
	qb_done(&q);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, every_kind_of_extent_is_read_across_its_borders);
	LOOP(tc, sixteen_threads_read_the_same_with_any_cache, budgets);
	tcase_add_test(tc, a_compressed_unit_is_decoded_once_for_all_threads);
	tcase_add_loop_test(tc, what_is_far_away_is_asked_for_all_at_once, 0,
			    2);
	tcase_add_test(tc, sixty_four_layers_read_as_one_would);
	LOOP(tc, damage_is_eio_for_its_range_and_no_other, damages);
	tcase_add_test(tc, a_disk_that_fails_a_read_fails_that_read);
	tcase_add_test(tc, whichever_read_fails_nothing_hangs_or_leaks);
	tcase_add_test(tc, a_walk_covers_the_range_joins_neighbours_and_ends);
	tcase_add_test(tc, encrypted_sectors_are_read_from_any_byte);
	tcase_add_test(tc, an_encrypted_image_without_its_key_is_refused);
	tcase_add_test(tc, an_image_lives_as_long_as_somebody_holds_it);
}

int main(void)
{
	return unit_main("image", add);
}
