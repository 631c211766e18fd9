/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "formats/arena.h"
#include "iouring/util.h"

/* With AddressSanitizer, what is free must not be touched. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)   ((void)(p), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p), (void)(bytes))
#endif

#define ORDERS 32U
#define NONE   UINT32_MAX

/* Huge pages lie at such offsets. */
#define HUGE_BYTES (2U << 20)

/* A page; of a free block, its first page tells. All zeroes: in use. */
struct page {
	uint32_t next, prev; /* free blocks of the same order */
	uint8_t order;
	bool free; /* a free block of 1 << order pages begins here */
};

struct arena {
	uint8_t *memory;
	size_t mapped_bytes;
	uint32_t n_pages;
	uint32_t used; /* pages */
	uint32_t heads[ORDERS]; /* of free blocks of 1 << order pages */
	pthread_mutex_t lock;
	struct page pages[];
};

static void push(struct arena *a, uint32_t at, unsigned int order)
{
	uint32_t next = a->heads[order];

	assert(!a->pages[at].free);
	a->pages[at] = (struct page){ next, NONE, (uint8_t)order, true };
	if (next != NONE)
		a->pages[next].prev = at;
	a->heads[order] = at;
}

static void pull(struct arena *a, uint32_t at)
{
	struct page *p = &a->pages[at];

	if (p->next != NONE)
		a->pages[p->next].prev = p->prev;
	if (p->prev != NONE)
		a->pages[p->prev].next = p->next;
	else
		a->heads[p->order] = p->next;
	p->free = false;
}

/* Frees a block, and joins it with its free other halves. */
static void give_block(struct arena *a, uint32_t at, unsigned int order)
{
	uint32_t buddy;

	for (;; order++) {
		buddy = at ^ (1U << order);
		if (order + 1 >= ORDERS || buddy >= a->n_pages ||
		    !a->pages[buddy].free || a->pages[buddy].order != order)
			break;
		pull(a, buddy);
		at = at < buddy ? at : buddy;
	}
	push(a, at, order);
}

/* Frees pages as the largest blocks that they make up. */
static void give_pages(struct arena *a, uint32_t at, uint32_t n)
{
	unsigned int order;

	while (n) {
		order = at ? (unsigned int)__builtin_ctz(at) : ORDERS - 1;
		while (1ULL << order > n)
			order--;
		give_block(a, at, order);
		at += 1U << order;
		n -= 1U << order;
	}
}

int arena_new(size_t bytes, struct arena **ret)
{
	uint64_t n = min_u64(bytes / ARENA_PAGE_BYTES, 1U << (ORDERS - 1));
	struct arena *a = calloc(1, sizeof(*a) + n * sizeof(struct page));
	size_t i;

	if (!a)
		return -ENOMEM;
	a->n_pages = (uint32_t)n;
	a->mapped_bytes = n * ARENA_PAGE_BYTES + HUGE_BYTES;
	a->memory = mmap(NULL, a->mapped_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->memory == MAP_FAILED) {
		free(a);
		return -ENOMEM;
	}
	/* A hint: where there are none, it is touched page by page. */
	madvise(a->memory, a->mapped_bytes, MADV_HUGEPAGE);
	for (i = 0; i < ORDERS; i++)
		a->heads[i] = NONE;
	pthread_mutex_init(&a->lock, NULL);
	give_pages(a, 0, a->n_pages);
	ASAN_POISON_MEMORY_REGION(a->memory, a->mapped_bytes);
	*ret = a;
	return 0;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	ASAN_UNPOISON_MEMORY_REGION(a->memory, a->mapped_bytes);
	munmap(a->memory, a->mapped_bytes);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Where the first page lies. */
static uint8_t *base(const struct arena *a)
{
	return a->memory + (-(uintptr_t)a->memory % HUGE_BYTES);
}

static uint8_t *page_memory(const struct arena *a, uint32_t at)
{
	return base(a) + (size_t)at * ARENA_PAGE_BYTES;
}

static uint32_t pages_in(size_t bytes)
{
	return (uint32_t)div_round_up(bytes, ARENA_PAGE_BYTES);
}

/* The smallest order that holds @n pages. */
static unsigned int order_of(uint32_t n)
{
	return n > 1 ? 32 - (unsigned int)__builtin_clz(n - 1) : 0;
}

size_t arena_largest(const struct arena *a)
{
	uint32_t n = a->n_pages;

	return n ? (size_t)ARENA_PAGE_BYTES << (31 - __builtin_clz(n)) : 0;
}

/* A block of @order at least, out of its list; NONE: there is none. */
static uint32_t take_block(struct arena *a, unsigned int order)
{
	unsigned int o = order;
	uint32_t at;

	while (o < ORDERS && a->heads[o] == NONE)
		o++;
	if (o == ORDERS)
		return NONE;
	at = a->heads[o];
	pull(a, at);
	while (o-- > order)
		push(a, at + (1U << o), o);
	return at;
}

void *arena_take(struct arena *a, size_t bytes)
{
	uint8_t *ret = NULL;
	uint32_t n, at;

	assert(bytes);
	if (bytes > arena_largest(a))
		return NULL;
	n = pages_in(bytes);
	pthread_mutex_lock(&a->lock);
	at = take_block(a, order_of(n));
	if (at != NONE) {
		give_pages(a, at + n, (1U << order_of(n)) - n);
		a->used += n;
		ret = page_memory(a, at);
		ASAN_UNPOISON_MEMORY_REGION(ret, bytes);
	}
	pthread_mutex_unlock(&a->lock);
	return ret;
}

static void give(struct arena *a, uint32_t at, uint32_t n)
{
	pthread_mutex_lock(&a->lock);
	assert(n <= a->used);
	ASAN_POISON_MEMORY_REGION(page_memory(a, at),
				  (size_t)n * ARENA_PAGE_BYTES);
	give_pages(a, at, n);
	a->used -= n;
	pthread_mutex_unlock(&a->lock);
}

static uint32_t page_at(const struct arena *a, const void *p)
{
	return (uint32_t)((size_t)((const uint8_t *)p - base(a)) /
			  ARENA_PAGE_BYTES);
}

void arena_give(struct arena *a, void *p, size_t bytes)
{
	give(a, page_at(a, p), pages_in(bytes));
}

size_t arena_used(struct arena *a)
{
	size_t n;

	pthread_mutex_lock(&a->lock);
	n = (size_t)a->used * ARENA_PAGE_BYTES;
	pthread_mutex_unlock(&a->lock);
	return n;
}
