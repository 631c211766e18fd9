/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that fetch what nobody waits for: what a reader will want next, and,
 * where that is asked for, all of what is open. The first goes before the second,
 * and who waits goes before both: while somebody does, and shortly after, one
 * small piece at a time is filled, or none. Nobody's connection is taken, as a
 * round of the fillers needs fewer than an object may have; and what is under way
 * is as much as the link brings in ROUND_NSEC, so that who comes has to wait for
 * no more than that.
 *
 * A source is held while something is fetched for it, so that the last one to
 * let go of it may be one of these threads.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "iouring/sources/disk-cache-inside.h"
#include "iouring/sources/http-engine.h"

#define WORKERS	     4U
#define FILLERS_MAX  2U
#define AHEADS_MAX   64U
#define AHEAD_CHUNKS 32U /* of one worker at a time */
#define ROUND_CHUNKS 24U /* 6 requests of 16, of a filler */
#define MSEC	     1000000ULL
#define ROUND_NSEC   (150 * MSEC)
#define YIELD_NSEC   (100 * MSEC) /* after who waited */
#define IDLE_NSEC    (1000 * MSEC)
#define AGAIN_NSEC   (1000 * MSEC) /* after a failure, then twice that ... */
#define AGAIN_MAX    6U
#define WAIT_NSEC    (1000 * MSEC) /* until it is looked again */
#define REST_NSEC    (60 * 1000 * MSEC) /* where there is nothing to do */

struct job {
	struct cache_source *src; /* held */
	size_t chunk, n;
	bool fills, checks;
};

static struct {
	enum disk_cache_fill how;
	uint64_t bytes_sec;
	atomic_uint demands; /* of who waits */
	atomic_uint_fast64_t demand_nsec; /* when one ended last */

	pthread_mutex_t lock; /* of what follows; nothing is waited for in it */
	pthread_cond_t wake;
	pthread_t threads[WORKERS];
	unsigned int n_threads;
	bool stopping;
	struct cache_source *sources; /* all that there are */
	struct job aheads[AHEADS_MAX];
	unsigned int n_aheads;
	unsigned int fillers; /* at work */
	size_t round; /* chunks that a filler fetches at once */
	uint64_t next_nsec; /* when the next one may begin, by bytes_sec */
} fill = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .wake = PTHREAD_COND_INITIALIZER,
	   .round = 1 };

/* ---- what there is ---- */

void fill_add(struct cache_source *src)
{
	pthread_mutex_lock(&fill.lock);
	src->next = fill.sources;
	fill.sources = src;
	pthread_cond_signal(&fill.wake);
	pthread_mutex_unlock(&fill.lock);
}

void fill_remove(struct cache_source *src)
{
	struct cache_source **at = &fill.sources;

	pthread_mutex_lock(&fill.lock);
	while (*at != src)
		at = &(*at)->next;
	*at = src->next;
	pthread_mutex_unlock(&fill.lock);
}

void fill_wake(void)
{
	pthread_mutex_lock(&fill.lock);
	pthread_cond_signal(&fill.wake);
	pthread_mutex_unlock(&fill.lock);
}

static bool fill_is_wanted(struct cached *c)
{
	return fill.how != DISK_CACHE_FILL_OFF || atomic_load(&c->wanted);
}

void fill_note_demand(bool begins)
{
	if (begins) {
		atomic_fetch_add(&fill.demands, 1);
		return;
	}
	atomic_store(&fill.demand_nsec, now_nsec());
	atomic_fetch_sub(&fill.demands, 1);
}

/* ---- ahead ---- */

void fill_ahead(struct cache_source *src, size_t chunk, size_t n)
{
	n = min_size(n, src->c->f.n_chunks - chunk);
	pthread_mutex_lock(&fill.lock);
	if (fill.n_threads && !fill.stopping && fill.n_aheads < AHEADS_MAX) {
		source_ref(&src->s);
		fill.aheads[fill.n_aheads++] =
			(struct job){ .src = src, .chunk = chunk, .n = n };
		pthread_cond_signal(&fill.wake);
	}
	pthread_mutex_unlock(&fill.lock);
}

/* Under the lock: the oldest, or a part of it. */
static bool take_ahead(struct job *ret)
{
	struct job *first = &fill.aheads[0];
	unsigned int i;

	if (!fill.n_aheads)
		return false;
	*ret = *first;
	if (first->n > AHEAD_CHUNKS) {
		ret->n = AHEAD_CHUNKS;
		source_ref(&first->src->s);
		first->chunk += AHEAD_CHUNKS;
		first->n -= AHEAD_CHUNKS;
		pthread_cond_signal(&fill.wake);
		return true;
	}
	fill.n_aheads--;
	for (i = 0; i < fill.n_aheads; i++)
		fill.aheads[i] = fill.aheads[i + 1];
	return true;
}

/* ---- the whole of it ---- */

/* The first chunk from @from on that is not there; n_chunks: there is none. */
static size_t next_missing(const struct kept_file *f, size_t from)
{
	while (from < f->n_chunks && kept_has(f, from))
		from++;
	return from;
}

/* Where @c is filled next; false: it is not. */
static bool find_missing(struct cached *c, size_t *ret)
{
	size_t chunk = next_missing(&c->f, c->cursor);

	if (chunk == c->f.n_chunks)
		chunk = next_missing(&c->f, 0);
	if (chunk == c->f.n_chunks)
		atomic_store(&c->whole, true);
	*ret = chunk;
	return chunk < c->f.n_chunks;
}

static bool may_be_filled(struct cached *c, uint64_t now)
{
	return fill_is_wanted(c) && !atomic_load(&c->whole) &&
	       !atomic_load(&c->unchecked) && c->not_before <= now &&
	       cache_is_usable(c);
}

/* Under the lock: the next that is to be filled goes to the list's end. */
static bool take_source(struct job *ret, uint64_t now)
{
	struct cache_source **at = &fill.sources, *src;
	size_t chunk;

	for (; (src = *at); at = &src->next)
		if (may_be_filled(src->c, now) &&
		    find_missing(src->c, &chunk) &&
		    source_ref_unless_gone(&src->s))
			break;
	if (!src)
		return false;
	*ret = (struct job){ .src = src, .chunk = chunk, .fills = true };
	*at = src->next;
	while (*at)
		at = &(*at)->next;
	src->next = NULL;
	*at = src;
	return true;
}

/* Under the lock: is anything to be filled, be it later? *@ret_until: then. */
static bool is_work(uint64_t *ret_until)
{
	const struct cache_source *src;

	for (src = fill.sources; src; src = src->next)
		if (fill_is_wanted(src->c) && !atomic_load(&src->c->whole))
			break;
	if (!src)
		return false;
	*ret_until = now_nsec() + WAIT_NSEC;
	return true;
}

/* How many chunks at once now; 0: none before *@ret_until. */
static size_t permitted(uint64_t now, uint64_t *ret_until)
{
	uint64_t last = atomic_load(&fill.demand_nsec);
	bool waits = atomic_load(&fill.demands);
	bool idle = fill.how == DISK_CACHE_FILL_IDLE;
	uint64_t quiet = last + (idle ? IDLE_NSEC : YIELD_NSEC);
	size_t n = fill.round;

	if (fill.bytes_sec && fill.next_nsec > now) {
		*ret_until = fill.next_nsec;
		return 0;
	}
	if (fill.bytes_sec)
		n = min_size(
			n, (size_t)(fill.bytes_sec / KEPT_CHUNK_BYTES / 4 + 1));
	if (!waits && (!last || quiet <= now))
		return n;
	*ret_until = now + YIELD_NSEC;
	return idle || fill.fillers ? 0 : 1;
}

/* Under the lock, which is let go of meanwhile. */
static bool fits(void)
{
	bool ok;

	pthread_mutex_unlock(&fill.lock);
	ok = disk_cache_holds_all() && cache_has_room();
	pthread_mutex_lock(&fill.lock);
	return ok;
}

/* Under the lock. */
static bool take_fill(struct job *ret, uint64_t *ret_until)
{
	uint64_t now = now_nsec();
	size_t n;

	if (fill.fillers == FILLERS_MAX)
		return false;
	n = permitted(now, ret_until);
	if (!n || !take_source(ret, now))
		return false;
	ret->n = min_size(n, ret->src->c->f.n_chunks - ret->chunk);
	ret->src->c->cursor = ret->chunk + ret->n;
	if (fill.bytes_sec)
		fill.next_nsec = max_u64(fill.next_nsec, now) +
				 (uint64_t)ret->n * KEPT_CHUNK_BYTES * 1000 *
					 MSEC / fill.bytes_sec;
	fill.fillers++;
	return true;
}

/* Under the lock: as much at once as the link brings in its time. */
static void adapt(const struct job *j, uint64_t took)
{
	if (j->n < fill.round)
		return; /* it says nothing of a round */
	if (took < ROUND_NSEC / 2 && fill.round < ROUND_CHUNKS)
		fill.round = min_size(fill.round * 2, ROUND_CHUNKS);
	else if (took > ROUND_NSEC * 2 && fill.round > 1)
		fill.round /= 2;
}

/* Under the lock. */
static void end_fill(const struct job *j, int code, uint64_t took)
{
	struct cached *c = j->src->c;
	unsigned int n;

	fill.fillers--;
	if (code >= 0) {
		atomic_store(&c->failures, 0);
		adapt(j, took);
		return;
	}
	/* It goes on behind it: a part that is bad for good holds up no other. */
	n = atomic_fetch_add(&c->failures, 1);
	c->not_before =
		now_nsec() + (AGAIN_NSEC << (n < AGAIN_MAX ? n : AGAIN_MAX));
}

/* Under the lock: one of which all has come. */
static bool take_check(struct job *ret)
{
	struct cache_source *src;

	for (src = fill.sources; src; src = src->next)
		if (atomic_load(&src->c->unchecked) &&
		    !atomic_load(&src->c->checking) &&
		    source_ref_unless_gone(&src->s))
			break;
	if (src)
		*ret = (struct job){ .src = src, .checks = true };
	return src;
}

/* ---- who does it ---- */

/* Under the lock, which is let go of meanwhile. */
static void run_job(struct job *j)
{
	uint64_t began = now_nsec();
	int r;

	pthread_mutex_unlock(&fill.lock);
	r = j->checks ? cache_check(j->src->c)
		      : j->src->fetch(j->src, j->chunk, j->n);
	pthread_mutex_lock(&fill.lock);
	if (j->fills)
		end_fill(j, r, now_nsec() - began);
	pthread_mutex_unlock(&fill.lock);
	source_unref(&j->src->s);
	pthread_mutex_lock(&fill.lock);
}

static void wait_until(uint64_t nsec)
{
	struct timespec t = { .tv_sec = (time_t)(nsec / 1000000000),
			      .tv_nsec = (long)(nsec % 1000000000) };

	pthread_cond_timedwait(&fill.wake, &fill.lock, &t);
}

static void *work(void *unused)
{
	uint64_t until;
	struct job j;

	pthread_mutex_lock(&fill.lock);
	while (!fill.stopping) {
		until = now_nsec() + REST_NSEC;
		if (take_ahead(&j) || take_check(&j) ||
		    (is_work(&until) && fits() && take_fill(&j, &until)))
			run_job(&j);
		else
			wait_until(until);
	}
	pthread_mutex_unlock(&fill.lock);
	return NULL;
}

/* ---- what is told, and asked for ---- */

struct teller {
	int (*each)(void *opaque, const struct disk_cache_object *o);
	void *opaque;
};

static int tell_of(void *opaque, struct cached *c)
{
	struct disk_cache_object o = { .name = c->shown,
				       .bytes = c->identity.bytes,
				       .failures = atomic_load(&c->failures) };
	const struct teller *t = opaque;

	pthread_rwlock_rdlock(&c->gate);
	o.mine = cache_is_usable(c);
	if (o.mine)
		o.kept_bytes = kept_bytes(&c->f);
	pthread_rwlock_unlock(&c->gate);
	o.filling = o.mine && o.kept_bytes < o.bytes && fill_is_wanted(c);
	return t->each(t->opaque, &o);
}

int disk_cache_each(int (*each)(void *opaque,
				const struct disk_cache_object *o),
		    void *opaque)
{
	struct teller t = { each, opaque };

	return cache_each_open(tell_of, &t);
}

struct want {
	const char *name; /* NULL: any */
	unsigned int n;
};

static int want(void *opaque, struct cached *c)
{
	struct want *w = opaque;

	if (w->name && strcmp(c->name, w->name) != 0 &&
	    strcmp(c->shown, w->name) != 0)
		return 0;
	atomic_store(&c->wanted, true);
	w->n++;
	return 0;
}

unsigned int disk_cache_want(const char *name)
{
	struct want w = { .name = name };

	cache_each_open(want, &w);
	fill_wake();
	return w.n;
}

/* ---- its life ---- */

/* now_nsec() is of CLOCK_MONOTONIC; so is what is waited for. */
static void use_clock(void)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&fill.wake, &a);
	pthread_condattr_destroy(&a);
}

void disk_cache_fill(enum disk_cache_fill how, uint64_t bytes_sec)
{
	fill.how = how;
	fill.bytes_sec = bytes_sec;
}

int disk_cache_start(struct error *err)
{
	sigset_t all, old;

	if (!disk_cache_is_on())
		return 0;
	use_clock();
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_mutex_lock(&fill.lock);
	while (fill.n_threads < WORKERS &&
	       !pthread_create(&fill.threads[fill.n_threads], NULL, work, NULL))
		fill.n_threads++;
	pthread_mutex_unlock(&fill.lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return fill.n_threads ? 0
			      : error_set(err, -EAGAIN, 0,
					  "cache-dir: there are no threads");
}

void disk_cache_stop(void)
{
	pthread_mutex_lock(&fill.lock);
	fill.stopping = true;
	pthread_cond_broadcast(&fill.wake);
	pthread_mutex_unlock(&fill.lock);
	if (fill.n_threads)
		http_engine_stop();
	while (fill.n_threads)
		pthread_join(fill.threads[--fill.n_threads], NULL);
	while (fill.n_aheads)
		source_unref(&fill.aheads[--fill.n_aheads].src->s);
	fill.stopping = false;
}
