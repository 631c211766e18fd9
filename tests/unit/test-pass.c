/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams that are read while they are decoded for the first time. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/streams/pass.h"
#include "iouring/nowait.h"
#include "tests/lib/packed.h"
#include "tests/lib/unit.h"

#define PLAIN	(8U << 20)
#define TURN	((size_t)1 << 18)
#define THREADS 4U

static uint8_t *plain, *packed;
static size_t packed_bytes;
static struct source *stream;
static struct error err;
static uint64_t told;
static char said[2048];
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- bytes that come when they are let through ---- */

struct gated {
	struct source base;
	const uint8_t *data;
	pthread_mutex_t lock;
	pthread_cond_t opened;
	uint64_t open; /* so many may be read, and the size at the end */
};

static ssize_t gated_pread(struct source *s, void *buf, size_t len,
			   uint64_t off)
{
	struct gated *g = container_of(s, struct gated, base);

	pthread_mutex_lock(&g->lock);
	while (off + len > g->open && off + 4 < s->bytes)
		pthread_cond_wait(&g->opened, &g->lock);
	pthread_mutex_unlock(&g->lock);
	memcpy(buf, g->data + off, len);
	return (ssize_t)len;
}

static const struct source_ops gated_ops = { .name = "gated",
					     .pread = gated_pread };

static struct gated *gated_new(uint64_t open)
{
	struct gated *g = calloc(1, sizeof(*g));

	ck_assert_ptr_nonnull(g);
	source_init(&g->base, &gated_ops, packed_bytes);
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->opened, NULL);
	g->data = packed;
	g->open = open;
	return g;
}

static void let_through(struct gated *g, uint64_t bytes)
{
	pthread_mutex_lock(&g->lock);
	g->open = bytes;
	pthread_cond_broadcast(&g->opened);
	pthread_mutex_unlock(&g->lock);
}

/* ---- streams ---- */

/* Noise and lines, by turns. */
static void make_plain(void)
{
	size_t i;

	plain = malloc(PLAIN);
	unit_lines(plain, PLAIN);
	for (i = 0; i < PLAIN; i += 2 * TURN)
		unit_fill(plain + i, min_size(TURN, PLAIN - i),
			  (unsigned int)i);
}

static void say(const char *line)
{
	size_t n;

	pthread_mutex_lock(&said_lock);
	n = strlen(said);
	snprintf(said + n, sizeof(said) - n, "%s\n", line);
	pthread_mutex_unlock(&said_lock);
}

static void set_up(void)
{
	make_plain();
	packed = malloc(2 * PLAIN);
	packed_bytes = unit_gzip(packed, 2 * PLAIN, plain, PLAIN);
	ck_assert_uint_gt(packed_bytes, STREAM_LATER_BYTES);
	*said = '\0';
	err = (struct error){ 0 };
	cache_configure(16U << 20);
	streams_configure(say);
	passes_start();
}

static void tear_down(void)
{
	free(plain);
	free(packed);
	engine_gone = NULL;
	streams_configure(NULL);
	cache_shutdown();
}

static uint64_t tell(void *opaque, const uint8_t *head, size_t bytes,
		     uint64_t hint, unsigned int bits)
{
	ck_assert_uint_eq(bytes, STREAM_HEAD_BYTES);
	ck_assert(!memcmp(head, plain, bytes));
	ck_assert_uint_eq(bits, 32);
	return told;
}

static int try_open(struct source *src, uint64_t bytes)
{
	const struct stream_options o = { .ratio_max = STREAM_RATIO_MAX,
					  .told = tell,
					  .path = "a.gz" };
	int r;

	told = bytes;
	r = stream_open(src, &stream_gzip, &o, &stream, &err);
	source_unref(src);
	return r;
}

static void open_memory(uint64_t bytes)
{
	struct source *src;

	must(memory_source_new(packed, packed_bytes, &src, &err), err);
	must(try_open(src, bytes), err);
	ck_assert_uint_eq(stream->bytes, bytes);
}

static int read_at(uint64_t at, size_t len)
{
	uint8_t *buf = malloc(len);
	int r = source_read(stream, buf, len, at, NULL);

	ck_assert(r < 0 || !memcmp(buf, plain + at, len));
	free(buf);
	return r;
}

/* Until the pass has ended: what lies last waits for it. */
static int read_last(void)
{
	return read_at(stream->bytes - 4096, 4096);
}

static void explained(uint64_t at, const char *part)
{
	struct error why = { 0 };

	source_explain(stream, at, 4096, &why);
	ck_assert_int_eq(why.code, -EIO);
	unit_says(&why, part);
}

static void close_stream(void)
{
	source_unref(stream);
	stream = NULL;
}

/* ---- tests ---- */

struct reader {
	uint64_t at;
	int result;
};

static void *read_in_thread(void *opaque)
{
	struct reader *r = opaque;

	r->result = read_at(r->at, 100000);
	return NULL;
}

START_TEST(who_reads_waits_for_his_part_alone)
{
	struct gated *g = gated_new(packed_bytes / 3);
	struct reader r = { .at = PLAIN / 2, .result = 1 };
	pthread_t thread;

	must(try_open(source_ref(&g->base), PLAIN), err);
	ck_assert_uint_eq(stream->bytes, PLAIN);
	ck_assert_int_eq(read_at(0, 300000), 0);
	pthread_create(&thread, NULL, read_in_thread, &r);
	ck_assert_int_eq(read_at(700000, 4096), 0);
	let_through(g, packed_bytes * 3 / 4);
	pthread_join(thread, NULL);
	ck_assert_int_eq(r.result, 0);
	let_through(g, packed_bytes);
	ck_assert_int_eq(read_last(), 0);
	close_stream();
	source_unref(&g->base);
	ck_assert_str_eq(said, "");
}
END_TEST

static void read_some(unsigned int number)
{
	unsigned int seed = number + 1, i;

	for (i = 0; i < 30; i++) {
		size_t len = (size_t)rand_r(&seed) % 900000 + 1;
		size_t at = (size_t)rand_r(&seed) % (PLAIN - len + 1);

		ck_assert_int_eq(read_at(at, len), 0);
	}
}

/* Little memory: what was decoded for one is decoded again for the next. */
static const uint64_t caches[] = { 256U << 10, 64U << 20 };

START_TEST(threads_read_what_is_decoded_meanwhile)
{
	cache_configure(caches[_i]);
	open_memory(PLAIN);
	unit_threads(THREADS, read_some);
	close_stream();
}
END_TEST

START_TEST(what_ends_before_it_was_told_to_is_eio_there)
{
	open_memory(PLAIN + 65536);
	ck_assert_int_eq(read_last(), -EIO);
	ck_assert_int_eq(read_at(PLAIN - 4096, 4096), 0);
	explained(PLAIN, "it unpacks to 8388608 bytes, and no more");
	ck_assert_str_eq(said, "a.gz: a gzip stream: it unpacks to 8388608 "
			       "bytes, and no more\n");
	close_stream();
}
END_TEST

START_TEST(what_goes_on_behind_what_was_told_is_said)
{
	open_memory(PLAIN - 65536);
	ck_assert_int_eq(read_last(), 0);
	while (atomic_load(&container_of(stream, struct stream, base)->grows))
		sched_yield();
	ck_assert_str_eq(said, "a.gz: a gzip stream: it unpacks to 8388608 "
			       "bytes, of which the first 8323072 are served, "
			       "as was told\n");
	ck_assert_int_eq(read_at(PLAIN / 2, 4096), 0);
	close_stream();
}
END_TEST

START_TEST(nothing_is_read_whose_sum_is_wrong)
{
	packed[packed_bytes - 6] ^= 1;
	open_memory(PLAIN);
	ck_assert_int_eq(read_last(), -EIO);
	ck_assert_int_eq(read_at(4096, 4096), -EIO);
	explained(4096, "incorrect data check");
	ck_assert_ptr_nonnull(strstr(said, "a.gz: a gzip stream: near byte "));
	close_stream();
}
END_TEST

START_TEST(what_is_cut_off_is_eio_behind_the_cut)
{
	packed_bytes = packed_bytes / 3 * 2;
	open_memory(PLAIN);
	ck_assert_int_eq(read_last(), -EIO);
	ck_assert_int_eq(read_at(PLAIN / 2, 100000), 0);
	ck_assert_int_eq(read_at(PLAIN / 4 * 3, 4096), -EIO);
	explained(PLAIN / 4 * 3, "it ends early");
	close_stream();
}
END_TEST

START_TEST(of_what_has_no_known_end_the_end_is_found)
{
	struct source *src;

	must(memory_source_new(packed, packed_bytes, &src, &err), err);
	must(try_open(src, STREAM_OPEN_ENDED), err);
	ck_assert(stream->end_unknown);
	ck_assert_int_eq(read_at(PLAIN - 512, 512), 0);
	ck_assert_int_eq(read_last(), -EIO);
	ck_assert_str_eq(said, "");
	close_stream();
}
END_TEST

/* Damage that is found before anything is served is a refusal. */
START_TEST(what_nothing_tells_of_is_decoded_first)
{
	struct source *src;

	must(memory_source_new(packed, packed_bytes, &src, &err), err);
	must(try_open(src, 0), err);
	ck_assert_uint_eq(stream->bytes, PLAIN);
	ck_assert(!stream->end_unknown);
	ck_assert_int_eq(read_last(), 0);
	close_stream();
	packed[packed_bytes - 6] ^= 1;
	must(memory_source_new(packed, packed_bytes, &src, &err), err);
	ck_assert_int_eq(try_open(src, 0), -EBADMSG);
	unit_says(&err, "incorrect data check");
}
END_TEST

static bool nobody(void)
{
	return true;
}

START_TEST(who_has_gone_is_not_waited_for)
{
	struct gated *g = gated_new(packed_bytes / 3);

	must(try_open(source_ref(&g->base), PLAIN), err);
	engine_gone = nobody;
	ck_assert_int_eq(read_at(PLAIN / 2, 4096), -ECANCELED);
	engine_gone = NULL;
	passes_stop();
	/* By then the pass may have ended. */
	ck_assert_int_lt(read_at(PLAIN / 2, 4096), 0);
	let_through(g, packed_bytes);
	ck_assert_int_lt(read_last(), 0);
	passes_start();
	close_stream();
	source_unref(&g->base);
}
END_TEST

START_TEST(what_is_closed_is_not_decoded_to_its_end)
{
	struct gated *g = gated_new(packed_bytes);
	unsigned int i;

	for (i = 0; i < 20; i++) {
		must(try_open(source_ref(&g->base), PLAIN), err);
		if (i & 1)
			ck_assert_int_eq(read_at(i * 100000, 100000), 0);
		close_stream();
	}
	ck_assert_uint_eq(atomic_load(&g->base.refs), 1);
	source_unref(&g->base);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, who_reads_waits_for_his_part_alone);
	LOOP(tc, threads_read_what_is_decoded_meanwhile, caches);
	tcase_add_test(tc, what_ends_before_it_was_told_to_is_eio_there);
	tcase_add_test(tc, what_goes_on_behind_what_was_told_is_said);
	tcase_add_test(tc, nothing_is_read_whose_sum_is_wrong);
	tcase_add_test(tc, what_is_cut_off_is_eio_behind_the_cut);
	tcase_add_test(tc, of_what_has_no_known_end_the_end_is_found);
	tcase_add_test(tc, what_nothing_tells_of_is_decoded_first);
	tcase_add_test(tc, who_has_gone_is_not_waited_for);
	tcase_add_test(tc, what_is_closed_is_not_decoded_to_its_end);
}

int main(void)
{
	return unit_main("pass", add);
}
