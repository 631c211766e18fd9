/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An overlay's epoch. It is raised in this order, so that neither a crash nor a
 * request that comes meanwhile lets two epochs write:
 *
 *	fence	lower ones are refused from now on
 *	drain	what they had under way has ended
 *	flush	and is durable
 *	header	so is the epoch
 *	epoch	now writers of it may begin
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/overlay-inside.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/nowait.h"

uint64_t overlay_epoch(const struct overlay *o)
{
	return atomic_load(&o->fence);
}

bool overlay_has_epoch(const struct overlay *o, uint64_t epoch)
{
	/* What it is at is only known once it is ours. */
	return !atomic_load(&o->standby) && atomic_load(&o->epoch) >= epoch;
}

static int is_stale(const struct overlay *o, uint64_t epoch, struct error *err)
{
	return error_set(err, -ESTALE, 0,
			 "epoch %" PRIu64
			 " is over: the overlay is at %" PRIu64,
			 epoch, atomic_load(&o->fence));
}

/* 1: it is to be fenced, by us, until end(). */
static int begin(struct overlay *o, uint64_t epoch, struct error *err)
{
	int r = 1;

	pthread_mutex_lock(&o->fence_lock);
	/* Who fences a later one may wait for us to give up. */
	while (o->fencing && atomic_load(&o->fence) <= epoch)
		wait_on(&o->fenced, &o->fence_lock);
	if (atomic_load(&o->fence) > epoch)
		r = is_stale(o, epoch, err);
	else if (overlay_has_epoch(o, epoch))
		r = 0;
	else
		o->fencing = true;
	if (r == 1)
		atomic_store(&o->fence, epoch);
	pthread_mutex_unlock(&o->fence_lock);
	return r;
}

static void end(struct overlay *o, uint64_t epoch)
{
	pthread_mutex_lock(&o->fence_lock);
	atomic_store(&o->epoch, epoch);
	atomic_store(&o->fence, epoch);
	o->fencing = false;
	pthread_cond_broadcast(&o->fenced);
	pthread_mutex_unlock(&o->fence_lock);
}

static int write_epoch(struct overlay *o, uint64_t epoch, struct error *err)
{
	int r;

	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	r = qcow2_set_epoch(o->file, epoch, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return r;
}

int overlay_fence(struct overlay *o, uint64_t epoch,
		  void (*drain)(void *opaque, uint64_t epoch), void *opaque,
		  struct error *err)
{
	int r = overlay_make(o, err);

	if (r >= 0)
		r = begin(o, epoch, err);
	if (r <= 0)
		return r;
	drain(opaque, epoch);
	r = overlay_flush(o, err);
	if (r >= 0)
		r = write_epoch(o, epoch, err);
	end(o, r < 0 ? atomic_load(&o->epoch) : epoch);
	return r;
}
