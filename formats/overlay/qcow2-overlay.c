/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of an overlay's guest: what may be asked, and what is done before
 * one is answered. See qcow2-write.h for how they reach the disk.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-guest.h"
#include "iouring/nowait.h"
#include "iouring/write.h"

static int check_range(const struct qcow2_file *o, uint64_t off, uint64_t len,
		       struct error *err)
{
	if (range_inside(off, len, o->bytes))
		return 0;
	return error_set(err, -EINVAL, off,
			 "%" PRIu64 " bytes at %" PRIu64
			 " are not inside the disk's %" PRIu64,
			 len, off, o->bytes);
}

int qcow2_file_read(struct qcow2_file *o, void *buf, size_t len, uint64_t off,
		    struct zero_runs *zeroes, struct error *err)
{
	int r = check_range(o, off, len, err);

	if (r < 0 || !len)
		return r;
	r = lookup_read(o, buf, len, off, zeroes, err);
	/* What was seen once is not to be unseen, though nobody was told. */
	if (log_commit(o, NULL) < 0 && !may_wait())
		return -EAGAIN;
	return r;
}

int qcow2_file_walk(struct qcow2_file *o, uint64_t off, uint64_t len,
		    int (*each)(void *opaque, uint64_t off,
				const struct extent *e),
		    void *opaque, uint64_t *ret_end, struct error *err)
{
	int r = check_range(o, off, len, err);

	return r < 0 ? r : lookup_walk(o, off, len, each, opaque, ret_end, err);
}

int qcow2_file_walk_changes(struct qcow2_file *o, struct image *from,
			    uint64_t off, uint64_t len,
			    int (*each)(void *opaque, uint64_t off,
					uint64_t len, enum change change),
			    void *opaque, uint64_t *ret_end, struct error *err)
{
	int r = check_range(o, off, len, err);

	return r < 0 ? r
		     : lookup_walk_changes(o, from, off, len, each, opaque,
					   ret_end, err);
}

bool qcow2_file_is_full(struct qcow2_file *o)
{
	bool many;

	pthread_mutex_lock(&o->meta);
	many = tables_are_many_dirty(o) || log_is_due(o);
	pthread_mutex_unlock(&o->meta);
	return many;
}

/* What is to be done with one subcluster's worth of a write. */
enum fate { FATE_WRITE, FATE_ZERO, FATE_DROP };

static enum fate find_fate(struct qcow2_file *o, const uint8_t *buf,
			   uint64_t len, uint64_t off, uint8_t *scratch)
{
	struct extent e;

	if (o->options.detect & OVERLAY_DETECT_ZEROES && is_all_zero(buf, len))
		return FATE_ZERO;
	if (!(o->options.detect & OVERLAY_DETECT_BASE) ||
	    lookup_own(o, off, len, &e, NULL) < 0 || e.kind != EXTENT_HOLE ||
	    e.len < len)
		return FATE_WRITE;
	if (lookup_read(o, scratch, len, off, NULL, NULL) < 0 ||
	    memcmp(scratch, buf, len) != 0)
		return FATE_WRITE;
	return FATE_DROP;
}

static int apply_fate(struct qcow2_file *o, enum fate fate, const uint8_t *buf,
		      uint64_t len, uint64_t off, struct error *err)
{
	switch (fate) {
	case FATE_WRITE:
		return rounds_write(o, buf, len, off, err);
	case FATE_ZERO:
		return zero_range(o, off, len, OVERLAY_MAY_TRIM, err);
	case FATE_DROP:
		break;
	}
	return 0;
}

/* Runs of subclusters with the same fate are done together. */
static int write_detecting(struct qcow2_file *o, const uint8_t *buf,
			   uint64_t len, uint64_t off, struct error *err)
{
	uint8_t *scratch = malloc(o->sub_bytes);
	uint64_t run = 0, n;
	enum fate fate = FATE_WRITE, next;
	int r = 0;

	if (!scratch)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (r >= 0 && run < len) {
		n = min_u64(len - run,
			    o->sub_bytes - ((off + run) & (o->sub_bytes - 1)));
		next = find_fate(o, buf + run, n, off + run, scratch);
		if (run && next != fate) {
			r = apply_fate(o, fate, buf, run, off, err);
			buf += run;
			off += run;
			len -= run;
			run = 0;
		}
		fate = next;
		run += n;
	}
	if (r >= 0 && run)
		r = apply_fate(o, fate, buf, run, off, err);
	free(scratch);
	return r;
}

int qcow2_file_write(struct qcow2_file *o, const void *buf, size_t len,
		     uint64_t off, struct error *err)
{
	int r = check_range(o, off, len, err);

	if (r < 0 || !len)
		return r;
	r = log_begin(o, err);
	if (r >= 0)
		r = o->options.detect ? write_detecting(o, buf, len, off, err)
				      : rounds_write(o, buf, len, off, err);
	return r < 0 ? r : log_commit(o, err);
}

int qcow2_file_zero(struct qcow2_file *o, uint64_t off, uint64_t len,
		    unsigned int flags, struct error *err)
{
	int r = check_range(o, off, len, err);

	if (r < 0 || !len)
		return r;
	r = log_begin(o, err);
	if (r >= 0)
		r = zero_range(o, off, len, flags, err);
	return r < 0 ? r : log_commit(o, err);
}

int qcow2_file_trim(struct qcow2_file *o, uint64_t off, uint64_t len,
		    struct error *err)
{
	uint64_t whole, n;
	int r = check_range(o, off, len, err);

	if (r >= 0)
		r = log_begin(o, err);
	if (r < 0)
		return r;
	zero_whole_subs(o, off, len, &whole, &n);
	/* Where it would cost a write, it is left: a hint has no worth then. */
	if (n)
		r = zero_subs(o, whole, n, OVERLAY_MAY_TRIM | OVERLAY_FAST,
			      NULL);
	if (r == -EOPNOTSUPP)
		r = 0;
	if (r >= 0)
		r = log_commit(o, err);
	if (r < 0)
		error_set(err, r, 0, "cannot be trimmed: %s", errno_text(-r));
	return r;
}

int qcow2_file_flush(struct qcow2_file *o, struct error *err)
{
	uint64_t mine;
	int r = 0;

	atomic_fetch_add(&o->n_flushes, 1);
	pthread_mutex_lock(&o->flush_lock);
	/* One that is under way may have looked before we wrote. */
	mine = o->flushes_begun + 1;
	while (o->flushes_ended < mine) {
		if (o->flushing) {
			wait_on(&o->flush_ended, &o->flush_lock);
			if (o->flushes_ended >= mine)
				r = o->flush_code;
			continue;
		}
		o->flushing = true;
		o->flushes_begun++;
		pthread_mutex_unlock(&o->flush_lock);
		r = flush_run(o, err);
		pthread_mutex_lock(&o->flush_lock);
		o->flushing = false;
		o->flushes_ended = o->flushes_begun;
		o->flush_code = r;
		pthread_cond_broadcast(&o->flush_ended);
	}
	pthread_mutex_unlock(&o->flush_lock);
	if (r < 0)
		error_set(err, r, 0, "cannot be flushed: %s", errno_text(-r));
	return r;
}
