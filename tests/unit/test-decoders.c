/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams read by many threads at once, in each other, and with little memory. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <lzma.h>

#include "formats/cache.h"
#include "formats/streams/stream.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/packed.h"
#include "tests/lib/unit.h"

#define PLAIN	(5U << 20)
#define THREADS 4U

static uint8_t *plain, *packed, *twice;
static size_t packed_bytes, twice_bytes;
static struct source *stream;
static struct error err;

/* Lines, and noise. */
static void make_plain(void)
{
	plain = malloc(PLAIN);
	unit_lines(plain, PLAIN);
	unit_fill(plain + PLAIN / 2, PLAIN / 16, 2);
}

static size_t pack_xz(uint8_t *to, size_t room, uint8_t *from, size_t len,
		      size_t block)
{
	lzma_mt options = { .threads = 1,
			    .block_size = block,
			    .preset = 0,
			    .check = LZMA_CHECK_CRC32 };
	lzma_stream z = LZMA_STREAM_INIT;

	ck_assert_int_eq(lzma_stream_encoder_mt(&z, &options), LZMA_OK);
	z.next_in = from;
	z.avail_in = len;
	z.next_out = to;
	z.avail_out = room;
	ck_assert_int_eq(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
	len = z.total_out;
	lzma_end(&z);
	return len;
}

static void set_up(void)
{
	make_plain();
	packed = malloc(2 * PLAIN);
	twice = malloc(2 * PLAIN);
	packed_bytes = unit_gzip(packed, 2 * PLAIN, plain, PLAIN);
	/* The gzip stream in an xz one, of blocks. */
	twice_bytes = pack_xz(twice, 2 * PLAIN, packed, packed_bytes, 300000);
}

static void tear_down(void)
{
	free(plain);
	free(packed);
	free(twice);
	cache_shutdown();
}

static void open_stream(const uint8_t *data, size_t bytes, uint64_t cache)
{
	unsigned int depth = 0;

	cache_configure(cache);
	err = (struct error){ 0 };
	must(memory_source_new(data, bytes, &stream, &err), err);
	must(stream_peel(&stream,
			 &(struct stream_options){
				 .sure = true, .ratio_max = STREAM_RATIO_MAX },
			 &depth, &err),
	     err);
	ck_assert_uint_eq(stream->bytes, PLAIN);
}

static void read_some(unsigned int number)
{
	unsigned int seed = number + 1, i;
	uint8_t *buf = malloc(300000);
	size_t at, len;

	for (i = 0; i < 12; i++) {
		len = (size_t)rand_r(&seed) % 300000 + 1;
		at = (size_t)rand_r(&seed) % (PLAIN - len + 1);
		ck_assert_int_eq(source_read(stream, buf, len, at, NULL), 0);
		ck_assert(!memcmp(buf, plain + at, len));
	}
	free(buf);
}

/* One decoder of each stream at a time, or memory for all. */
static const uint64_t caches[] = { 256U << 10, 64U << 20 };

START_TEST(threads_read_what_is_packed)
{
	open_stream(packed, packed_bytes, caches[_i]);
	unit_threads(THREADS, read_some);
	source_unref(stream);
}
END_TEST

START_TEST(threads_read_what_is_packed_twice)
{
	open_stream(twice, twice_bytes, caches[_i]);
	unit_threads(THREADS, read_some);
	source_unref(stream);
}
END_TEST

#define COPIERS	    16U
#define CHUNK_BYTES (128U << 10)

static atomic_uint next_chunk;

/* As copiers do: in their order, but many at a time. */
static void copy_some(unsigned int number)
{
	uint8_t *buf = malloc(CHUNK_BYTES);
	size_t at;

	while ((at = atomic_fetch_add(&next_chunk, 1) * CHUNK_BYTES) < PLAIN) {
		ck_assert_int_eq(
			source_read(stream, buf, CHUNK_BYTES, at, NULL), 0);
		ck_assert(!memcmp(buf, plain + at, CHUNK_BYTES));
	}
	free(buf);
}

/*
 * An xz stream of one block: whoever goes back begins anew. One who has a chunk's
 * number and does not get to run has to: hence some tries.
 */
START_TEST(what_is_copied_by_many_is_decoded_once)
{
	size_t bytes = pack_xz(twice, 2 * PLAIN, plain, PLAIN, PLAIN);
	struct fault_source *f = fault_source_new(twice, bytes);
	unsigned int depth = 0;
	uint64_t before, taken = UINT64_MAX;
	unsigned int tries;

	cache_configure(0);
	stream = &f->base;
	must(stream_peel(&stream,
			 &(struct stream_options){
				 .sure = true, .ratio_max = STREAM_RATIO_MAX },
			 &depth, &err),
	     err);
	for (tries = 0; tries < 10 && taken > 2 * bytes; tries++) {
		atomic_store(&next_chunk, 0);
		before = atomic_load(&f->bytes);
		unit_threads(COPIERS, copy_some);
		taken = atomic_load(&f->bytes) - before;
	}
	ck_assert_uint_le(taken, 2 * bytes);
	source_unref(stream);
}
END_TEST

START_TEST(an_index_is_bounded)
{
	struct stream_index x = { 0 };
	struct checkpoint ck = { 0 };
	uint64_t at;

	for (at = 0; at < 1000000; at++) {
		ck.in = at;
		ck.out = at * 70000;
		must(stream_index_add(&x, &ck, &err), err);
		ck_assert_uint_le(x.bytes, STREAM_INDEX_BYTES_MAX);
	}
	ck_assert_uint_gt(x.n, 100000);
	for (at = 0; at < ck.out; at += 12345678901) {
		size_t i = stream_index_find(&x, at);

		ck_assert_uint_le(x.list[i].out, at);
		ck_assert(i + 1 == x.n || x.list[i + 1].out > at);
	}
	/* Those that must stay are too many at last. */
	for (at = 0; at < 1000000; at++) {
		ck.state = CHECKPOINT_STAYS;
		ck.out++;
		if (stream_index_add(&x, &ck, &err) < 0)
			break;
	}
	ck_assert_int_eq(err.code, -EFBIG);
	unit_says(&err, "its index takes more than");
	stream_index_done(&x);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 120);
	LOOP(tc, threads_read_what_is_packed, caches);
	LOOP(tc, threads_read_what_is_packed_twice, caches);
	tcase_add_test(tc, what_is_copied_by_many_is_decoded_once);
	tcase_add_test(tc, an_index_is_bounded);
}

int main(void)
{
	return unit_main("decoders", add);
}
