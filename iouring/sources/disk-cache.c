/* SPDX-License-Identifier: BSD-3-Clause */
/* What is open, and the thread that flushes and evicts: the keeper. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "iouring/own-folder.h"
#include "iouring/sources/disk-cache-inside.h"
#include "iouring/sources/url.h"

#define TICK_SEC   1
#define TICK_BYTES (32U << 20) /* or earlier */
#define FULL_NSEC  10000000000ULL /* until a full disk is tried again */
#define OPEN_MAX   4096U /* objects that the keeper looks after */

static struct {
	int dir; /* "objects"; -1: there is no cache */
	uint64_t bytes_max;
	void (*say)(const char *line);
	char *path;

	/* Taken after nothing; held while files are closed. */
	pthread_mutex_t lock;
	pthread_cond_t opened; /* what was opening is open, or gone */
	pthread_cond_t wake; /* the keeper */
	struct cached *open;
	bool keeper; /* it runs */
	bool known; /* bytes is what lies there */

	atomic_uint_fast64_t unflushed; /* bytes, stored since the last tick */
	atomic_uint_fast64_t bytes; /* about; what others add is not in it */
	atomic_uint_fast64_t full_until; /* nsec: nothing can be written */
	atomic_uint_fast64_t hit, fetched, evicted, behind;
	atomic_bool told_too_small;
} cache = { .dir = -1,
	    .lock = PTHREAD_MUTEX_INITIALIZER,
	    .opened = PTHREAD_COND_INITIALIZER,
	    .wake = PTHREAD_COND_INITIALIZER };

static void PRINTF(1, 2) tell(const char *fmt, ...)
{
	struct error text = { 0 };
	char line[ERROR_MSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	error_set(&text, -EIO, 0, "%s", line); /* escapes it */
	if (cache.say)
		cache.say(text.msg);
}

/* ---- counts ---- */

/* Beyond it nothing is kept until the keeper has made room. */
static uint64_t slack(void)
{
	return max_u64(cache.bytes_max / 16, 1U << 20);
}

bool cache_has_room(void)
{
	return atomic_load(&cache.bytes) < cache.bytes_max + slack() &&
	       now_nsec() > atomic_load(&cache.full_until);
}

void cache_note_full(void)
{
	atomic_store(&cache.full_until, now_nsec() + FULL_NSEC);
}

void cache_note_hit(uint64_t bytes)
{
	atomic_fetch_add_explicit(&cache.hit, bytes, memory_order_relaxed);
}

void cache_note_fetched(uint64_t bytes, bool behind)
{
	atomic_fetch_add_explicit(&cache.fetched, bytes, memory_order_relaxed);
	if (behind)
		atomic_fetch_add_explicit(&cache.behind, bytes,
					  memory_order_relaxed);
}

void disk_cache_count(struct disk_cache_counts *ret)
{
	*ret = (struct disk_cache_counts){ atomic_load(&cache.hit),
					   atomic_load(&cache.fetched),
					   atomic_load(&cache.evicted),
					   atomic_load(&cache.behind) };
}

/* ---- the keeper ---- */

/* Under the lock: all that are open, and stay so until they are let go. */
static size_t hold_all(struct cached **ret)
{
	struct cached *c;
	size_t n = 0;

	for (c = cache.open; c && n < OPEN_MAX; c = c->next) {
		if (c->opening)
			continue;
		c->keeping = true;
		ret[n++] = c;
	}
	return n;
}

/* Its files were somebody else's; are they still? */
static void try_again(struct cached *c)
{
	struct kept_file f;

	if (kept_open(cache.dir, &c->identity, &f, NULL) < 0)
		return;
	pthread_rwlock_wrlock(&c->gate);
	c->f = f;
	atomic_store(&c->has_file, true);
	pthread_rwlock_unlock(&c->gate);
}

static void flush(struct cached *c)
{
	struct error err = { 0 };

	if (kept_flush(&c->f, &err) < 0 && atomic_load(&c->f.broken))
		tell("cache-dir: %s: %s: nothing more of %s is kept there",
		     cache.path, err.msg, c->shown);
}

static void make_room(struct cached *const *open, size_t n)
{
	uint64_t freed;

	if (cache.known && atomic_load(&cache.bytes) <= cache.bytes_max)
		return;
	/* A little more, so that it is not done for each chunk. */
	atomic_store(&cache.bytes,
		     cache_evict(cache.dir,
				 cache.bytes_max - cache.bytes_max / 16, open,
				 n, &freed));
	cache.known = true;
	atomic_fetch_add(&cache.evicted, freed);
}

static void tick(struct cached *const *open, size_t n)
{
	size_t i;

	atomic_store(&cache.unflushed, 0);
	for (i = 0; i < n; i++) {
		if (!atomic_load(&open[i]->has_file))
			try_again(open[i]);
		else if (kept_is_dirty(&open[i]->f))
			flush(open[i]);
	}
	make_room(open, n);
}

static void wait_a_tick(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += TICK_SEC;
	pthread_cond_timedwait(&cache.wake, &cache.lock, &t);
}

static void *keep(void *opaque)
{
	struct cached **open = opaque;
	size_t n;

	pthread_mutex_lock(&cache.lock);
	while (cache.open) {
		n = hold_all(open);
		pthread_mutex_unlock(&cache.lock);
		tick(open, n);
		pthread_mutex_lock(&cache.lock);
		while (n)
			open[--n]->keeping = false;
		pthread_cond_broadcast(&cache.opened);
		if (cache.open)
			wait_a_tick();
	}
	cache.keeper = false;
	pthread_mutex_unlock(&cache.lock);
	free(open);
	return NULL;
}

/* Under the lock: it runs from now on. Without it nothing is flushed early. */
static void start_keeper(void)
{
	struct cached **open = calloc(OPEN_MAX, sizeof(struct cached *));
	sigset_t all, old;
	pthread_t thread;

	if (!open)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	cache.keeper = !pthread_create(&thread, NULL, keep, open);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (cache.keeper)
		pthread_detach(thread);
	else
		free(open);
}

void cache_note_stored(uint64_t bytes)
{
	uint64_t now = atomic_fetch_add(&cache.bytes, bytes) + bytes;
	uint64_t more = atomic_fetch_add(&cache.unflushed, bytes) + bytes;

	pthread_mutex_lock(&cache.lock);
	if (!cache.keeper)
		start_keeper();
	if (now > cache.bytes_max || more > TICK_BYTES)
		pthread_cond_signal(&cache.wake);
	pthread_mutex_unlock(&cache.lock);
}

/* The child has no keeper; see cache_note_stored(). */
static void before_fork(void)
{
	pthread_mutex_lock(&cache.lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&cache.lock);
}

static void after_fork_child(void)
{
	cache.keeper = false;
	pthread_mutex_unlock(&cache.lock);
}

/* ---- what is open ---- */

static void cached_free(struct cached *c)
{
	if (!c)
		return;
	kept_close(&c->f);
	pthread_rwlock_destroy(&c->gate);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->ahead_lock);
	pthread_cond_destroy(&c->landed);
	free(c->used);
	free(c->name);
	free(c->shown);
	free(c->version);
	free(c);
}

/* Readers are many, and would never let a writer in. */
static void gate_init(pthread_rwlock_t *gate)
{
	pthread_rwlockattr_t a;

	pthread_rwlockattr_init(&a);
	pthread_rwlockattr_setkind_np(
		&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(gate, &a);
	pthread_rwlockattr_destroy(&a);
}

static struct cached *cached_new(const struct source_identity *id)
{
	struct cached *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	gate_init(&c->gate);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->ahead_lock, NULL);
	pthread_cond_init(&c->landed, NULL);
	atomic_init(&c->last_chunk, SIZE_MAX);
	c->refs = 1;
	c->opening = true;
	c->name = strdup(id->name);
	c->shown = url_name_shown(id->name);
	c->version = strdup(id->version);
	c->identity = *id;
	c->identity.name = c->name;
	c->identity.version = c->version;
	c->used = calloc((size_t)(id->bytes / KEPT_CHUNK_BYTES / 8 + 1), 1);
	if (c->name && c->shown && c->version && c->used)
		return c;
	cached_free(c);
	return NULL;
}

/* Under the lock. */
static void take_out(struct cached *c)
{
	struct cached **at = &cache.open;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
}

/* The last use of its files is now. */
static void touch(const struct cached *c)
{
	futimens(source_file(c->f.map)->fd, NULL);
}

/*
 * Nobody has it: it is flushed, while who wants it again waits; and closed, when
 * this returns.
 */
void cached_put(struct cached *c)
{
	pthread_mutex_lock(&cache.lock);
	if (--c->refs) {
		pthread_mutex_unlock(&cache.lock);
		return;
	}
	c->opening = true;
	while (c->keeping)
		pthread_cond_wait(&cache.opened, &cache.lock);
	pthread_mutex_unlock(&cache.lock);
	if (atomic_load(&c->has_file)) {
		cache_check(c);
		flush(c);
		touch(c);
	}
	pthread_mutex_lock(&cache.lock);
	take_out(c);
	cached_free(c);
	pthread_cond_broadcast(&cache.opened);
	pthread_cond_signal(&cache.wake);
	pthread_mutex_unlock(&cache.lock);
}

static struct cached *find(const struct source_identity *id)
{
	struct cached *c;

	for (c = cache.open; c; c = c->next)
		if (identity_is_unchanged(&c->identity, id))
			break;
	return c;
}

/* -EBUSY is no failure: the keeper tries again. */
static int open_files(struct cached *c)
{
	struct error err = { 0 };
	int r = kept_open(cache.dir, &c->identity, &c->f, &err);

	if (r == -EBUSY) {
		tell("cache-dir: another process keeps copies of %s in %s: it "
		     "is read without until that one ends",
		     c->shown, cache.path);
		return 0;
	}
	if (r < 0)
		tell("cache-dir: %s: %s: nothing of %s is kept", cache.path,
		     err.msg, c->shown);
	atomic_store(&c->has_file, r >= 0);
	return r;
}

/* Under the lock, which is let go of meanwhile. NULL: it cannot be kept. */
static struct cached *open_new(const struct source_identity *id)
{
	struct cached *c = cached_new(id);
	int r;

	if (!c)
		return NULL;
	c->next = cache.open;
	cache.open = c;
	pthread_mutex_unlock(&cache.lock);
	r = open_files(c);
	pthread_mutex_lock(&cache.lock);
	c->opening = false;
	pthread_cond_broadcast(&cache.opened);
	if (!cache.keeper)
		start_keeper();
	if (r >= 0)
		return c;
	take_out(c);
	cached_free(c);
	return NULL;
}

struct cached *cached_get(const struct source_identity *id)
{
	struct cached *c;

	pthread_mutex_lock(&cache.lock);
	while ((c = find(id)) && c->opening)
		pthread_cond_wait(&cache.opened, &cache.lock);
	if (c)
		c->refs++;
	else
		c = open_new(id);
	pthread_mutex_unlock(&cache.lock);
	return c;
}

bool disk_cache_holds_all(void)
{
	const uint64_t most = cache.bytes_max - cache.bytes_max / 16;
	const struct cached *c;
	uint64_t bytes = 0;

	pthread_mutex_lock(&cache.lock);
	for (c = cache.open; c; c = c->next)
		bytes += c->identity.bytes; /* 4096 of 4 TiB are not too many */
	pthread_mutex_unlock(&cache.lock);
	if (bytes <= most)
		return true;
	if (!atomic_exchange(&cache.told_too_small, true))
		tell("fill: the images that are open have %" PRIu64
		     " bytes, over 15/16 of the cache-size of %" PRIu64
		     ": what is read of them is kept, and no more",
		     bytes, cache.bytes_max);
	return false;
}

int cache_each_open(int (*each)(void *opaque, struct cached *c), void *opaque)
{
	struct cached *c;
	int r = 0;

	pthread_mutex_lock(&cache.lock);
	for (c = cache.open; c && !r; c = c->next)
		if (!c->opening)
			r = each(opaque, c);
	pthread_mutex_unlock(&cache.lock);
	return r;
}

void disk_cache_leave(void)
{
	assert(!cache.open);
	if (cache.dir >= 0)
		close(cache.dir);
	cache.dir = -1;
}

int cache_folder(void)
{
	return cache.dir;
}

bool disk_cache_is_on(void)
{
	return cache.dir >= 0;
}

/* ---- where it is ---- */

int disk_cache_configure(const char *path, uint64_t bytes,
			 void (*say)(const char *line), struct error *err)
{
	CLEANUP(closep) int dir = -1;
	int objects, r;

	r = own_folder_open(AT_FDCWD, path, 022, &dir, err);
	if (r >= 0)
		r = own_folder_open(dir, "objects", 077, &objects, err);
	if (r < 0) {
		error_prefix(err, "cache-dir");
		return r;
	}
	if (!cache.path)
		pthread_atfork(before_fork, after_fork, after_fork_child);
	disk_cache_leave();
	free(cache.path);
	cache.path = strdup(path);
	cache.dir = objects;
	cache.bytes_max = bytes;
	cache.say = say;
	cache.known = false;
	return cache.path ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}
