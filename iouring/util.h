/* SPDX-License-Identifier: BSD-3-Clause */
/* Small macros that every room uses. */
#ifndef IOURING_UTIL_H
#define IOURING_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	  (sizeof(a) / sizeof((a)[0]))
#define CLEANUP(fn)	  __attribute__((cleanup(fn)))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr)-offsetof(type, member)))

/* What an analyser of one file cannot know, and nobody else needs to be told. */
#ifdef __clang_analyzer__
#define ANALYSER_ASSUME(x)                       \
	do {                                     \
		if (!(x))                        \
			__builtin_unreachable(); \
	} while (0)
#else
#define ANALYSER_ASSUME(x) ((void)0)
#endif

/*
 * For functions that rely on their caller's lock; with <assert.h>, <errno.h> and
 * <pthread.h>. It is held, if by whom cannot be told.
 */
#define ASSERT_HELD(lock) assert(pthread_mutex_trylock(lock) == EBUSY)

/* Hands the pointer over: the variable no longer owns it. */
#define TAKE_PTR(p)                                           \
	({                                                    \
		__typeof__(p) *from_ = &(p), taken_ = *from_; \
		*from_ = NULL;                                \
		taken_;                                       \
	})

/* The same for a file descriptor. */
#define TAKE_FD(fd)                                  \
	({                                           \
		int *from_ = &(fd), taken_ = *from_; \
		*from_ = -1;                         \
		taken_;                              \
	})

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline bool is_power_of_2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* @align is a power of two. */
static inline uint64_t round_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

/* @align is a power of two and @v + @align does not overflow. */
static inline uint64_t round_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

/* Does not overflow; @d > 0. */
static inline uint64_t div_round_up(uint64_t v, uint64_t d)
{
	return v / d + !!(v % d);
}

/* Is [@off, @off + @len) inside [0, @limit)? Does not overflow. */
static inline bool range_inside(uint64_t off, uint64_t len, uint64_t limit)
{
	return off <= limit && len <= limit - off;
}

/* @len > 0 */
static inline bool is_all_zero(const void *buf, size_t len)
{
	const uint8_t *p = (const uint8_t *)buf;

	return !p[0] && !memcmp(p, p + 1, len - 1);
}

#define NSEC 1000000000ULL /* in a second */

/* Of the clock that nobody sets. */
static inline uint64_t now_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC + (uint64_t)t.tv_nsec;
}

/* For CLEANUP() on plain pointers and descriptors. */
static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#endif
