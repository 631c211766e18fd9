/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One batch: what is alone costs one system call and no ring, several files go
 * to the thread's ring together. For what is not a file see run_mixed().
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "iouring/engine.h"
#include "iouring/write.h"

static enum engine_mode mode = ENGINE_AUTO;
static void (*say_line)(const char *line);
static atomic_bool said;

/* Rings do not survive a fork: the child's threads make new ones. */
static atomic_uint fork_count;

struct engine_thread {
	struct ring *ring;
	int refused; /* negative errno: no ring to be had on this thread */
	unsigned int fork_count;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;

static void thread_end(void *state)
{
	struct engine_thread *t = state;

	ring_free(t->ring);
	free(t);
}

static void after_fork(void)
{
	atomic_fetch_add(&fork_count, 1);
}

static void engine_init(void)
{
	if (pthread_key_create(&thread_key, thread_end))
		abort();
	pthread_atfork(NULL, NULL, after_fork);
}

void engine_configure(enum engine_mode new_mode, void (*say)(const char *line))
{
	mode = new_mode;
	say_line = say;
	atomic_store(&said, false);
}

static void say_fallback(int code)
{
	char line[128];

	if (!say_line || atomic_exchange(&said, true))
		return;
	snprintf(line, sizeof(line),
		 "io_uring is not available (%s): using preadv and pwritev",
		 errno_text(-code));
	say_line(line);
}

/* NULL when there is no memory for it. */
static struct engine_thread *this_thread(void)
{
	static __thread struct engine_thread *cached;
	struct engine_thread *t;

	if (cached)
		return cached;
	pthread_once(&once, engine_init);
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->fork_count = atomic_load(&fork_count);
	if (pthread_setspecific(thread_key, t)) {
		free(t);
		return NULL;
	}
	cached = t;
	return t;
}

/* This thread's ring, or NULL with the reason in *ret_code. */
static struct ring *this_ring(int *ret_code)
{
	struct engine_thread *t = this_thread();

	*ret_code = -ENOMEM;
	if (!t)
		return NULL;
	if (t->fork_count != atomic_load(&fork_count)) {
		ring_free(TAKE_PTR(t->ring));
		t->fork_count = atomic_load(&fork_count);
		t->refused = 0;
	}
	if (!t->ring && !t->refused)
		t->refused = ring_new(&t->ring);
	*ret_code = t->refused;
	return t->ring;
}

int engine_probe(void)
{
	int code;

	return this_ring(&code) ? 0 : code;
}

bool engine_wants_rings(void)
{
	return mode != ENGINE_SYNC;
}

const char *engine_name(void)
{
	return mode != ENGINE_SYNC && !engine_probe() ? "io_uring" : "preadv";
}

/* Something remote of this thread's batch is in flight: it runs no other. */
static __thread bool in_flight;

static __thread unsigned int depth; /* see batch_depth() */

unsigned int batch_depth(void)
{
	return depth;
}

/* Reads a source that is not a file. */
static int pread_all(struct batch_io *io)
{
	struct source *s = io->src->root;
	uint64_t off = io->src->root_off + io->off;
	size_t done = 0;
	ssize_t n;

	while (done < io->len) {
		n = s->ops->pread(s, (uint8_t *)io->buf + done, io->len - done,
				  off + done);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static void run_sync(struct batch_io *ios, size_t n_ios)
{
	size_t i;

	for (i = 0; i < n_ios; i++)
		if (source_file(ios[i].src))
			sync_run(&ios[i], 0);
}

/*
 * One system call will do: the thread waits for it either way, and the ring
 * would cost more. Long reads through bounce buffers go out in many pieces.
 */
static bool is_one_call(const struct batch_io *io)
{
	return io->len <= BOUNCE_BYTES - DIRECT_ALIGN ||
	       !piece_needs_bounce(io, 0);
}

static void run_ring(struct batch_io *ios, size_t n_ios)
{
	struct ring *ring;
	size_t i;
	int code;

	ring = this_ring(&code);
	if (ring && !ring_run(ring, ios, n_ios))
		return;
	if (ring) {
		/* It broke, though it could be made: do without from now on. */
		struct engine_thread *t = this_thread();

		code = t->refused = -EIO;
		ring_free(TAKE_PTR(t->ring));
	}
	if (mode == ENGINE_AUTO)
		say_fallback(code);
	for (i = 0; i < n_ios; i++) {
		if (!source_file(ios[i].src) ||
		    (ring && ios[i].ret != RING_UNDONE))
			continue;
		if (mode == ENGINE_AUTO)
			sync_run(&ios[i], 0);
		else
			ios[i].ret = code;
	}
}

static void run_files(struct batch_io *ios, size_t n_ios)
{
	if (mode == ENGINE_SYNC || (n_ios == 1 && is_one_call(ios)))
		run_sync(ios, n_ios);
	else
		run_ring(ios, n_ios);
}

static bool is_remote(const struct batch_io *io)
{
	return io->src->root->ops->start;
}

static bool is_nested(const struct batch_io *io)
{
	return io->src->root->ops->nested;
}

/* Is @ios[@i] the first of its source? */
static bool is_first(const struct batch_io *ios, size_t i)
{
	size_t j;

	for (j = 0; j < i; j++)
		if (ios[j].src->root == ios[i].src->root)
			return false;
	return true;
}

/* False: there is nothing remote. */
static bool start_remote(struct batch_io *ios, size_t n_ios)
{
	bool any = false;
	size_t i;

	for (i = 0; i < n_ios; i++) {
		if (!is_remote(&ios[i]))
			continue;
		ios[i].ret = BATCH_NOT_STARTED;
		ios[i].token = NULL;
		any = true;
	}
	for (i = 0; any && i < n_ios; i++) {
		struct source *s = ios[i].src->root;

		if (s->ops->start && is_first(ios, i))
			s->ops->start(s, ios, n_ios, false);
	}
	return any;
}

static void finish_remote(struct batch_io *ios, size_t n_ios)
{
	size_t i;

	for (i = 0; i < n_ios; i++) {
		struct source *s = ios[i].src->root;

		if (s->ops->start && is_first(ios, i))
			s->ops->finish(s, ios, n_ios);
	}
}

/* What could not be started yet: one source at a time, which may wait. */
static void run_late(struct batch_io *ios, size_t n_ios)
{
	size_t i;

	for (i = 0; i < n_ios; i++) {
		struct source *s = ios[i].src->root;

		if (ios[i].ret != BATCH_NOT_STARTED)
			continue;
		in_flight = true;
		s->ops->start(s, &ios[i], n_ios - i, true);
		s->ops->finish(s, &ios[i], n_ios - i);
		in_flight = false;
		assert(ios[i].ret != BATCH_NOT_STARTED);
		if (ios[i].ret == BATCH_NOT_STARTED)
			ios[i].ret = -EIO; /* a source that is wrong */
	}
}

static void run_one(struct batch_io *ios, size_t n_ios, size_t i)
{
	struct source *s = ios[i].src->root;

	if (!s->ops->read_all)
		ios[i].ret = pread_all(&ios[i]);
	else if (is_first(ios, i))
		s->ops->read_all(s, ios, n_ios);
}

static void run_pread(struct batch_io *ios, size_t n_ios, bool nested)
{
	size_t i;

	depth += nested;
	for (i = 0; i < n_ios; i++)
		if (!source_file(ios[i].src) && !is_remote(&ios[i]) &&
		    is_nested(&ios[i]) == nested)
			run_one(ios, n_ios, i);
	depth -= nested;
}

/*
 * No source waits for another here: start() does not wait, so the first half
 * holds connections of several sources and never asks for one more; the second
 * half has given all back, and asks for one source's at a time. Nested sources
 * run batches of their own, so nothing is in flight then: batch_run() asserts
 * it.
 */
static void run_mixed(struct batch_io *ios, size_t n_ios, size_t n_files)
{
	wait_begins();
	in_flight = start_remote(ios, n_ios);
	if (n_files)
		run_files(ios, n_ios);
	run_pread(ios, n_ios, false);
	if (in_flight) {
		finish_remote(ios, n_ios);
		in_flight = false;
		run_late(ios, n_ios);
	}
	run_pread(ios, n_ios, true);
	wait_ends();
}

/* Writes that tests watch or that O_DIRECT does not take as they are. */
static bool goes_alone(const struct batch_io *io)
{
	return io->op == BATCH_WRITE &&
	       (!source_is_writable(io->src) || write_watched() ||
		file_write_is_unaligned(io));
}

static void run_alone(struct batch_io *io)
{
	struct write_event e = { .op = WRITE_DATA,
				 .src = io->src,
				 .off = io->off,
				 .len = io->len,
				 .buf = io->buf };

	if (!goes_alone(io)) {
		source_file(io->src) ? run_files(io, 1) : run_mixed(io, 1, 0);
		return;
	}
	io->ret = source_is_writable(io->src) ? write_before(&e) : -EROFS;
	if (!io->ret && file_write_is_unaligned(io))
		io->ret = file_write_unaligned(io);
	else if (!io->ret)
		run_files(io, 1);
	write_after(&e, io->ret);
}

int batch_run(struct batch_io *ios, size_t n_ios)
{
	size_t i, n_files = 0, n_alone = 0;

	assert(!in_flight);
	if (!may_wait())
		return nowait_run(ios, n_ios);
	for (i = 0; i < n_ios; i++) {
		ios[i].ret = 0;
		n_files += source_file(ios[i].src) != NULL;
		n_alone += goes_alone(&ios[i]);
	}
	for (i = 0; n_alone && i < n_ios; i++)
		run_alone(&ios[i]);
	if (!n_alone && n_files && n_files == n_ios)
		run_files(ios, n_ios);
	else if (!n_alone)
		run_mixed(ios, n_ios, n_files);
	for (i = 0; i < n_ios; i++)
		if (ios[i].ret < 0)
			return ios[i].ret;
	return 0;
}
