/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest runs: threads that write 4 KiB blocks of a disk at random places,
 * past all caches, and read them back. Each block says which one it is and how
 * often it has been written; a table in memory says how often it should have been.
 * A write that is lost, comes twice, or to another place, is found by the next look
 * at its block, or at the end, when all are looked at.
 *
 *	verified-writes DISK BLOCKS <>CONSOLE
 *
 * Tells "writes N longest M" (milliseconds) ten times a second. A line of input ends
 * it: "verified N writes to M blocks", or what is wrong.
 *
 * A block: its number and how often it was written, both little-endian 64 bits, and
 * from there on one number, which mix() makes of these two.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 4096U
#define WORDS	    (BLOCK_BYTES / sizeof(uint64_t))
#define THREADS	    4U
#define FLUSH_EVERY 64U
#define TELL_MSEC   100

static int disk;
static uint64_t blocks;
static uint32_t *times; /* of each block; a thread's own are its alone */
static atomic_uint_fast64_t writes, longest_msec;
static atomic_bool ending, failed;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15U;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
	return x ^ (x >> 31);
}

static void fill(uint64_t *buf, uint64_t block, uint64_t n)
{
	uint64_t rest = mix(block << 32 | n);
	size_t i;

	buf[0] = block;
	buf[1] = n;
	for (i = 2; i < WORDS; i++)
		buf[i] = rest;
}

static bool fail(const char *what, uint64_t block)
{
	if (!atomic_exchange(&failed, true))
		printf("FAILED: %s of block %" PRIu64 ": %s\n", what, block,
		       strerror(errno));
	return false;
}

/* Is the block as it was written last? */
static bool check(uint64_t *buf, uint64_t block)
{
	uint64_t want[2] = { block, times[block] };
	uint64_t rest = mix(want[0] << 32 | want[1]);
	size_t i;

	if (pread(disk, buf, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) !=
	    BLOCK_BYTES)
		return fail("a read", block);
	for (i = 2; i < WORDS && buf[i] == rest; i++)
		;
	if (buf[0] == want[0] && buf[1] == want[1] && i == WORDS)
		return true;
	if (!atomic_exchange(&failed, true))
		printf("FAILED: block %" PRIu64 ", written %" PRIu64
		       " times, is block %" PRIu64 ", written %" PRIu64
		       " times, up to word %zu\n",
		       want[0], want[1], buf[0], buf[1], i);
	return false;
}

static uint64_t now_msec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool write_block(uint64_t *buf, uint64_t block)
{
	uint64_t began = now_msec(), took;

	fill(buf, block, times[block] + 1);
	if (pwrite(disk, buf, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) !=
	    BLOCK_BYTES)
		return fail("a write", block);
	times[block]++;
	took = now_msec() - began;
	if (took > atomic_load(&longest_msec))
		atomic_store(&longest_msec, took);
	if (atomic_fetch_add(&writes, 1) % FLUSH_EVERY == 0 && fdatasync(disk))
		return fail("a flush", block);
	return true;
}

static uint64_t *new_block(void)
{
	void *buf;

	return posix_memalign(&buf, BLOCK_BYTES, BLOCK_BYTES) ? NULL : buf;
}

static void *run(void *arg)
{
	uint64_t own = (uintptr_t)arg, seed = mix(own), block;
	uint64_t *buf = new_block();
	bool well = buf;

	while (well && !atomic_load(&ending) && !atomic_load(&failed)) {
		seed = mix(seed);
		block = seed % (blocks / THREADS) * THREADS + own;
		well = check(buf, block) && write_block(buf, block);
	}
	free(buf);
	return NULL;
}

static void tell_until_asked(void)
{
	struct pollfd p = { STDIN_FILENO, POLLIN, 0 };

	while (!atomic_load(&failed) && poll(&p, 1, TELL_MSEC) <= 0)
		printf("writes %" PRIuFAST64 " longest %" PRIuFAST64 "\n",
		       atomic_load(&writes), atomic_load(&longest_msec));
	atomic_store(&ending, true);
}

/* What is there at first was written 0 times. */
static bool check_all(void)
{
	uint64_t *buf = new_block(), i, touched = 0;
	bool well = buf && !fdatasync(disk);

	for (i = 0; i < blocks && well; i++) {
		touched += times[i] > 0;
		well = check(buf, i);
	}
	free(buf);
	if (well)
		printf("verified %" PRIuFAST64 " writes to %" PRIu64
		       " blocks\n",
		       atomic_load(&writes), touched);
	return well;
}

static bool begin(const char *path, const char *n)
{
	blocks = strtoull(n, NULL, 10) / THREADS * THREADS;
	times = calloc(blocks + 1, sizeof(*times));
	if (!times)
		return fail("the table", blocks);
	disk = open(path, O_RDWR | O_DIRECT);
	return disk >= 0 || fail("the opening", 0);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	uintptr_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3 || !begin(argv[1], argv[2]))
		return 1;
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)i))
			abort();
	tell_until_asked();
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return atomic_load(&failed) || !check_all();
}
