/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "formats/arena.h"
#include "formats/room.h"
#include "iouring/nowait.h"
#include "iouring/util.h"

#define ROOM_BYTES_DEFAULT (8U << 20)

/*
 * Who must wait draws a ticket, and is served in its turn. He sleeps on the
 * condition that his ticket shares with few others.
 */
#define TURNS 64U

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct arena *arena;
static pthread_cond_t turns[TURNS] = {
	[0 ... TURNS - 1] = PTHREAD_COND_INITIALIZER,
};
static uint64_t drawn, served; /* tickets; the next to be served is @served */
static size_t configured_bytes = ROOM_BYTES_DEFAULT;

/* Held by who has more than there is. */
static pthread_mutex_t alone_lock = PTHREAD_MUTEX_INITIALIZER;

void room_configure(size_t bytes)
{
	configured_bytes = bytes;
}

void room_shutdown(void)
{
	pthread_mutex_lock(&lock);
	arena_free(TAKE_PTR(arena));
	pthread_mutex_unlock(&lock);
}

static int take_alone(size_t bytes, struct room *ret)
{
	uint8_t *data;

	pthread_mutex_lock(&alone_lock);
	data = malloc(bytes);
	if (!data) {
		pthread_mutex_unlock(&alone_lock);
		return -ENOMEM;
	}
	ret->data = data;
	ret->bytes = bytes;
	ret->alone = true;
	return 0;
}

static void call_next(void)
{
	if (served != drawn)
		pthread_cond_broadcast(&turns[served % TURNS]);
}

/* Under the lock, which it lets go of meanwhile. */
static uint8_t *wait_for(size_t bytes)
{
	uint64_t ticket = drawn++;
	uint8_t *data;

	while (ticket != served || !(data = arena_take(arena, bytes)))
		wait_on(&turns[ticket % TURNS], &lock);
	served++;
	call_next();
	return data;
}

int room_take(size_t bytes, struct room *ret)
{
	uint8_t *data = NULL;
	int r = 0;

	pthread_mutex_lock(&lock);
	if (!arena)
		r = arena_new(configured_bytes, &arena);
	if (r < 0 || bytes > arena_largest(arena)) {
		pthread_mutex_unlock(&lock);
		return r < 0 ? r : take_alone(bytes, ret);
	}
	/* Nobody passes those who wait. */
	if (served == drawn)
		data = arena_take(arena, bytes);
	if (!data)
		data = wait_for(bytes);
	pthread_mutex_unlock(&lock);
	*ret = (struct room){ data, bytes, false };
	return 0;
}

void room_give(struct room *r)
{
	if (!r->data)
		return;
	if (r->alone) {
		free(r->data);
		pthread_mutex_unlock(&alone_lock);
	} else {
		pthread_mutex_lock(&lock);
		arena_give(arena, r->data, r->bytes);
		call_next();
		pthread_mutex_unlock(&lock);
	}
	*r = (struct room){ 0 };
}

void room_get_stats(struct room_stats *ret)
{
	pthread_mutex_lock(&lock);
	*ret = (struct room_stats){ .bytes = arena ? arena_used(arena) : 0,
				    .waits = drawn };
	pthread_mutex_unlock(&lock);
}
