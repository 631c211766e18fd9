/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Decoders of all streams: who takes which, and what they do for him.
 *
 * Who wants a range takes the decoder that has the least to pass by: an idle one
 * that stands before it, or a fresh one from the last checkpoint. One at work that
 * is about to arrive there is waited for. What all take of memory is bounded, for
 * each level of streams in streams apart: whoever holds a decoder asks for those
 * of deeper streams alone, of which he who holds one never asks for ours. So no
 * circle can close. Decoders are held by who has claimed pieces of the cache, and
 * who has one never waits for a piece.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/streams/stream.h"
#include "iouring/nowait.h"
#include "iouring/util.h"

#define IDLE_OF_A_STREAM 8U
#define PASSED_KEPT	 32U /* pieces, before the one that is wanted */
#define PASS_BYTES	 (256U << 10)
#define TELL_AFTER_NSEC	 3000000000ULL
#define TELL_NSEC	 5000000000ULL
#define OVERHEAD_BYTES	 (STREAM_IN_BYTES + STREAM_PIECE_BYTES)

/* Who waits for a decoder that is to arrive before @off, at @from or behind. */
struct waiter {
	const struct stream *s;
	uint64_t off, from;
	struct waiter *next;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t given;
	struct decoder *newest; /* all that there are */
	struct waiter *waiters;
	uint64_t bytes[STREAM_DEPTH_MAX + 1]; /* of each level's */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .given = PTHREAD_COND_INITIALIZER };

static void (*say_line)(const char *line);

void streams_configure(void (*say)(const char *line))
{
	say_line = say;
}

void stream_say(const struct stream *s, const char *what)
{
	char line[ERROR_MSG_BYTES + 512];

	if (!say_line)
		return;
	snprintf(line, sizeof(line), "%s%s%s", s->path ? s->path : "",
		 s->path ? ": " : "", what);
	say_line(line);
}

static uint64_t level_bytes(const struct stream *s)
{
	return s->level ? STREAM_INNER_MAX : STREAM_DECODER_MAX;
}

int stream_check_memory(const struct stream *s, uint64_t bytes,
			const char *what, struct error *err)
{
	uint64_t max = level_bytes(s) - OVERHEAD_BYTES;

	return bytes <= max
		       ? 0
		       : error_set(err, -EFBIG, 0,
				   "%s: its decoder wants %" PRIu64
				   " bytes of memory, the limit%s is "
				   "%" PRIu64,
				   what, bytes,
				   s->level ? " in another stream" : "", max);
}

/* ---- one ---- */

static void list_remove(struct decoder *d)
{
	struct decoder **p = &pool.newest;

	while (*p != d)
		p = &(*p)->older;
	*p = d->older;
}

static void list_push(struct decoder *d)
{
	d->older = pool.newest;
	pool.newest = d;
}

/* It is in no list. */
static void decoder_free(struct decoder *d)
{
	if (d->s->ops->stop)
		d->s->ops->stop(d);
	stream_in_done(&d->in);
	free(d->piece);
	free(d);
}

static struct decoder *decoder_new(struct stream *s)
{
	struct decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->s = s;
	d->in.src = s->src;
	d->in.end = s->src->bytes;
	return d;
}

/* ---- all ---- */

/* The oldest idle one of @s, or of the level of @s; NULL: none. */
static struct decoder *oldest_idle(const struct stream *s, bool of_stream,
				   unsigned int *ret_n)
{
	struct decoder *d, *found = NULL;

	*ret_n = 0;
	for (d = pool.newest; d; d = d->older) {
		if (d->busy || d->s->level != s->level ||
		    (of_stream && d->s != s))
			continue;
		found = d;
		++*ret_n;
	}
	return found;
}

/* The one of @s, idle or not, that stands last before @off, or will. */
static struct decoder *nearest(const struct stream *s, uint64_t off)
{
	struct decoder *d, *best = NULL;

	for (d = pool.newest; d; d = d->older)
		if (d->s == s && d->goal <= off &&
		    (!best || d->goal > best->goal))
			best = d;
	return best;
}

/* Of those that make indexes, of the level of @s. */
static uint64_t noting_bytes(const struct stream *s)
{
	const struct decoder *d;
	uint64_t bytes = 0;

	for (d = pool.newest; d; d = d->older)
		if (d->noting && d->s->level == s->level)
			bytes += d->bytes;
	return bytes;
}

/* Makes way for one of @s. True: there may be room now. */
static bool evict(struct stream *s)
{
	unsigned int n;
	struct decoder *d = oldest_idle(s, false, &n);

	if (!d)
		return false;
	list_remove(d);
	/* Nobody else can free what it takes. */
	pool.bytes[s->level] -= d->bytes;
	decoder_free(d);
	return true;
}

/* A fresh one, or one that is to begin anew. @more: bytes that it takes besides.
 * NULL: there is no memory. */
static struct decoder *take_fresh(struct stream *s, uint64_t more)
{
	unsigned int n;
	struct decoder *d = oldest_idle(s, true, &n);
	uint64_t bytes = s->decoder_bytes + OVERHEAD_BYTES + more;

	if (d && !more && n >= IDLE_OF_A_STREAM)
		return d;
	while (pool.bytes[s->level] + bytes > level_bytes(s))
		if (!evict(s))
			wait_on(&pool.given, &pool.lock);
	d = decoder_new(s);
	if (d) {
		d->bytes = bytes;
		pool.bytes[s->level] += d->bytes;
		list_push(d);
	}
	return d;
}

/* Does somebody wait for @d who wants what it would pass by for @off? He comes first:
 * else it would be decoded again for him, from where decoding can begin. */
static bool is_anothers(const struct decoder *d, uint64_t off)
{
	const struct waiter *w;

	for (w = pool.waiters; w; w = w->next)
		if (w->s == d->s && w->off < off && w->off >= d->goal &&
		    w->from <= d->goal)
			return true;
	return false;
}

static void remove_waiter(struct waiter *w)
{
	struct waiter **at = &pool.waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
}

/* The nearest, when nobody has it; NULL, or one that stands before @from: there is
 * none that is worthwhile to wait for. */
static struct decoder *wait_for_nearest(const struct stream *s, uint64_t off,
					uint64_t from)
{
	struct waiter w = { s, off, from, pool.waiters };
	struct decoder *d;

	pool.waiters = &w;
	while ((d = nearest(s, off)) && d->goal >= from &&
	       (d->busy || is_anothers(d, off)))
		wait_on(&pool.given, &pool.lock);
	remove_waiter(&w);
	/* Whoever let us go first looks again. */
	if (pool.waiters)
		pthread_cond_broadcast(&pool.given);
	return d;
}

/* For a range up to @end; *ret_fresh: it is to be started at @from. */
static struct decoder *take(struct stream *s, uint64_t off, uint64_t end,
			    uint64_t from, bool *ret_fresh)
{
	struct decoder *d;

	pthread_mutex_lock(&pool.lock);
	d = wait_for_nearest(s, off, from);
	*ret_fresh = !d || d->goal < from;
	if (*ret_fresh)
		d = take_fresh(s, 0);
	if (d) {
		d->busy = true;
		d->goal = end;
	}
	pthread_mutex_unlock(&pool.lock);
	return d;
}

static void give(struct decoder *d, bool failed)
{
	pthread_mutex_lock(&pool.lock);
	list_remove(d);
	d->busy = false;
	d->goal = d->out;
	if (failed)
		pool.bytes[d->s->level] -= d->bytes;
	else
		list_push(d);
	pthread_cond_broadcast(&pool.given);
	pthread_mutex_unlock(&pool.lock);
	if (failed)
		decoder_free(d);
}

static void forget(const struct stream *s)
{
	struct decoder *d, *older;

	pthread_mutex_lock(&pool.lock);
	for (d = pool.newest; d; d = older) {
		older = d->older;
		if (d->busy || (s && d->s != s))
			continue;
		list_remove(d);
		pool.bytes[d->s->level] -= d->bytes;
		decoder_free(d);
	}
	pthread_cond_broadcast(&pool.given);
	pthread_mutex_unlock(&pool.lock);
}

void stream_forget(struct stream *s)
{
	forget(s);
}

/* ---- decoding ---- */

int decoder_damaged(const struct decoder *d, const char *what,
		    struct error *err)
{
	return error_set(err, -EBADMSG, d->in.off,
			 "%s: near byte %" PRIu64 ": %s", d->s->ops->what,
			 d->in.off, what);
}

int decoder_cut(struct decoder *d, struct error *err)
{
	d->cut = true;
	return decoder_damaged(d, "it ends early", err);
}

int stream_check_bytes(uint64_t bytes, struct error *err)
{
	return bytes <= STREAM_BYTES_MAX
		       ? 0
		       : error_set(err, -EFBIG, 0,
				   "unpacked it has over %" PRIu64
				   " bytes, which is the limit",
				   (uint64_t)STREAM_BYTES_MAX);
}

int decoder_note(struct decoder *d, const struct checkpoint *ck,
		 struct error *err)
{
	int r;

	pthread_mutex_lock(&d->s->lock);
	r = stream_index_add(&d->s->index, ck, err);
	pthread_mutex_unlock(&d->s->lock);
	return r;
}

int decoder_pass(struct decoder *d, uint64_t in, uint32_t state,
		 struct error *err)
{
	struct stream_index *x = &d->s->index;
	struct checkpoint ck = { .in = in, .out = d->out, .state = state };

	/* What begins there with nothing known of what was before has sums of its
	   own. */
	if (!state)
		d->sum_from = d->out;
	if (d->noting)
		return x->n && !(state & CHECKPOINT_STAYS) &&
				       d->out - x->list[x->n - 1].out <
					       d->s->piece_bytes / 2
			       ? 0
			       : decoder_note(d, &ck, err);
	for (; d->next < x->n && x->list[d->next].out <= d->out; d->next++)
		if (x->list[d->next].out < d->out)
			return decoder_damaged(
				d, "its index tells of another place", err);
	return 0;
}

static int step(struct decoder *d, uint8_t *out, size_t len, struct error *err)
{
	size_t n;
	int r;

	while (len) {
		r = d->s->ops->step(d, out, len, &n, err);
		if (r >= 0 && !n)
			r = decoder_damaged(d, "it ends early", err);
		if (r < 0)
			return r;
		d->out += n;
		out += n;
		len -= n;
	}
	return 0;
}

/* One of the pieces before that which is wanted: nobody has it, so it is kept. */
static int pass_piece(struct decoder *d, size_t len, struct error *err)
{
	struct cache_key key = { .owner = d->s->base.id,
				 .at = d->out / d->s->piece_bytes };
	struct cache_blob *b;
	uint8_t *block;
	int r;

	if (cache_get(&key, &b) != CACHE_CLAIMED) {
		cache_put(b);
		return step(d, d->piece, len, err);
	}
	block = cache_block(len);
	r = step(d, block ? block : d->piece, len, err);
	if (r >= 0 && block) {
		cache_fill_block(b, block, len);
	} else {
		cache_block_free(block, len);
		cache_fail(b, r < 0 ? r : -EAGAIN);
	}
	cache_put(b);
	return r;
}

/* Up to @off. */
static int pass_by(struct decoder *d, uint64_t off, struct error *err)
{
	uint32_t piece = d->s->piece_bytes;
	size_t n;
	int r = 0;

	if (d->out < off && !d->piece) {
		d->piece = malloc(piece);
		if (!d->piece)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	while (r >= 0 && d->out < off) {
		n = (size_t)min_u64(off - d->out, piece - d->out % piece);
		r = n == piece && off - d->out <= PASSED_KEPT * (uint64_t)piece
			    ? pass_piece(d, n, err)
			    : step(d, d->piece, n, err);
	}
	return r;
}

/* Where to begin for @off; its window is not there. */
static int find(struct stream *s, uint64_t off, struct checkpoint *ret,
		struct error *err)
{
	if (s->ops->find)
		return s->ops->find(s, off, ret, err);
	pthread_mutex_lock(&s->lock);
	*ret = s->index.list[stream_index_find(&s->index, off)];
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/*
 * The same of an index that grows, with a copy of the window, which may go away.
 * Which places will be behind it is not known: none is compared.
 */
static int find_growing(struct stream *s, uint64_t off, struct checkpoint *ret,
			size_t *ret_next, uint8_t **ret_window,
			struct error *err)
{
	const struct checkpoint *ck;
	int r = 0;

	*ret_next = SIZE_MAX;
	pthread_mutex_lock(&s->lock);
	ck = &s->index.list[stream_index_find(&s->index, off)];
	*ret = *ck;
	if (ck->window) {
		ret->window = *ret_window = malloc(ck->window_bytes);
		if (ret->window)
			memcpy(ret->window, ck->window, ck->window_bytes);
		else
			r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* With its window, too, *ret_window if it is to be freed. */
static int find_whole(struct stream *s, uint64_t off, struct checkpoint *ret,
		      size_t *ret_next, uint8_t **ret_window, struct error *err)
{
	struct stream_index *x = &s->index;
	size_t i;

	*ret_next = 0;
	if (s->ops->find)
		return s->ops->find(s, off, ret, err);
	if (atomic_load(&s->grows))
		return find_growing(s, off, ret, ret_next, ret_window, err);
	i = stream_index_find(x, off);
	if (x->kept && x->list[i].window_bytes) {
		*ret_window = stream_index_window(x, &x->list[i]);
		/* From the beginning all can be decoded, if slowly. */
		if (!*ret_window)
			i = 0;
	}
	*ret = x->list[i];
	if (*ret_window)
		ret->window = *ret_window;
	*ret_next = i + 1;
	return 0;
}

static int start(struct decoder *d, const struct checkpoint *from, size_t next,
		 struct error *err)
{
	d->out = from->out;
	d->next = next;
	return d->s->ops->start(d, from, err);
}

/* At the size that it told: it must end there, and its sums be right. What another
 * has told of it is compared by its pass. */
static int check_end(struct decoder *d, struct error *err)
{
	uint8_t more;
	size_t n;
	int r;

	if (d->out < d->s->base.bytes || d->s->pass)
		return 0;
	r = d->s->ops->step(d, &more, sizeof(more), &n, err);
	return r < 0 || !n
		       ? r
		       : decoder_damaged(d, "it is longer than it tells", err);
}

int stream_decode(struct stream *s, uint64_t off, uint8_t *out, size_t len,
		  struct error *err)
{
	CLEANUP(freep) uint8_t *window = NULL;
	struct checkpoint from;
	struct decoder *d;
	size_t next = 0;
	bool fresh;
	int r = find(s, off, &from, err);

	if (r < 0)
		return r;
	d = take(s, off, off + len, from.out, &fresh);
	if (!d)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (fresh)
		r = find_whole(s, off, &from, &next, &window, err);
	if (fresh && r >= 0)
		r = start(d, &from, next, err);
	if (r >= 0)
		r = pass_by(d, off, err);
	if (r >= 0)
		r = step(d, out, len, err);
	if (r >= 0)
		r = check_end(d, err);
	give(d, r < 0);
	return r;
}

static int check_growth(const struct decoder *d, struct error *err)
{
	int r = stream_check_bytes(d->out, err);

	if (r < 0 || d->out < STREAM_RATIO_FREE_BYTES ||
	    (d->out - STREAM_RATIO_FREE_BYTES) / d->s->ratio_max <= d->in.off)
		return r;
	return error_set(
		err, -EFBIG, d->in.off,
		"%s: %" PRIu64 " bytes of it unpack to over %llu and "
		"%u times as many, which is the limit: unpack it first",
		d->s->ops->what, d->in.off,
		(unsigned long long)STREAM_RATIO_FREE_BYTES, d->s->ratio_max);
}

/* Who waits for it wants to know for how long. */
void stream_say_progress(const struct decoder *d, uint64_t *next)
{
	uint64_t now = now_nsec();
	char line[160];

	if (!*next)
		*next = now + TELL_AFTER_NSEC;
	if (now < *next)
		return;
	*next = now + TELL_NSEC;
	snprintf(line, sizeof(line),
		 "%s of %" PRIu64 " MiB is decoded once, to be known: %u %%",
		 d->s->ops->what, d->in.end >> 20,
		 (unsigned int)(d->in.off * 100 / d->in.end));
	stream_say(d->s, line);
}

int stream_pass_run(struct decoder *d,
		    int (*passed)(void *opaque, const struct decoder *d,
				  const uint8_t *data, size_t n),
		    void *opaque, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(PASS_BYTES);
	static const struct checkpoint begin;
	const struct stream_index *x = &d->s->index;
	size_t n = 1;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	d->whole = true;
	r = start(d, x->n ? x->list : &begin, 0, err);
	while (!r && n) {
		r = d->s->ops->step(d, buf, PASS_BYTES, &n, err);
		d->out += r < 0 ? 0 : n;
		if (r >= 0)
			r = check_growth(d, err);
		if (r >= 0)
			r = passed(opaque, d, buf, n);
	}
	return r;
}

/* @noting: it makes the index. */
static struct decoder *take_for_pass(struct stream *s, bool noting,
				     struct error *err)
{
	uint64_t bytes = s->decoder_bytes + OVERHEAD_BYTES + s->pass_bytes;
	uint64_t others;
	struct decoder *d;

	pthread_mutex_lock(&pool.lock);
	/* They are long at it: who reads has half of what there is. */
	while (noting && (others = noting_bytes(s)) &&
	       others + bytes > level_bytes(s) / 2)
		wait_on(&pool.given, &pool.lock);
	d = take_fresh(s, s->pass_bytes);
	if (d) {
		d->busy = true;
		d->noting = noting;
		d->goal = UINT64_MAX; /* it goes by wherever anybody waits */
	}
	pthread_mutex_unlock(&pool.lock);
	if (!d)
		error_set(err, -ENOMEM, 0, "out of memory");
	return d;
}

struct decoder *stream_pass_decoder(struct stream *s, struct error *err)
{
	return take_for_pass(s, true, err);
}

void stream_pass_give(struct decoder *d)
{
	if (d)
		give(d, true);
}

struct walk {
	int (*passed)(void *opaque, uint64_t done);
	void *opaque;
};

static int tell_walk(void *opaque, const struct decoder *d, const uint8_t *data,
		     size_t n)
{
	const struct walk *w = opaque;

	return w->passed(w->opaque, d->out);
}

int stream_walk(struct stream *s, int (*passed)(void *opaque, uint64_t done),
		void *opaque, struct error *err)
{
	struct decoder *d = take_for_pass(s, false, err);
	struct walk w = { passed, opaque };
	int r;

	if (!d)
		return -ENOMEM;
	r = stream_pass_run(d, tell_walk, &w, err);
	if (!r && d->out != s->base.bytes)
		r = error_set(err, -EBADMSG, d->out,
			      "%s: it has another size than it had",
			      s->ops->what);
	give(d, true);
	return r;
}
