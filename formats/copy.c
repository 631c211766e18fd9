/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "formats/copy.h"
#include "iouring/batch.h"

#define PROGRESS_NSEC  100000000L
#define WINDOW_EXTENTS 128U
#define RAW_UNIT_BYTES 4096U
#define RAW_RUNS       64U /* written together */

struct copy {
	struct image *img;
	const struct difference *changes; /* that alone are copied; NULL: all */
	struct copy_sink *sink;

	pthread_mutex_t claim_lock; /* the next five */
	struct extent extents[WINDOW_EXTENTS];
	size_t i, n; /* extents[i] begins at or before next */
	uint64_t extent_off; /* where it begins */
	uint64_t next; /* what lies before is claimed, or zero */
	uint64_t claims;

	pthread_mutex_t lock; /* the rest */
	pthread_cond_t turned; /* placed, or stopping */
	pthread_cond_t ended; /* running has sunk */
	uint64_t placed; /* claims */
	uint64_t done; /* bytes of the disk */
	unsigned int running;
	int code; /* of the first failure; stops everybody */
	struct error err;
};

static int collect(void *opaque, uint64_t off, const struct extent *e)
{
	struct copy *c = opaque;

	c->extents[c->n++] = *e;
	return c->n == WINDOW_EXTENTS;
}

/* What has not changed is passed by like a hole; what is zero now is not. */
static int collect_change(void *opaque, uint64_t off, uint64_t len,
			  enum change change)
{
	struct extent e = { .kind = change == CHANGE_NONE ? EXTENT_HOLE
							  : EXTENT_DATA,
			    .len = len };

	return collect(opaque, off, &e);
}

/* Makes extents[i] the one that @off is in. */
static int seek_extent(struct copy *c, uint64_t off, struct error *err)
{
	uint64_t end;
	int r;

	while (c->i < c->n && c->extent_off + c->extents[c->i].len <= off)
		c->extent_off += c->extents[c->i++].len;
	if (c->i < c->n)
		return 0;
	c->i = c->n = 0;
	c->extent_off = off;
	r = c->changes ? difference_walk(c->changes, off, c->img->bytes - off,
					 collect_change, c, &end, err)
		       : image_walk(c->img, off, c->img->bytes - off, collect,
				    c, &end, err);
	return r < 0 ? r : 0;
}

static bool is_zero(const struct extent *e)
{
	return e->kind == EXTENT_ZERO || e->kind == EXTENT_HOLE;
}

/*
 * The next chunk: from the unit in which data begin, as far as data go, small
 * holes in them included. Returns 1, or 0 at the end of the disk.
 */
static int claim_locked(struct copy *c, struct copy_chunk *ret,
			uint64_t *ret_number, struct error *err)
{
	uint64_t unit = c->sink->unit_bytes, off = c->next, limit, end;
	int r;

	for (;;) {
		if (off >= c->img->bytes) {
			c->next = off;
			return 0;
		}
		r = seek_extent(c, off, err);
		if (r < 0)
			return r;
		/* Zeroes behind the last chunk have been passed already. */
		off = max_u64(off, c->extent_off);
		if (!is_zero(&c->extents[c->i]))
			break;
		off = c->extent_off + c->extents[c->i].len;
	}
	/* Units before next are all claimed, so this is not behind it. */
	off = round_down(off, unit);
	limit = min_u64(off + COPY_CHUNK_BYTES, c->img->bytes);
	end = off;
	while (c->i < c->n && c->extent_off < limit) {
		uint64_t extent_end = c->extent_off + c->extents[c->i].len;

		if (!is_zero(&c->extents[c->i]))
			end = min_u64(extent_end, limit);
		if (extent_end > limit)
			break;
		c->extent_off = extent_end;
		c->i++;
	}
	c->next = min_u64(round_up(end, unit), c->img->bytes);
	ret->off = off;
	ret->len = (size_t)(c->next - off);
	*ret_number = c->claims++;
	return 1;
}

static int claim(struct copy *c, struct copy_chunk *ret, uint64_t *ret_number,
		 struct error *err)
{
	int r;

	pthread_mutex_lock(&c->claim_lock);
	r = claim_locked(c, ret, ret_number, err);
	pthread_mutex_unlock(&c->claim_lock);
	return r;
}

static int sink_failed(struct copy *c, int code, struct error *err)
{
	if (c->sink->name)
		error_prefix(err, "%s", c->sink->name);
	return code;
}

/* Places the chunk when all before it are. */
static int take_turn(struct copy *c, struct copy_chunk *chunk, uint64_t number,
		     struct error *err)
{
	int r;

	pthread_mutex_lock(&c->lock);
	while (c->placed != number && !c->code)
		pthread_cond_wait(&c->turned, &c->lock);
	r = c->code;
	pthread_mutex_unlock(&c->lock);
	if (r)
		return error_set(err, r, 0, "stopped");
	/* Nobody else's turn comes before placed has risen. */
	if (c->sink->place)
		r = c->sink->place(c->sink, chunk, err);
	if (r < 0)
		return sink_failed(c, r, err);
	pthread_mutex_lock(&c->lock);
	c->placed++;
	c->done = chunk->off + chunk->len;
	pthread_cond_broadcast(&c->turned);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static int copy_chunk(struct copy *c, struct copy_chunk *chunk, uint64_t number,
		      struct error *err)
{
	size_t whole = (size_t)round_up(chunk->len, c->sink->unit_bytes);
	int r;

	memset(chunk->buf + chunk->len, 0, whole - chunk->len);
	r = image_read(c->img, chunk->buf, chunk->len, chunk->off, err);
	if (r >= 0 && c->sink->prepare)
		r = c->sink->prepare(c->sink, chunk, err);
	if (r >= 0)
		r = take_turn(c, chunk, number, err);
	if (r < 0)
		return r;
	r = c->sink->write(c->sink, chunk, err);
	return r < 0 ? sink_failed(c, r, err) : 0;
}

static int copy_some(struct copy *c, struct error *err)
{
	struct copy_chunk chunk = { .buf = malloc(COPY_CHUNK_BYTES) };
	uint64_t number;
	int r = 0, more = 1;

	if (!chunk.buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (c->sink->thread_new)
		r = c->sink->thread_new(c->sink, &chunk.thread, err);
	while (r >= 0 && more) {
		more = r = claim(c, &chunk, &number, err);
		if (r > 0)
			r = copy_chunk(c, &chunk, number, err);
	}
	if (c->sink->thread_free)
		c->sink->thread_free(chunk.thread);
	free(chunk.buf);
	return r;
}

static void stop(struct copy *c, int code, const struct error *err)
{
	pthread_mutex_lock(&c->lock);
	if (!c->code) {
		c->code = code;
		if (err)
			c->err = *err;
	}
	pthread_cond_broadcast(&c->turned);
	pthread_mutex_unlock(&c->lock);
}

static void *run_thread(void *opaque)
{
	struct copy *c = opaque;
	struct error err = { 0 };
	int r = copy_some(c, &err);

	if (r < 0)
		stop(c, r, &err);
	pthread_mutex_lock(&c->lock);
	c->running--;
	pthread_cond_signal(&c->ended);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Tells how far it is until all threads have ended. Returns progress's word. */
static int watch(struct copy *c,
		 int (*progress)(void *opaque, uint64_t done_bytes),
		 void *opaque)
{
	int said = 0;

	pthread_mutex_lock(&c->lock);
	while (c->running) {
		uint64_t at = now_nsec() + PROGRESS_NSEC, done = c->done;
		struct timespec until = { .tv_sec = (time_t)(at / 1000000000),
					  .tv_nsec = (long)(at % 1000000000) };

		pthread_mutex_unlock(&c->lock);
		if (!said)
			said = progress(opaque, done);
		if (said)
			stop(c, -ECANCELED, NULL);
		pthread_mutex_lock(&c->lock);
		while (c->running &&
		       pthread_cond_timedwait(&c->ended, &c->lock, &until) !=
			       ETIMEDOUT)
			;
	}
	pthread_mutex_unlock(&c->lock);
	return said;
}

static void copy_init(struct copy *c)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&c->claim_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->turned, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->ended, &attr);
	pthread_condattr_destroy(&attr);
}

static void copy_done(struct copy *c)
{
	pthread_mutex_destroy(&c->claim_lock);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->turned);
	pthread_cond_destroy(&c->ended);
}

/* Those that can be started; one must. */
static unsigned int start_threads(struct copy *c, pthread_t *ids,
				  unsigned int threads, struct error *err)
{
	unsigned int n;
	int code = 0;

	for (n = 0; n < threads && n < COPY_THREADS_MAX; n++) {
		pthread_mutex_lock(&c->lock);
		c->running++;
		pthread_mutex_unlock(&c->lock);
		code = pthread_create(&ids[n], NULL, run_thread, c);
		if (!code)
			continue;
		pthread_mutex_lock(&c->lock);
		c->running--;
		pthread_mutex_unlock(&c->lock);
		break;
	}
	if (!n)
		error_set(err, -code, 0, "no thread can be started: %s",
			  errno_text(code));
	return n;
}

static int run_copy(struct copy *c, unsigned int threads,
		    int (*progress)(void *opaque, uint64_t done_bytes),
		    void *opaque, struct error *err)
{
	pthread_t ids[COPY_THREADS_MAX];
	unsigned int n, i;
	int r;

	copy_init(c);
	n = start_threads(c, ids, threads, err);
	r = n ? watch(c, progress, opaque) : -EAGAIN;
	for (i = 0; i < n; i++)
		pthread_join(ids[i], NULL);
	if (!r && c->code)
		r = error_set(err, c->code, c->err.off, "%s", c->err.msg);
	copy_done(c);
	return r;
}

int copy_image(struct image *img, struct copy_sink *s, unsigned int threads,
	       int (*progress)(void *opaque, uint64_t done_bytes), void *opaque,
	       struct error *err)
{
	struct copy c = { .img = img, .sink = s };

	return run_copy(&c, threads, progress, opaque, err);
}

int copy_difference(const struct difference *d, struct copy_sink *s,
		    unsigned int threads,
		    int (*progress)(void *opaque, uint64_t done_bytes),
		    void *opaque, struct error *err)
{
	struct copy c = { .img = d->to, .changes = d, .sink = s };

	return run_copy(&c, threads, progress, opaque, err);
}

size_t copy_chunk_run(const struct copy_chunk *c, size_t at, size_t piece,
		      bool *ret_zero)
{
	size_t len = min_size(piece, c->len - at), run = 0;
	bool zero = is_all_zero(c->buf + at, len);

	do {
		run += len;
		len = min_size(piece, c->len - at - run);
	} while (len && is_all_zero(c->buf + at + run, len) == zero);
	*ret_zero = zero;
	return run;
}

static int run_batch(struct batch_io *ios, size_t n, struct error *err)
{
	int r = n ? batch_run(ios, n) : 0;

	return r < 0 ? error_set(err, r, 0, "cannot be written: %s",
				 errno_text(-r))
		     : 0;
}

static int raw_write(struct copy_sink *s, struct copy_chunk *c,
		     struct error *err)
{
	struct raw_sink *raw = container_of(s, struct raw_sink, sink);
	struct batch_io ios[RAW_RUNS];
	size_t at, len, n = 0;
	bool zero;
	int r = 0;

	for (at = 0; at < c->len && r >= 0; at += len) {
		len = copy_chunk_run(c, at, RAW_UNIT_BYTES, &zero);
		if (zero)
			continue;
		ios[n++] = (struct batch_io){ .src = raw->dst,
					      .off = c->off + at,
					      .buf = c->buf + at,
					      .len = len,
					      .op = BATCH_WRITE };
		if (n < RAW_RUNS)
			continue;
		r = run_batch(ios, n, err);
		n = 0;
	}
	return r < 0 ? r : run_batch(ios, n, err);
}

void raw_sink_init(struct raw_sink *s, struct source *dst)
{
	*s = (struct raw_sink){
		.sink = { .unit_bytes = RAW_UNIT_BYTES, .write = raw_write },
		.dst = dst,
	};
}
