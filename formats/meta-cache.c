/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "formats/cache-hash.h"
#include "formats/meta-cache.h"

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
	uint64_t sets;
	struct meta_slot *slots;
	meta_word *pages;
	size_t pages_bytes;
	pthread_mutex_t locks[META_LOCKS]; /* of writers, by set */
	uint8_t *hands; /* of the clock, by set */
	atomic_uint_fast64_t misses;
} cache;

static uint64_t configured_bytes = META_CACHE_BYTES_DEFAULT;
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool started;

void meta_cache_configure(uint64_t bytes)
{
	configured_bytes = bytes;
}

static bool make(void)
{
	uint64_t pages = configured_bytes / META_PAGE_BYTES, i;

	pages = max_u64(round_down(pages, META_WAYS), META_PAGES_MIN);
	cache.sets = pages / META_WAYS;
	cache.pages_bytes = (size_t)(pages * META_PAGE_BYTES);
	cache.slots = calloc(pages, sizeof(*cache.slots));
	cache.hands = calloc(cache.sets, 1);
	cache.pages = mmap(NULL, cache.pages_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (i = 0; i < META_LOCKS; i++)
		pthread_mutex_init(&cache.locks[i], NULL);
	return cache.slots && cache.hands && cache.pages != MAP_FAILED;
}

static void start(void)
{
	pthread_mutex_lock(&start_lock);
	if (!atomic_load(&started)) {
		if (!make())
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

void meta_cache_shutdown(void)
{
	size_t i;

	pthread_mutex_lock(&start_lock);
	if (atomic_load(&started)) {
		for (i = 0; i < META_LOCKS; i++)
			pthread_mutex_destroy(&cache.locks[i]);
		munmap(cache.pages, cache.pages_bytes);
		free(cache.slots);
		free(cache.hands);
		atomic_store(&started, false);
	}
	pthread_mutex_unlock(&start_lock);
}

uint64_t meta_cache_misses(void)
{
	return atomic_load(&cache.misses);
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
	return cache_hash(owner, page) % cache.sets;
}

/* Reads the page from the file and keeps it. */
static int meta_load(struct source *src, uint64_t page, uint64_t *data,
		     struct error *err)
{
	uint64_t at = page * META_PAGE_BYTES, set = meta_set(src->id, page);
	size_t n = (size_t)min_u64(META_PAGE_BYTES, src->bytes - at);
	pthread_mutex_t *lock = &cache.locks[set % META_LOCKS];
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
	atomic_fetch_add_explicit(&cache.misses, 1, memory_order_relaxed);
	r = meta_load(src, page, data, err);
	if (r < 0)
		return r;
	memcpy(buf, (uint8_t *)data + off, len);
	return 0;
}

int meta_cache_read(struct source *src, void *buf, size_t len, uint64_t off,
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
