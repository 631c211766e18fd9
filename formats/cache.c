/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "formats/arena.h"
#include "formats/cache-hash.h"
#include "formats/cache.h"
#include "formats/meta-cache.h"
#include "formats/room.h"
#include "iouring/batch.h"
#include "iouring/nowait.h"

/*
 * A shard is a hash table and two lists from the newest to the oldest, under
 * one lock, held for a few dozen instructions and never with another of these.
 * A hit marks the entry; what is marked when it would be dropped becomes the
 * newest instead, so hits need not move anything.
 *
 * An entry is FILLING from the claim on, hashed and in no list, with waiters
 * perhaps; then READY, hashed and in its tier's list; or FAILED, neither. Of
 * each key there is one that is hashed, so one fill at a time. Dropping takes a
 * READY one that nobody holds; cache_drop() unhashes one that is held, and who
 * puts it last frees it. So: refs > 0, or hashed; data only while READY.
 *
 * Who claims fills or fails, in the same thread, and fills all that it has
 * claimed before it waits for anything that others have: then no circle of
 * waiters can close. Readers of nested sources keep that for each depth apart,
 * as what lies deeper never asks for what lies above. Memory is not waited for
 * here at all: see room.h for where it is, and why there.
 *
 * What is resolved is small, malloc()ed and counted: a fill that exceeds the
 * budget drops from its own shard first, then from the others. Decoded units lie
 * in an arena, which is the budget: whoever wants a block of it drops the oldest
 * ones of shard after shard until there is one.
 *
 * Not done: one list for all shards, whose lock every hit would take; resizing
 * the tables, which the budget bounds; remembering failures, as a disk that
 * failed once is asked again.
 */

#define SHARDS	      16U
#define SHARD_BUCKETS 2048U
#define ENTRY_BYTES   sizeof(struct entry)

enum entry_state { ENTRY_FILLING, ENTRY_READY, ENTRY_FAILED };

enum tier {
	TIER_SMALL, /* malloc()ed */
	TIER_UNITS, /* of the arena */
	TIERS
};

struct entry {
	struct cache_blob blob;
	struct cache_key key;
	struct shard *shard;
	struct entry *next_in_bucket;
	struct entry *newer, *older; /* in its tier's list while READY */
	unsigned int refs; /* holders; under the shard's lock */
	int code; /* FAILED: why */
	uint8_t state; /* enum entry_state */
	uint8_t tier; /* enum tier */
	bool hashed; /* found by look-ups */
	bool used; /* since evict() last saw it */
};

struct list {
	struct entry *newest, *oldest;
};

struct shard {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct list lists[TIERS];
	struct entry *buckets[SHARD_BUCKETS];
	uint64_t hits, misses;
};

static struct {
	uint64_t small_budget;
	atomic_uint_fast64_t small_bytes;
	struct arena *units;
	atomic_uint next_shard; /* to drop from */
	struct shard shards[SHARDS];
} cache;

static uint64_t configured_bytes = CACHE_BYTES_DEFAULT;
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool started;

/* The shares of the budget: tables, room, what is resolved; units the rest. */
#define TABLES_SHARE(bytes) ((bytes) / 4)
#define ROOM_SHARE(bytes)   ((bytes) / 16 * 3)
#define SMALL_SHARE(bytes)  ((bytes) / 16)
#define UNITS_SHARE(bytes)  ((bytes) / 2)

/* Requests need some, whatever the budget. */
#define ROOM_BYTES_MIN (4U << 20)

void cache_configure(uint64_t bytes)
{
	configured_bytes = bytes;
	meta_cache_configure(TABLES_SHARE(bytes));
	room_configure((size_t)max_u64(ROOM_SHARE(bytes), ROOM_BYTES_MIN));
}

static void start(void)
{
	size_t i;

	pthread_mutex_lock(&start_lock);
	if (!atomic_load(&started)) {
		for (i = 0; i < SHARDS; i++) {
			pthread_mutex_init(&cache.shards[i].lock, NULL);
			pthread_cond_init(&cache.shards[i].filled, NULL);
		}
		cache.small_budget = SMALL_SHARE(configured_bytes);
		/* Without any, every unit is decoded again. */
		if (arena_new((size_t)UNITS_SHARE(configured_bytes),
			      &cache.units) < 0 &&
		    arena_new(0, &cache.units) < 0)
			abort(); /* not even one page of memory at start */
		atomic_store(&started, true);
	}
	pthread_mutex_unlock(&start_lock);
}

static void ensure_started(void)
{
	if (!atomic_load_explicit(&started, memory_order_acquire))
		start();
}

/*
 * Debug builds count what each thread has claimed, by how deep in nested
 * sources it was: whoever waits must have filled all of his own depth.
 */
#ifdef NDEBUG
#define CLAIMED(n) ((void)0)
#else
#define CLAIMED(n)                                 \
	do {                                       \
		assert(batch_depth() < DEPTH_MAX); \
		claims[batch_depth()] += (n);      \
	} while (0)
#define DEPTH_MAX 16U
static __thread int claims[DEPTH_MAX];
#endif

static uint64_t hash_key(const struct cache_key *k)
{
	return cache_hash(k->owner, k->at);
}

static struct entry *entry_of(struct cache_blob *b)
{
	return container_of(b, struct entry, blob);
}

static struct entry **bucket_of(struct shard *s, uint64_t hash)
{
	return &s->buckets[hash / SHARDS % SHARD_BUCKETS];
}

static struct entry *find(struct entry *e, const struct cache_key *key)
{
	while (e && (e->key.owner != key->owner || e->key.at != key->at))
		e = e->next_in_bucket;
	return e;
}

static void list_push(struct list *l, struct entry *e)
{
	e->newer = NULL;
	e->older = l->newest;
	if (l->newest)
		l->newest->newer = e;
	else
		l->oldest = e;
	l->newest = e;
}

static void list_remove(struct list *l, struct entry *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		l->newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		l->oldest = e->newer;
}

static struct list *list_of(const struct entry *e)
{
	return &e->shard->lists[e->tier];
}

static void unhash(struct entry *e)
{
	struct entry **p = bucket_of(e->shard, hash_key(&e->key));

	assert(e->hashed);
	while (*p != e)
		p = &(*p)->next_in_bucket;
	*p = e->next_in_bucket;
	e->hashed = false;
}

static uint64_t cost(const struct entry *e)
{
	return e->blob.bytes + ENTRY_BYTES;
}

/* It is in no list, and not hashed. */
static void entry_free(struct entry *e)
{
	assert(!e->refs && !e->hashed && e->state != ENTRY_FILLING);
	if (e->state == ENTRY_READY && e->tier == TIER_UNITS) {
		arena_give(cache.units, e->blob.data, e->blob.bytes);
	} else if (e->state == ENTRY_READY) {
		atomic_fetch_sub(&cache.small_bytes, cost(e));
		free(e->blob.data);
	}
	free(e);
}

/* Drops the oldest that nobody holds. False: there is none. */
static bool drop_oldest(struct shard *s, enum tier t)
{
	struct list *l = &s->lists[t];
	struct entry *e, *newer;
	bool dropped = false;

	pthread_mutex_lock(&s->lock);
	for (e = l->oldest; e && !dropped; e = newer) {
		newer = e->newer;
		if (e->refs)
			continue;
		list_remove(l, e);
		if (e->used) {
			e->used = false;
			list_push(l, e);
			newer = newer ? newer : e;
			continue;
		}
		unhash(e);
		entry_free(e);
		dropped = true;
	}
	pthread_mutex_unlock(&s->lock);
	return dropped;
}

static bool is_over(void)
{
	return atomic_load_explicit(&cache.small_bytes, memory_order_relaxed) >
	       cache.small_budget;
}

/* Of what is small; @first was filled, and is looked through first. */
static void keep_budget(struct shard *first)
{
	size_t i, at = (size_t)(first - cache.shards);

	for (i = 0; i < SHARDS; i++)
		while (is_over() &&
		       drop_oldest(&cache.shards[(at + i) % SHARDS],
				   TIER_SMALL))
			;
}

/* A unit of any shard, of each in its turn. */
static bool drop_a_unit(void)
{
	unsigned int i, at = atomic_fetch_add(&cache.next_shard, 1);

	for (i = 0; i < SHARDS; i++)
		if (drop_oldest(&cache.shards[(at + i) % SHARDS], TIER_UNITS))
			return true;
	return false;
}

void *cache_block(size_t bytes)
{
	void *p;

	ensure_started();
	if (bytes > arena_largest(cache.units))
		return NULL;
	do
		p = arena_take(cache.units, bytes);
	while (!p && drop_a_unit());
	return p;
}

void cache_block_free(void *block, size_t bytes)
{
	if (block)
		arena_give(cache.units, block, bytes);
}

bool cache_peek(const struct cache_key *key, struct cache_blob **ret)
{
	uint64_t hash = hash_key(key);
	struct shard *s = &cache.shards[hash % SHARDS];
	struct entry *e;

	ensure_started();
	pthread_mutex_lock(&s->lock);
	e = find(*bucket_of(s, hash), key);
	if (e && e->state != ENTRY_READY)
		e = NULL;
	if (e) {
		s->hits++;
		e->refs++;
		e->used = true;
		*ret = &e->blob;
	}
	pthread_mutex_unlock(&s->lock);
	return e;
}

enum cache_answer cache_get(const struct cache_key *key,
			    struct cache_blob **ret)
{
	uint64_t hash = hash_key(key);
	struct shard *s = &cache.shards[hash % SHARDS];
	enum cache_answer answer = CACHE_CLAIMED;
	struct entry **bucket, *e;

	ensure_started();
	bucket = bucket_of(s, hash);
	pthread_mutex_lock(&s->lock);
	e = find(*bucket, key);
	if (e) {
		s->hits++;
		e->refs++;
		answer = e->state == ENTRY_READY ? CACHE_HIT : CACHE_BUSY;
		e->used = true;
	} else {
		s->misses++;
		e = calloc(1, sizeof(*e));
		if (!e)
			abort(); /* a hundred bytes */
		e->key = *key;
		e->shard = s;
		e->refs = 1;
		e->hashed = true;
		e->next_in_bucket = *bucket;
		*bucket = e;
	}
	pthread_mutex_unlock(&s->lock);
	if (answer == CACHE_CLAIMED)
		CLAIMED(1);
	*ret = &e->blob;
	return answer;
}

static void fill(struct entry *e, enum tier t, void *data, size_t bytes)
{
	struct shard *s = e->shard;

	CLAIMED(-1);
	pthread_mutex_lock(&s->lock);
	assert(e->state == ENTRY_FILLING && e->refs);
	e->blob.data = data;
	e->blob.bytes = bytes;
	e->tier = (uint8_t)t;
	e->state = ENTRY_READY;
	list_push(list_of(e), e);
	if (t == TIER_SMALL)
		atomic_fetch_add(&cache.small_bytes, cost(e));
	pthread_cond_broadcast(&s->filled);
	pthread_mutex_unlock(&s->lock);
}

void cache_fill(struct cache_blob *b, void *data, size_t bytes)
{
	struct entry *e = entry_of(b);

	fill(e, TIER_SMALL, data, bytes);
	keep_budget(e->shard);
}

void cache_fill_block(struct cache_blob *b, void *block, size_t bytes)
{
	fill(entry_of(b), TIER_UNITS, block, bytes);
}

void cache_drop(const struct cache_key *key)
{
	uint64_t hash = hash_key(key);
	struct shard *s = &cache.shards[hash % SHARDS];
	struct entry *e;

	ensure_started();
	pthread_mutex_lock(&s->lock);
	e = find(*bucket_of(s, hash), key);
	if (e && e->state == ENTRY_READY) {
		list_remove(list_of(e), e);
		unhash(e);
		if (!e->refs)
			entry_free(e); /* else who holds it does */
	}
	pthread_mutex_unlock(&s->lock);
}

void cache_fail(struct cache_blob *b, int code)
{
	struct entry *e = entry_of(b);
	struct shard *s = e->shard;

	CLAIMED(-1);
	pthread_mutex_lock(&s->lock);
	assert(e->state == ENTRY_FILLING && e->refs);
	e->state = ENTRY_FAILED;
	e->code = code;
	unhash(e);
	pthread_cond_broadcast(&s->filled);
	pthread_mutex_unlock(&s->lock);
}

int cache_wait(struct cache_blob *b)
{
	struct entry *e = entry_of(b);
	struct shard *s = e->shard;
	int code;

	assert(!claims[batch_depth()]);
	pthread_mutex_lock(&s->lock);
	while (e->state == ENTRY_FILLING && may_wait())
		wait_on(&s->filled, &s->lock);
	code = e->state == ENTRY_READY ? 0 : -EAGAIN;
	if (e->state == ENTRY_FAILED)
		code = e->code;
	pthread_mutex_unlock(&s->lock);
	return code;
}

void cache_put(struct cache_blob *b)
{
	struct entry *e = entry_of(b);
	struct shard *s = e->shard;
	bool gone;

	pthread_mutex_lock(&s->lock);
	/* A claim that is put unfilled would keep its waiters for ever. */
	assert(e->refs && (e->refs > 1 || e->state != ENTRY_FILLING));
	gone = !--e->refs && !e->hashed;
	pthread_mutex_unlock(&s->lock);
	if (gone)
		entry_free(e);
	else if (is_over())
		keep_budget(s);
}

static void list_clear(struct list *l)
{
	while (l->newest) {
		struct entry *e = l->newest;

		list_remove(l, e);
		unhash(e);
		entry_free(e);
	}
}

static void shard_clear(struct shard *s)
{
	list_clear(&s->lists[TIER_SMALL]);
	list_clear(&s->lists[TIER_UNITS]);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->filled);
	memset(s, 0, sizeof(*s));
}

void cache_shutdown(void)
{
	size_t i;

	pthread_mutex_lock(&start_lock);
	if (atomic_load(&started)) {
		for (i = 0; i < SHARDS; i++)
			shard_clear(&cache.shards[i]);
		arena_free(TAKE_PTR(cache.units));
		atomic_store(&started, false);
	}
	pthread_mutex_unlock(&start_lock);
	meta_cache_shutdown();
	room_shutdown();
}

void cache_get_stats(struct cache_stats *ret)
{
	struct cache_stats s = { .meta_misses = meta_cache_misses() };
	struct room_stats room;
	size_t i;

	ensure_started();
	room_get_stats(&room);
	s.bytes = atomic_load(&cache.small_bytes) + arena_used(cache.units);
	s.room_bytes = room.bytes;
	s.room_waits = room.waits;
	for (i = 0; i < SHARDS; i++) {
		pthread_mutex_lock(&cache.shards[i].lock);
		s.hits += cache.shards[i].hits;
		s.misses += cache.shards[i].misses;
		pthread_mutex_unlock(&cache.shards[i].lock);
	}
	*ret = s;
}
