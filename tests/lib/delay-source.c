/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "iouring/batch.h"
#include "tests/lib/delay-source.h"

static bool is_bad(const struct delay_source *d, const struct batch_io *io)
{
	uint64_t off = io->src->root_off + io->off;

	return off < d->bad_end && off + io->len > d->bad_off;
}

static void begin(struct delay_source *d, struct batch_io *io)
{
	unsigned int n, most;

	if (is_bad(d, io) && !d->bad_late) {
		io->ret = d->bad_code;
		return;
	}
	io->ret = 0;
	io->token = (void *)(uintptr_t)(now_nsec() + d->delay_nsec);
	atomic_fetch_add(&d->reads, 1);
	n = atomic_fetch_add(&d->in_flight, 1) + 1;
	most = atomic_load(&d->in_flight_max);
	while (most < n &&
	       !atomic_compare_exchange_weak(&d->in_flight_max, &most, n))
		;
}

static void delay_start(struct source *s, struct batch_io *ios, size_t n,
			bool may_wait)
{
	struct delay_source *d = container_of(s, struct delay_source, base);
	unsigned int places = d->places;
	size_t i;

	if (d->busy && !may_wait)
		return;
	for (i = 0; i < n; i++) {
		if (ios[i].src->root != s || ios[i].ret != BATCH_NOT_STARTED)
			continue;
		begin(d, &ios[i]);
		if (places && !--places)
			return;
	}
}

static void sleep_until(struct delay_source *d, uint64_t nsec)
{
	struct timespec t = { .tv_sec = (time_t)(nsec / 1000000000U),
			      .tv_nsec = (long)(nsec % 1000000000U) };

	if (now_nsec() >= nsec)
		return;
	/* Those begun a moment later come with the same answer. */
	t.tv_nsec += 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	atomic_fetch_add(&d->waits, 1);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

static void delay_finish(struct source *s, struct batch_io *ios, size_t n)
{
	struct delay_source *d = container_of(s, struct delay_source, base);
	size_t i;

	for (i = n; i--;) {
		struct batch_io *io = &ios[i];

		if (io->src->root != s || !io->token)
			continue;
		sleep_until(d, (uint64_t)(uintptr_t)io->token);
		if (is_bad(d, io))
			io->ret = d->bad_code;
		else
			memcpy(io->buf, d->data + io->src->root_off + io->off,
			       io->len);
		io->token = NULL;
		atomic_fetch_sub(&d->in_flight, 1);
	}
}

static void delay_identify(const struct source *s, struct source_identity *ret)
{
	const struct delay_source *d =
		container_of(s, struct delay_source, base);

	if (!d->name)
		return;
	ret->kind = SOURCE_OBJECT;
	ret->name = d->name;
	ret->version = d->version;
}

static const struct source_ops delay_ops = {
	.name = "delay",
	.start = delay_start,
	.finish = delay_finish,
	.identify = delay_identify,
};

struct delay_source *delay_source_new(const void *data, size_t bytes,
				      unsigned int delay_ms)
{
	struct delay_source *d = calloc(1, sizeof(*d));

	if (!d)
		abort();
	source_init(&d->base, &delay_ops, bytes);
	d->data = data;
	d->delay_nsec = (uint64_t)delay_ms * 1000000;
	return d;
}
