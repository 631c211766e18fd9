/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "formats/cache-hash.h"
#include "formats/meta-cache.h"
#include "iouring/batch.h"
#include "iouring/nowait.h"

/*
 * Slots of one page each, in an arena of fixed size, in sets of META_WAYS. A
 * reader copies what it wants and then looks whether the slot's sequence number
 * is still the (even) one it saw before; a writer makes it odd for as long as
 * it changes the slot. Slots are never unmapped, so a reader that loses the race
 * has read nonsense, not freed memory, and tries elsewhere. Words are atomic
 * because the race is intended; acquire and release keep them between the two
 * looks at the number.
 *
 * A page that is missing is brought by a flight: it is in the list from before
 * the source is read until the slots are written, so who finds neither page nor
 * flight, under the list's lock, is the first and flies. Everybody else waits
 * for him, and gets his error. Who waits has no flight of his own; the source
 * that is read meanwhile may be nested and wait for flights of its own tables,
 * which never wait for ours. No lock is held while a source is read.
 *
 * Who is next to miss where a flight ended reads on in order: his flight is
 * twice as long. Of files that are written nothing is read ahead: their pages
 * are read before they are written, and never after. Not done: reading ahead
 * while nobody waits, which would need a thread; backwards.
 */

#define META_PAGE_BYTES 4096U
#define META_PAGE_WORDS (META_PAGE_BYTES / 8)
#define META_WAYS	8U
#define META_PAGES_MIN	64U
#define META_LOCKS	64U

/* Read ahead: of files, and of what says how much it likes at a time. */
#define AHEAD_PAGES    16U
#define AHEAD_READS    4U
#define READ_BYTES_MAX (1U << 20)
#define TRAILS	       256U

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

/* Pages on their way. */
struct flight {
	struct flight *next;
	uint64_t owner, page, n;
	pthread_cond_t landed;
	unsigned int refs; /* who flies, and who waits; under the lock */
	bool done;
	int code; /* when done: 0, or what the source failed with */
};

/* A flight of @n pages ended before @page. */
struct trail {
	uint64_t owner, page, n;
};

static struct {
	pthread_mutex_t lock; /* of all of this, and of what flights hold */
	struct flight *first;
	struct trail trails[TRAILS];
} air = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* For asserts: flights of this thread, one by way of another. */
static __thread unsigned int flying;

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
	assert(!air.first);
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

static bool is_kept(uint64_t owner, uint64_t page)
{
	struct meta_slot *ways =
		&cache.slots[meta_set(owner, page) * META_WAYS];
	unsigned int i;

	for (i = 0; i < META_WAYS; i++)
		if (atomic_load(&ways[i].owner) == owner &&
		    atomic_load(&ways[i].page) == page)
			return true;
	return false;
}

/* Nobody else keeps this page: it is one flight's. */
static void keep_page(uint64_t owner, uint64_t page, const uint64_t *data)
{
	uint64_t set = meta_set(owner, page);
	pthread_mutex_t *lock = &cache.locks[set % META_LOCKS];

	pthread_mutex_lock(lock);
	assert(!is_kept(owner, page));
	slot_write(slot_victim(set), owner, page, data);
	pthread_mutex_unlock(lock);
}

static bool look_up(const struct source *src, uint64_t page, size_t off,
		    uint8_t *buf, size_t len)
{
	struct meta_slot *ways =
		&cache.slots[meta_set(src->id, page) * META_WAYS];
	unsigned int i;

	for (i = 0; i < META_WAYS; i++)
		if (slot_read(&ways[i], src->id, page, off, buf, len))
			return true;
	return false;
}

static struct trail *trail_at(uint64_t owner, uint64_t page)
{
	return &air.trails[cache_hash(owner, page) % TRAILS];
}

/* The one that brings @page, or begins in [@page, @page + @n). */
static struct flight *find_flight(uint64_t owner, uint64_t page, uint64_t n)
{
	struct flight *f = air.first;

	while (f && (f->owner != owner || f->page >= page + n ||
		     f->page + f->n <= page))
		f = f->next;
	return f;
}

/* Pages that @src likes to be read at a time. */
static uint64_t liked_pages(const struct source *src)
{
	uint64_t pages = src->root->read_bytes / META_PAGE_BYTES;

	if (!is_power_of_2(pages))
		return 1;
	while (pages > READ_BYTES_MAX / META_PAGE_BYTES || pages > cache.sets)
		pages /= 2;
	return pages;
}

/* Which pages to bring when @page is missing. The lock is held. */
static void plan(const struct source *src, uint64_t page, struct flight *f)
{
	uint64_t liked = liked_pages(src), first = round_down(page, liked);
	uint64_t most = liked > 1 ? liked * AHEAD_READS : AHEAD_PAGES;
	uint64_t n = liked, end = div_round_up(src->bytes, META_PAGE_BYTES);
	const struct trail *t = trail_at(src->id, first);
	const struct flight *other;

	ASSERT_HELD(&air.lock);
	if (t->owner == src->id && t->page == first)
		n = min_u64(2 * t->n, most);
	end = min_u64(end, first + min_u64(n, cache.sets));
	if (source_file(src) && source_file(src)->writable) {
		first = page;
		end = page + 1;
	}
	/* What others bring is left to them. */
	while ((other = find_flight(src->id, first, end - first)))
		if (other->page > page)
			end = other->page;
		else
			first = other->page + other->n;
	/* So is what is there. */
	while (first < page && is_kept(src->id, first))
		first++;
	for (n = page + 1; n < end; n++)
		if (is_kept(src->id, n))
			end = n;
	assert(first <= page && page < end);
	f->owner = src->id;
	f->page = first;
	f->n = end - first;
	*trail_at(src->id, end) = (struct trail){ src->id, end, f->n };
}

/*
 * The flight that brings @page: somebody else's, to be waited for, or a new
 * one, to be flown (*ret_ours). 0: the page has come meanwhile and was copied;
 * 1: *ret is a flight.
 */
static int board(const struct source *src, uint64_t page, size_t off,
		 uint8_t *buf, size_t len, struct flight **ret, bool *ret_ours)
{
	struct flight *f, *own = calloc(1, sizeof(*own));
	int r = 1;

	if (!own)
		return -ENOMEM;
	pthread_mutex_lock(&air.lock);
	f = find_flight(src->id, page, 1);
	*ret_ours = !f;
	if (f) {
		f->refs++;
	} else if (look_up(src, page, off, buf, len)) {
		r = 0;
	} else {
		f = TAKE_PTR(own);
		plan(src, page, f);
		f->refs = 1;
		pthread_cond_init(&f->landed, NULL);
		f->next = air.first;
		air.first = f;
	}
	pthread_mutex_unlock(&air.lock);
	free(own);
	*ret = f;
	return r;
}

/* The lock is held. */
static void leave(struct flight *f)
{
	ASSERT_HELD(&air.lock);
	assert(f->refs);
	if (--f->refs)
		return;
	pthread_cond_destroy(&f->landed);
	free(f);
}

static void land(struct flight *f, int code)
{
	struct flight **p = &air.first;

	pthread_mutex_lock(&air.lock);
	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	f->done = true;
	f->code = code;
	pthread_cond_broadcast(&f->landed);
	leave(f);
	pthread_mutex_unlock(&air.lock);
}

/*
 * Until another thread's flight has landed: its code. -EAGAIN also where this
 * thread may not wait.
 */
static int await(struct flight *f)
{
	int code;

	assert(flying <= batch_depth());
	pthread_mutex_lock(&air.lock);
	while (!f->done && may_wait())
		wait_on(&f->landed, &air.lock);
	code = f->done ? f->code : -EAGAIN;
	leave(f);
	pthread_mutex_unlock(&air.lock);
	return code;
}

/* Reads @n pages to @data, which has room for them, and keeps them. */
static int fetch(struct source *src, uint64_t page, uint64_t n, uint64_t *data,
		 struct error *err)
{
	uint64_t at = page * META_PAGE_BYTES, i;
	size_t all = (size_t)n * META_PAGE_BYTES;
	size_t there = (size_t)min_u64(all, src->bytes - at);
	int r;

	memset((uint8_t *)data + there, 0, all - there);
	r = source_read(src, data, there, at, err);
	for (i = 0; !r && i < n; i++)
		keep_page(src->id, page + i, data + i * META_PAGE_WORDS);
	if (!r)
		atomic_fetch_add_explicit(&cache.misses, n,
					  memory_order_relaxed);
	return r;
}

/* All of @f, and a copy of @len bytes at @off of its page @page. */
static int fetch_all(struct source *src, const struct flight *f, uint64_t page,
		     size_t off, uint8_t *buf, size_t len)
{
	size_t in = (size_t)(page - f->page) * META_PAGE_BYTES + off;
	CLEANUP(freep)
	uint64_t *data =
		aligned_alloc(META_PAGE_BYTES, (size_t)f->n * META_PAGE_BYTES);
	int r = data ? fetch(src, f->page, f->n, data, NULL) : -ENOMEM;

	if (!r)
		memcpy(buf, (uint8_t *)data + in, len);
	return r;
}

/*
 * Brings the pages of our @f, of which @page is one, or that one alone: what
 * cannot be read beside it, or kept in memory, is no fault of it.
 */
static int fly(struct source *src, struct flight *f, uint64_t page, size_t off,
	       uint8_t *buf, size_t len, struct error *err)
{
	uint64_t one[META_PAGE_WORDS] __attribute__((aligned(4096)));
	bool all;
	int r;

	flying++;
	all = f->n > 1 && !fetch_all(src, f, page, off, buf, len);
	r = all ? 0 : fetch(src, page, 1, one, err);
	flying--;
	if (!all && !r)
		memcpy(buf, (uint8_t *)one + off, len);
	/* Who waits for another page of it has to look for himself. */
	land(f, all || f->n == 1 ? r : -EAGAIN);
	return r;
}

static int meta_read_in_page(struct source *src, uint64_t page, size_t off,
			     uint8_t *buf, size_t len, struct error *err)
{
	struct flight *f;
	bool ours;
	int r;

	while (!look_up(src, page, off, buf, len)) {
		r = board(src, page, off, buf, len, &f, &ours);
		if (r > 0 && ours)
			return fly(src, f, page, off, buf, len, err);
		if (!r)
			return 0;
		if (r > 0)
			r = await(f);
		if (r == -EAGAIN && !may_wait())
			return r;
		/* -EAGAIN, or written over already: look again. */
		if (r < 0 && r != -EAGAIN)
			return error_set(err, r, page * META_PAGE_BYTES,
					 "%zu bytes at %" PRIu64
					 " cannot be read: %s",
					 len, page * META_PAGE_BYTES + off,
					 errno_text(-r));
	}
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
