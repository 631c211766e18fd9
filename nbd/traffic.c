/* SPDX-License-Identifier: BSD-3-Clause */
#include "iouring/util.h"
#include "nbd/traffic.h"

static void add(_Atomic uint64_t *to, uint64_t n)
{
	if (n)
		atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static unsigned int bucket_of(uint64_t nsec)
{
	uint64_t usec = nsec / 1000;
	unsigned int bits = usec ? 64 - (unsigned int)__builtin_clzll(usec) : 0;

	return bits < TRAFFIC_BUCKETS ? bits : TRAFFIC_BUCKETS - 1;
}

/* This thread's, for as long as it lives. */
static unsigned int my_stripe(void)
{
	static atomic_uint threads;
	static _Thread_local unsigned int mine; /* one more; 0: not yet */

	if (!mine)
		mine = 1 + atomic_fetch_add_explicit(&threads, 1,
						     memory_order_relaxed) %
				   TRAFFIC_STRIPES;
	return mine - 1;
}

void traffic_note(struct traffic_meter *m, enum traffic_op op, uint64_t bytes,
		  uint64_t nsec, bool failed)
{
	struct traffic_count *c = &m->stripes[my_stripe()].ops[op];

	add(&c->requests, 1);
	if (failed)
		add(&c->errors, 1);
	else
		add(&c->bytes, bytes);
	add(&c->nsec, nsec);
	add(&c->took[bucket_of(nsec)], 1);
}

static void move(_Atomic uint64_t *to, const _Atomic uint64_t *from)
{
	add(to, atomic_load_explicit(from, memory_order_relaxed));
}

void traffic_add(struct traffic *to, const struct traffic *from)
{
	unsigned int op, i;

	for (op = 0; op < TRAFFIC_OPS; op++) {
		struct traffic_count *a = &to->ops[op];
		const struct traffic_count *b = &from->ops[op];

		move(&a->requests, &b->requests);
		move(&a->errors, &b->errors);
		move(&a->bytes, &b->bytes);
		move(&a->nsec, &b->nsec);
		for (i = 0; i < TRAFFIC_BUCKETS; i++)
			move(&a->took[i], &b->took[i]);
	}
}

void traffic_sum(struct traffic *to, const struct traffic_meter *from)
{
	unsigned int i;

	for (i = 0; i < TRAFFIC_STRIPES; i++)
		traffic_add(to, &from->stripes[i]);
}

const char *traffic_op_name(enum traffic_op op)
{
	static const char *const names[TRAFFIC_OPS] = {
		"read", "write", "zero", "trim", "flush", "status", "cache",
	};

	return names[op];
}
