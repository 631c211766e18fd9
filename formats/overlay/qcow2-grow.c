/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>

#include "formats/put-be.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/write.h"

/* The L1 table that a disk of @bytes needs. */
static uint64_t l1_entries_for(const struct qcow2_file *f, uint64_t bytes)
{
	return div_round_up(bytes, 1ULL << (f->cluster_bits + f->l2_bits));
}

/* Memory for @n entries of the L1 table, the old ones in it. */
static int widen_l1(struct qcow2_file *f, uint64_t n, struct error *err)
{
	uint64_t *l1 = calloc(n + 1, sizeof(*l1));
	bool *dirty = calloc(n + 1, sizeof(*dirty));
	struct page_set **l2 = calloc(n + 1, sizeof(struct page_set *));

	if (!l1 || !dirty || !l2) {
		free(l1);
		free(dirty);
		free(l2);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (f->n_l1) {
		memcpy(l1, f->l1, f->n_l1 * sizeof(*l1));
		memcpy(dirty, f->l1_dirty, f->n_l1 * sizeof(*dirty));
		memcpy(l2, f->l2, f->n_l1 * sizeof(struct page_set *));
	}
	free(f->l1);
	free(f->l1_dirty);
	free(f->l2);
	f->l1 = l1;
	f->l1_dirty = dirty;
	f->l2 = l2;
	f->n_l1 = n;
	return 0;
}

/* Size, L1 entries and L1 offset lie side by side. */
static int write_size(struct qcow2_file *f, uint64_t bytes, uint64_t entries,
		      uint64_t l1_off, struct error *err)
{
	struct qcow2_state *s = f->top->state;
	struct qcow2_header *h = &s->h;
	uint8_t field[QCOW2_REFTABLE_OFF_AT - QCOW2_SIZE_AT];
	int r;

	put_be64(field, 0, bytes);
	put_be32(field, QCOW2_CRYPT_AT - QCOW2_SIZE_AT, h->crypt_method);
	put_be32(field, QCOW2_L1_ENTRIES_AT - QCOW2_SIZE_AT, (uint32_t)entries);
	put_be64(field, QCOW2_L1_OFF_AT - QCOW2_SIZE_AT, l1_off);
	r = source_write(f->src, field, sizeof(field), QCOW2_SIZE_AT, err);
	if (r >= 0)
		r = disk_sync(f, err);
	if (r < 0) {
		/* Which of the two the disk has nobody knows. */
		disk_break(f, r);
		return r;
	}
	h->size = bytes;
	h->l1_entries = (uint32_t)entries;
	h->l1_off = l1_off;
	/* What the reader takes for metadata, too. */
	s->l1_entries = h->l1_entries;
	s->l1_off = l1_off;
	return 0;
}

/* The table and zeroes behind it, at *ret_off, durable with its refcounts. */
static int copy_l1(struct qcow2_file *f, uint64_t entries, uint64_t *ret_off,
		   struct error *err)
{
	uint64_t n = div_round_up(entries * 8, f->cluster_bytes), first;
	uint8_t *buf = calloc(n, f->cluster_bytes);
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_lock(&f->meta);
	r = alloc_run(f, n, &first, err);
	pthread_mutex_unlock(&f->meta);
	if (r >= 0) {
		if (f->n_l1)
			memcpy(buf, f->l1, f->n_l1 * 8);
		*ret_off = first << f->cluster_bits;
		r = source_write(f->src, buf, n << f->cluster_bits, *ret_off,
				 err);
	}
	free(buf);
	atomic_store(&f->wrote, true);
	return r < 0 ? r : flush_run(f, err);
}

/* Nothing waits for a flush. */
static int lengthen_l1(struct qcow2_file *f, uint64_t entries,
		       struct error *err)
{
	uint64_t old_off = f->s->h.l1_off, old = f->n_l1, off, i;
	int r = copy_l1(f, entries, &off, err);

	if (r >= 0)
		r = widen_l1(f, entries, err);
	if (r >= 0)
		r = write_size(f, f->bytes, entries, off, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&f->meta);
	for (i = 0; i < div_round_up(old * 8, f->cluster_bytes) && r >= 0; i++)
		r = alloc_free_later(f, (old_off >> f->cluster_bits) + i, err);
	pthread_mutex_unlock(&f->meta);
	return r;
}

/*
 * Behind the old end, whatever its last subcluster holds, or the base has, is
 * none of this disk's.
 */
static int clear_behind(struct qcow2_file *f, uint64_t old, struct error *err)
{
	uint64_t end = round_up(old, f->sub_bytes);

	if (f->base)
		end = max_u64(end, f->base->bytes);
	end = min_u64(end, f->bytes);
	return end > old ? qcow2_file_zero(f, old, end - old, OVERLAY_MAY_TRIM,
					   err)
			 : 0;
}

int qcow2_grow(struct qcow2_file *f, uint64_t bytes, struct error *err)
{
	uint64_t entries = l1_entries_for(f, bytes), old = f->bytes;
	int r;

	if (bytes < old)
		return error_set(err, -EINVAL, QCOW2_SIZE_AT,
				 "a disk of %" PRIu64
				 " bytes cannot shrink to %" PRIu64,
				 old, bytes);
	if (bytes > (uint64_t)INT64_MAX ||
	    entries > QCOW2_L1_BYTES_MAX / sizeof(*f->l1))
		return error_set(err, -EFBIG, QCOW2_SIZE_AT,
				 "a disk of %" PRIu64 " bytes needs an L1 "
				 "table over the limit of %u bytes",
				 bytes, QCOW2_L1_BYTES_MAX);
	f->gate_held = true;
	r = flush_run(f, err);
	if (r >= 0 && entries > f->n_l1)
		r = lengthen_l1(f, entries, err);
	if (r >= 0) {
		f->bytes = bytes;
		r = clear_behind(f, old, err);
		if (r >= 0)
			r = flush_run(f, err);
		if (r >= 0)
			r = write_size(f, bytes, f->n_l1, f->s->h.l1_off, err);
		if (r < 0)
			f->bytes = old;
	}
	f->gate_held = false;
	return r;
}
