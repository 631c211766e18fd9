/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/streams/pass.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "formats/format.h"
#include "iouring/nowait.h"
#include "iouring/util.h"

#define TAIL_BYTES 4096U /* enough for formats that are told of by theirs */
#define LOOK_NSEC  250000000LL

/* Who waits for what will come by. */
struct want {
	uint64_t off;
	size_t len;
	uint8_t *buf; /* NULL: it will be decoded when it has come by */
	bool got;
	struct want *next;
};

enum told { TOLD_NOT_YET, TOLD, TOLD_SURE, TOLD_NOTHING };

struct pass {
	struct stream *s;
	pthread_t thread;
	struct decoder *d; /* the thread's */
	struct kept_key key;
	bool keep;
	uint64_t next_nsec; /* the thread's: when it says how far it is */
	uint8_t tail[TAIL_BYTES]; /* the thread's: what came last */
	size_t tail_bytes;

	atomic_bool stop;
	/* What lies there, or behind, cannot be read; UINT64_MAX: nothing is so.
	   Falls once, when why is set. */
	atomic_uint_least64_t bad_off;
	struct error why;

	/* By s->lock: */
	pthread_cond_t moved;
	uint64_t done; /* bytes that have come by */
	bool over, failed;
	enum told told;
	struct want *wants;
};

static atomic_bool stopping;

void passes_stop(void)
{
	atomic_store(&stopping, true);
}

void passes_start(void)
{
	atomic_store(&stopping, false);
}

static bool is_bad(const struct pass *p, uint64_t off, uint64_t len)
{
	uint64_t bad = atomic_load_explicit(&p->bad_off, memory_order_acquire);

	return off >= bad || len > bad - off;
}

/* ---- the thread ---- */

static bool is_stopped(const struct pass *p)
{
	return atomic_load(&p->stop) || atomic_load(&stopping);
}

/* What has come by, to whoever waits for it. */
static void hand_out(struct pass *p, uint64_t at, const uint8_t *data, size_t n)
{
	struct want *w;

	for (w = p->wants; w; w = w->next) {
		uint64_t from = max_u64(w->off, at);
		uint64_t to = min_u64(w->off + w->len, at + n);

		if (w->buf && from < to)
			memcpy(w->buf + (from - w->off), data + (from - at),
			       (size_t)(to - from));
		w->got = w->buf && w->off + w->len <= at + n;
	}
}

static void keep_tail(struct pass *p, const uint8_t *data, size_t n)
{
	size_t more = min_size(n, TAIL_BYTES);
	size_t stay = min_size(p->tail_bytes, TAIL_BYTES - more);

	memmove(p->tail, p->tail + p->tail_bytes - stay, stay);
	memcpy(p->tail + stay, data + n - more, more);
	p->tail_bytes = stay + more;
}

static int passed(void *opaque, const struct decoder *d, const uint8_t *data,
		  size_t n)
{
	struct pass *p = opaque;
	bool waited;

	keep_tail(p, data, n);
	pthread_mutex_lock(&p->s->lock);
	hand_out(p, d->out - n, data, n);
	p->done = d->out;
	waited = p->told == TOLD_NOTHING;
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&p->s->lock);
	if (waited)
		stream_say_progress(d, &p->next_nsec);
	return is_stopped(p);
}

/* From @off on nothing can be read, for @why. */
static void set_bad(struct pass *p, uint64_t off, const struct error *why)
{
	p->why = *why;
	atomic_store_explicit(&p->bad_off, off, memory_order_release);
}

/* A disk may be told of by its end alone, whatever it begins with. */
static const char *told_by_tail(struct pass *p)
{
	CLEANUP(source_unrefp) struct source *tail = NULL;

	if (memory_source_new(p->tail, p->tail_bytes, &tail, NULL) < 0)
		return NULL;
	return format_of_tail(tail);
}

/* The stream is whole, and has p->done bytes: was it so told? */
static void compare(struct pass *p)
{
	const struct stream *s = p->s;
	uint64_t told = s->base.bytes, bytes = p->done;
	const char *other = p->told == TOLD ? told_by_tail(p) : NULL;
	struct error e = { 0 };
	char line[160];

	if (other && (bytes == told || told == STREAM_OPEN_ENDED)) {
		error_set(&e, -EIO, 0,
			  "it ends like %s and begins like something else: "
			  "give %s",
			  other, AS_GIVEN("format=", "--format"));
		set_bad(p, 0, &e);
	} else if (bytes < told) {
		error_set(&e, -EIO, bytes,
			  "%s: it unpacks to %" PRIu64 " bytes, and no more",
			  s->ops->what, bytes);
		set_bad(p, bytes, &e);
		if (told == STREAM_OPEN_ENDED)
			return;
	} else if (bytes > told) {
		snprintf(line, sizeof(line),
			 "%s: it unpacks to %" PRIu64 " bytes, of which the "
			 "first %" PRIu64 " are served, as was told",
			 s->ops->what, bytes, told);
		stream_say(s, line);
	}
	if (e.code)
		stream_say(s, e.msg);
}

/* How it has ended: @r, as stream_pass_run(). */
static void settle(struct pass *p, const struct decoder *d, int r,
		   struct error *err)
{
	if (!r && p->told != TOLD_NOTHING)
		compare(p);
	if (r > 0)
		error_set(err, -EIO, d->out,
			  "%s: it was not decoded to its end", p->s->ops->what);
	if (r) {
		set_bad(p, r > 0 || d->cut ? d->out : d->sum_from, err);
		if (r < 0 && p->told != TOLD_NOTHING)
			stream_say(p->s, err->msg);
	}
}

/* Until it is known whether anything was told. */
static void wait_until_told(struct pass *p)
{
	pthread_mutex_lock(&p->s->lock);
	while (p->told == TOLD_NOT_YET && !atomic_load(&p->stop))
		pthread_cond_wait(&p->moved, &p->s->lock);
	pthread_mutex_unlock(&p->s->lock);
}

static void *run(void *opaque)
{
	struct pass *p = opaque;
	struct stream *s = p->s;
	struct error err = { 0 };
	int r = stream_pass_run(p->d, passed, p, &err);

	/* Who looks at the head waits for this, too. */
	pthread_mutex_lock(&s->lock);
	p->over = true;
	p->failed = r;
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&s->lock);
	wait_until_told(p);
	settle(p, p->d, r, &err);
	stream_pass_give(TAKE_PTR(p->d));
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->grows, false);
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&s->lock);
	if (!r && p->keep)
		kept_save(s, &p->key, p->done);
	return NULL;
}

/* ---- opening ---- */

static void pass_free(struct pass *p)
{
	stream_pass_give(p->d);
	pthread_cond_destroy(&p->moved);
	free(p);
}

static struct pass *pass_new(struct stream *s, const struct kept_key *key)
{
	struct pass *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p)
		return NULL;
	p->s = s;
	p->keep = key;
	if (key)
		p->key = *key;
	atomic_init(&p->bad_off, UINT64_MAX);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->moved, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

int pass_begin(struct stream *s, const struct kept_key *key, struct error *err)
{
	struct pass *p = pass_new(s, key);
	int code;

	if (!p)
		return error_set(err, -ENOMEM, 0, "out of memory");
	p->d = stream_pass_decoder(s, err);
	if (!p->d) {
		pass_free(p);
		return -ENOMEM;
	}
	s->pass = p;
	atomic_store(&s->grows, true);
	code = pthread_create(&p->thread, NULL, run, p);
	if (!code)
		return 0;
	s->pass = NULL;
	atomic_store(&s->grows, false);
	pass_free(p);
	return error_set(err, -code, 0, "no thread: %s", errno_text(code));
}

static void set_told(struct pass *p, enum told told)
{
	pthread_mutex_lock(&p->s->lock);
	p->told = told;
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&p->s->lock);
}

size_t pass_head(struct stream *s)
{
	struct pass *p = s->pass;
	size_t n;

	pthread_mutex_lock(&s->lock);
	while (p->done < STREAM_HEAD_BYTES && !p->over)
		pthread_cond_wait(&p->moved, &s->lock);
	n = p->failed ? 0 : (size_t)min_u64(p->done, STREAM_HEAD_BYTES);
	pthread_mutex_unlock(&s->lock);
	return n;
}

void pass_go_on(struct stream *s, bool sure)
{
	set_told(s->pass, sure ? TOLD_SURE : TOLD);
}

int pass_finish(struct stream *s, struct error *err)
{
	struct pass *p = s->pass;
	int r = 0;

	set_told(p, TOLD_NOTHING);
	pthread_join(p->thread, NULL);
	if (p->why.code)
		r = error_set(err, p->why.code, p->why.off, "%s", p->why.msg);
	else
		s->base.bytes = p->done;
	s->pass = NULL;
	pass_free(p);
	return r;
}

void pass_end(struct stream *s)
{
	struct pass *p = s->pass;

	if (!p)
		return;
	atomic_store(&p->stop, true);
	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&s->lock);
	pthread_join(p->thread, NULL);
	s->pass = NULL;
	pass_free(p);
}

/* ---- waiting ---- */

/* By s->lock. Has [@off, @end) come by? At what was told as the end its sums, too. */
static bool has_come_by(const struct pass *p, uint64_t end)
{
	return !atomic_load(&p->s->grows) || p->done > end ||
	       (p->done == end && end < p->s->base.bytes);
}

static bool has_gone(void)
{
	return atomic_load(&stopping) || (engine_gone && engine_gone());
}

static void wait_some(struct pass *p)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_NSEC;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	wait_begins();
	pthread_cond_timedwait(&p->moved, &p->s->lock, &until);
	wait_ends();
}

static void unlink_want(struct pass *p, struct want *w)
{
	struct want **at = &p->wants;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
}

/* By s->lock, for what has not come by. 0 or -ECANCELED. */
static int wait_for(struct pass *p, struct want *w)
{
	int r = 0;

	/* Of what has come by in part nobody has kept the beginning. */
	if (w->off < p->done)
		w->buf = NULL;
	w->next = p->wants;
	p->wants = w;
	while (!r && !has_come_by(p, w->off + w->len)) {
		if (has_gone())
			r = -ECANCELED;
		else
			wait_some(p);
	}
	unlink_want(p, w);
	return r;
}

int pass_await(struct stream *s, uint64_t off, void *buf, size_t len)
{
	struct want w = { .off = off, .len = len, .buf = buf };
	struct pass *p = s->pass;
	int r = 0;

	if (!p)
		return 0;
	if (atomic_load(&s->grows)) {
		pthread_mutex_lock(&s->lock);
		if (!has_come_by(p, off + len))
			r = wait_for(p, &w);
		pthread_mutex_unlock(&s->lock);
	}
	if (is_bad(p, off, len))
		return -EIO;
	return r < 0 ? r : w.got;
}

uint64_t pass_readable(const struct stream *s)
{
	return s->pass ? min_u64(s->base.bytes,
				 atomic_load_explicit(&s->pass->bad_off,
						      memory_order_acquire))
		       : s->base.bytes;
}

int pass_look(struct stream *s, uint64_t off, uint64_t len, struct error *err)
{
	struct pass *p = s->pass;
	bool come;

	if (!p)
		return 0;
	if (is_bad(p, off, len))
		return error_set(err, -EIO, p->why.off, "%s", p->why.msg);
	if (!atomic_load(&s->grows))
		return 0;
	pthread_mutex_lock(&s->lock);
	come = has_come_by(p, off + len);
	pthread_mutex_unlock(&s->lock);
	return come ? 0 : -EAGAIN;
}
