/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/cache.h"

/*
 * Blobs. A shard is a hash table and a list from the newest to the oldest,
 * under one lock, held for a few dozen instructions. A hit marks the entry;
 * what is marked when it would be dropped becomes the newest instead, so hits
 * need not move anything. The budget is common to all shards: a fill that
 * exceeds it drops from its own shard first, then from the others.
 *
 * A decoded cluster is not dropped but lent: its pages stay mapped, and the
 * kernel, told by MADV_FREE, takes them when it needs them. A page that was
 * taken reads as zeroes. So each page has a witness, a byte that is not zero: a
 * reader copies what it wants and then looks whether the witnesses are still
 * there. What is all zeroes needs none. Nothing writes to a lent page, which
 * would make it the process's own again.
 */

#define SHARDS	      16U
#define SHARD_BUCKETS 2048U
#define ENTRY_BYTES   sizeof(struct entry)

enum entry_state { ENTRY_FILLING, ENTRY_READY, ENTRY_FAILED };

enum tier { TIER_HELD, TIER_LENT, TIERS };

#define NO_WITNESS UINT32_MAX

struct entry {
	struct cache_blob blob;
	struct cache_key key;
	struct shard *shard;
	struct entry *next_in_bucket;
	struct entry *newer, *older; /* in its tier's list while READY */
	uint32_t *witnesses; /* by page, offset in it; NULL: not to be lent */
	unsigned int refs; /* holders; under the shard's lock */
	int code; /* FAILED: why */
	uint8_t state; /* enum entry_state */
	uint8_t tier; /* enum tier; does not change while a reader holds it */
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

/*
 * Metadata pages. A fixed arena of slots, in sets of META_WAYS. A reader
 * copies what it wants and then looks whether the slot's sequence number is
 * still the (even) one it saw before; a writer makes it odd for as long as it
 * changes the slot. Slots are never unmapped, so a reader that loses the race
 * has read nonsense, not freed memory, and tries elsewhere. Words are atomic
 * because the race is intended; acquire and release keep them between the two
 * looks at the number.
 */

#define META_PAGE_BYTES 4096U
#define META_PAGE_WORDS (META_PAGE_BYTES / 8)
#define META_WAYS	8U
#define META_PAGES_MIN	64U
#define META_LOCKS	64U

struct meta_slot {
	atomic_uint_fast64_t seq; /* odd: being written */
	atomic_uint_fast64_t owner; /* source id; 0: empty */
	atomic_uint_fast64_t page;
	atomic_bool used; /* since the clock's hand passed */
};

typedef atomic_uint_fast64_t meta_word;

static struct {
	uint64_t budgets[TIERS]; /* of blobs, bytes */
	atomic_uint_fast64_t bytes[TIERS];
	uint64_t meta_sets;
	struct meta_slot *slots;
	meta_word *pages;
	size_t pages_bytes;
	pthread_mutex_t meta_locks[META_LOCKS]; /* of writers, by set */
	uint8_t *hands; /* of the clock, by set */
	atomic_uint_fast64_t meta_misses;
	struct shard shards[SHARDS];
} cache;

static uint64_t configured_bytes = CACHE_BYTES_DEFAULT;
static uint64_t configured_spare;
static size_t page_bytes; /* the machine's */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool started;

uint64_t cache_spare_default(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	if (pages < 1 || page < 1)
		return 0;
	return min_u64((uint64_t)pages * (uint64_t)page / 16,
		       CACHE_SPARE_MAX_DEFAULT);
}

void cache_configure(uint64_t bytes, uint64_t spare_bytes)
{
	configured_bytes = bytes;
	configured_spare = spare_bytes;
}

/* A quarter of the budget is for metadata, but never none. */
static bool start_meta(void)
{
	uint64_t pages = configured_bytes / 4 / META_PAGE_BYTES, i;

	pages = max_u64(round_down(pages, META_WAYS), META_PAGES_MIN);
	cache.meta_sets = pages / META_WAYS;
	cache.pages_bytes = (size_t)(pages * META_PAGE_BYTES);
	cache.slots = calloc(pages, sizeof(*cache.slots));
	cache.hands = calloc(cache.meta_sets, 1);
	cache.pages = mmap(NULL, cache.pages_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (i = 0; i < META_LOCKS; i++)
		pthread_mutex_init(&cache.meta_locks[i], NULL);
	return cache.slots && cache.hands && cache.pages != MAP_FAILED;
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
		if (!start_meta())
			abort(); /* not even one page of memory at start */
		page_bytes = (size_t)sysconf(_SC_PAGESIZE);
		cache.budgets[TIER_HELD] =
			configured_bytes -
			min_u64(configured_bytes, cache.pages_bytes);
		cache.budgets[TIER_LENT] = configured_spare;
		atomic_store(&started, true);
	}
	pthread_mutex_unlock(&start_lock);
}

static void ensure_started(void)
{
	if (!atomic_load_explicit(&started, memory_order_acquire))
		start();
}

/* Spreads keys: a multiplication by an odd constant, high bits folded in. */
static uint64_t hash_key(const struct cache_key *k)
{
	uint64_t h = (k->owner ^ (k->at * 0x9e3779b97f4a7c15ULL)) *
		     0xff51afd7ed558ccdULL;

	return h ^ h >> 32;
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

	while (*p != e)
		p = &(*p)->next_in_bucket;
	*p = e->next_in_bucket;
	e->hashed = false;
}

static size_t pages_of(const struct entry *e)
{
	return (size_t)div_round_up(e->blob.bytes, page_bytes);
}

static uint64_t cost(const struct entry *e)
{
	if (!e->witnesses)
		return e->blob.bytes + ENTRY_BYTES;
	return pages_of(e) * (page_bytes + sizeof(*e->witnesses)) + ENTRY_BYTES;
}

static void entry_free(struct entry *e)
{
	if (e->state == ENTRY_READY)
		atomic_fetch_sub(&cache.bytes[e->tier], cost(e));
	free(e->blob.data);
	free(e->witnesses);
	free(e);
}

/* False: it may not be, or the kernel does not take it. */
static bool lend(struct entry *e)
{
	if (!e->witnesses || cost(e) > cache.budgets[TIER_LENT] ||
	    madvise(e->blob.data, pages_of(e) * page_bytes, MADV_FREE))
		return false;
	atomic_fetch_sub(&cache.bytes[TIER_HELD], cost(e));
	atomic_fetch_add(&cache.bytes[TIER_LENT], cost(e));
	e->tier = TIER_LENT;
	list_push(list_of(e), e);
	return true;
}

static bool over(enum tier t, uint64_t budget)
{
	return atomic_load_explicit(&cache.bytes[t], memory_order_relaxed) >
	       budget;
}

/* Drops or lends what nobody holds, oldest first, until the budget is kept. */
static void evict(struct shard *s, enum tier t, uint64_t budget)
{
	struct list *l = &s->lists[t];
	struct entry *e, *newer;

	pthread_mutex_lock(&s->lock);
	for (e = l->oldest; e && over(t, budget); e = newer) {
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
		if (t == TIER_HELD && lend(e))
			continue;
		unhash(e);
		entry_free(e);
	}
	pthread_mutex_unlock(&s->lock);
}

static void evict_all(struct shard *first, enum tier t, uint64_t budget)
{
	size_t i, at = (size_t)(first - cache.shards);

	for (i = 0; i < SHARDS && over(t, budget); i++)
		evict(&cache.shards[(at + i) % SHARDS], t, budget);
}

static void keep_budget(struct shard *first)
{
	/* The first may fill the second. */
	evict_all(first, TIER_HELD, cache.budgets[TIER_HELD]);
	evict_all(first, TIER_LENT, cache.budgets[TIER_LENT]);
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
	*ret = &e->blob;
	return answer;
}

static void fill(struct entry *e, void *data, size_t bytes, uint32_t *witnesses)
{
	struct shard *s = e->shard;

	pthread_mutex_lock(&s->lock);
	e->blob.data = data;
	e->blob.bytes = bytes;
	e->witnesses = witnesses;
	e->state = ENTRY_READY;
	list_push(list_of(e), e);
	atomic_fetch_add(&cache.bytes[TIER_HELD], cost(e));
	pthread_cond_broadcast(&s->filled);
	pthread_mutex_unlock(&s->lock);
	keep_budget(s);
}

void cache_fill(struct cache_blob *b, void *data, size_t bytes)
{
	fill(entry_of(b), data, bytes, NULL);
}

static size_t whole_pages(size_t bytes)
{
	return (size_t)round_up(bytes, page_bytes);
}

void *cache_alloc(size_t bytes)
{
	void *data;

	ensure_started();
	data = aligned_alloc(page_bytes, whole_pages(bytes));
	if (data)
		return data;
	evict_all(cache.shards, TIER_LENT, 0);
	return aligned_alloc(page_bytes, whole_pages(bytes));
}

static uint32_t find_witness(const uint8_t *page, size_t bytes)
{
	size_t i = 0;
	uint64_t word = 0;

	for (; !word && i + sizeof(word) <= bytes; i += sizeof(word))
		memcpy(&word, page + i, sizeof(word));
	for (i = word ? i - sizeof(word) : i; i < bytes; i++)
		if (page[i])
			return (uint32_t)i;
	return NO_WITNESS;
}

/* NULL: there is no memory for them. */
static uint32_t *find_witnesses(const uint8_t *data, size_t bytes)
{
	size_t i, pages = (size_t)div_round_up(bytes, page_bytes);
	uint32_t *ret = malloc(pages * sizeof(*ret));

	for (i = 0; ret && i < pages; i++)
		ret[i] = find_witness(
			data + i * page_bytes,
			min_size(page_bytes, bytes - i * page_bytes));
	return ret;
}

void cache_fill_spare(struct cache_blob *b, void *data, size_t bytes)
{
	fill(entry_of(b), data, bytes,
	     cache.budgets[TIER_LENT] ? find_witnesses(data, bytes) : NULL);
}

/* After the copy: what is there now was there then. */
static bool is_there(const struct entry *e, size_t off, size_t len)
{
	const volatile uint8_t *data = e->blob.data;
	size_t i;

	atomic_thread_fence(memory_order_acquire);
	for (i = off / page_bytes; i * page_bytes < off + len; i++)
		if (e->witnesses[i] != NO_WITNESS &&
		    !data[i * page_bytes + e->witnesses[i]])
			return false;
	return true;
}

/* Under the shard's lock. */
static void take_out(struct entry *e)
{
	list_remove(list_of(e), e);
	unhash(e);
}

static void forget(struct entry *e)
{
	pthread_mutex_lock(&e->shard->lock);
	if (e->hashed)
		take_out(e);
	pthread_mutex_unlock(&e->shard->lock);
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
		take_out(e);
		if (!e->refs)
			entry_free(e); /* else who holds it does */
	}
	pthread_mutex_unlock(&s->lock);
}

bool cache_copy(struct cache_blob *b, void *dest, size_t off, size_t len)
{
	struct entry *e = entry_of(b);

	memcpy(dest, (const uint8_t *)b->data + off, len);
	if (e->tier == TIER_HELD || is_there(e, off, len))
		return true;
	forget(e);
	return false;
}

void cache_fail(struct cache_blob *b, int code)
{
	struct entry *e = entry_of(b);
	struct shard *s = e->shard;

	pthread_mutex_lock(&s->lock);
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

	pthread_mutex_lock(&s->lock);
	while (e->state == ENTRY_FILLING)
		pthread_cond_wait(&s->filled, &s->lock);
	code = e->state == ENTRY_FAILED ? e->code : 0;
	pthread_mutex_unlock(&s->lock);
	return code;
}

void cache_put(struct cache_blob *b)
{
	struct entry *e = entry_of(b);
	struct shard *s = e->shard;
	bool gone;

	pthread_mutex_lock(&s->lock);
	gone = !--e->refs && !e->hashed;
	pthread_mutex_unlock(&s->lock);
	if (gone)
		entry_free(e);
	else if (over(TIER_HELD, cache.budgets[TIER_HELD]))
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
	list_clear(&s->lists[TIER_HELD]);
	list_clear(&s->lists[TIER_LENT]);
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
		for (i = 0; i < META_LOCKS; i++)
			pthread_mutex_destroy(&cache.meta_locks[i]);
		munmap(cache.pages, cache.pages_bytes);
		free(cache.slots);
		free(cache.hands);
		atomic_store(&started, false);
	}
	pthread_mutex_unlock(&start_lock);
}

void cache_get_stats(struct cache_stats *ret)
{
	struct cache_stats s = {
		.bytes = atomic_load(&cache.bytes[TIER_HELD]),
		.spare_bytes = atomic_load(&cache.bytes[TIER_LENT]),
		.meta_misses = atomic_load(&cache.meta_misses),
	};
	size_t i;

	ensure_started();
	for (i = 0; i < SHARDS; i++) {
		pthread_mutex_lock(&cache.shards[i].lock);
		s.hits += cache.shards[i].hits;
		s.misses += cache.shards[i].misses;
		pthread_mutex_unlock(&cache.shards[i].lock);
	}
	*ret = s;
}

static meta_word *slot_words(const struct meta_slot *s)
{
	return cache.pages + (size_t)(s - cache.slots) * META_PAGE_WORDS;
}

/* Copies @len bytes at @off of a slot's page; words are read whole. */
static void copy_out(const struct meta_slot *s, size_t off, uint8_t *buf,
		     size_t len)
{
	meta_word *words = slot_words(s);

	while (len) {
		uint64_t w = atomic_load_explicit(&words[off / 8],
						  memory_order_acquire);
		size_t in = off % 8, n = min_size(len, 8 - in);

		memcpy(buf, (uint8_t *)&w + in, n);
		off += n;
		buf += n;
		len -= n;
	}
}

/* Is @page of @owner in @s? Then copies, and says whether that was sound. */
static bool slot_read(struct meta_slot *s, uint64_t owner, uint64_t page,
		      size_t off, uint8_t *buf, size_t len)
{
	uint64_t seq = atomic_load_explicit(&s->seq, memory_order_acquire);

	if (seq & 1 ||
	    atomic_load_explicit(&s->page, memory_order_acquire) != page ||
	    atomic_load_explicit(&s->owner, memory_order_acquire) != owner)
		return false;
	copy_out(s, off, buf, len);
	if (atomic_load_explicit(&s->seq, memory_order_relaxed) != seq)
		return false;
	if (!atomic_load_explicit(&s->used, memory_order_relaxed))
		atomic_store_explicit(&s->used, true, memory_order_relaxed);
	return true;
}

/* The slot to be written over: the clock's hand passes those just used. */
static struct meta_slot *slot_victim(uint64_t set)
{
	struct meta_slot *ways = &cache.slots[set * META_WAYS], *s;
	unsigned int i;

	for (i = 0;; i++) {
		s = &ways[cache.hands[set]++ % META_WAYS];
		if (i >= META_WAYS ||
		    !atomic_exchange_explicit(&s->used, false,
					      memory_order_relaxed))
			return s;
	}
}

static void slot_write(struct meta_slot *s, uint64_t owner, uint64_t page,
		       const uint64_t *data)
{
	meta_word *words = slot_words(s);
	uint64_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);
	size_t i;

	/* Each release keeps the odd number in front of what follows it. */
	atomic_store_explicit(&s->seq, seq + 1, memory_order_relaxed);
	atomic_store_explicit(&s->owner, owner, memory_order_release);
	atomic_store_explicit(&s->page, page, memory_order_release);
	for (i = 0; i < META_PAGE_WORDS; i++)
		atomic_store_explicit(&words[i], data[i], memory_order_release);
	atomic_store_explicit(&s->seq, seq + 2, memory_order_release);
}

static uint64_t meta_set(uint64_t owner, uint64_t page)
{
	struct cache_key key = { .owner = owner, .at = page };

	return hash_key(&key) % cache.meta_sets;
}

/* Reads the page from the file and keeps it. */
static int meta_load(struct source *src, uint64_t page, uint64_t *data,
		     struct error *err)
{
	uint64_t at = page * META_PAGE_BYTES, set = meta_set(src->id, page);
	size_t n = (size_t)min_u64(META_PAGE_BYTES, src->bytes - at);
	pthread_mutex_t *lock = &cache.meta_locks[set % META_LOCKS];
	int r;

	memset((uint8_t *)data + n, 0, META_PAGE_BYTES - n);
	r = source_read(src, data, n, at, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(lock);
	slot_write(slot_victim(set), src->id, page, data);
	pthread_mutex_unlock(lock);
	return 0;
}

static int meta_read_in_page(struct source *src, uint64_t page, size_t off,
			     uint8_t *buf, size_t len, struct error *err)
{
	struct meta_slot *ways =
		&cache.slots[meta_set(src->id, page) * META_WAYS];
	uint64_t data[META_PAGE_WORDS] __attribute__((aligned(4096)));
	unsigned int i;
	int r;

	for (i = 0; i < META_WAYS; i++)
		if (slot_read(&ways[i], src->id, page, off, buf, len))
			return 0;
	atomic_fetch_add_explicit(&cache.meta_misses, 1, memory_order_relaxed);
	r = meta_load(src, page, data, err);
	if (r < 0)
		return r;
	memcpy(buf, (uint8_t *)data + off, len);
	return 0;
}

int cache_read_meta(struct source *src, void *buf, size_t len, uint64_t off,
		    struct error *err)
{
	uint8_t *p = buf;
	int r;

	ensure_started();
	if (!range_inside(off, len, src->bytes))
		return source_read(src, buf, len, off, err); /* says so */
	while (len) {
		size_t in = (size_t)(off % META_PAGE_BYTES);
		size_t n = min_size(len, META_PAGE_BYTES - in);

		r = meta_read_in_page(src, off / META_PAGE_BYTES, in, p, n,
				      err);
		if (r < 0)
			return r;
		off += n;
		p += n;
		len -= n;
	}
	return 0;
}
