/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A write goes in rounds of at most STRIPES clusters. A round looks up where
 * its clusters lie. Where all that it touches has a place, or gets one that
 * only whole subclusters are written to, it goes on beside others; where
 * something must be copied around it, or an old place is given up, it begins
 * again with these clusters for itself.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-guest.h"

/* What one round does to one cluster. */
struct step {
	uint64_t guest_off;
	uint64_t len;
	const uint8_t *buf; /* the guest's data */
	uint64_t place; /* of the cluster in the file */
	uint64_t fresh; /* cluster number, allocated for it; 0: none */
	struct entry old;
	uint64_t copy_off, copy_len; /* in the cluster; len 0: just the data */
	bool copy_all; /* read all of it first, not the edges alone */
	bool changes; /* its entry */
	uint8_t *bounce;
};

struct round {
	struct step steps[STRIPES];
	size_t n;
	struct batch_io ios[STRIPES];
};

uint64_t stripes_of(const struct qcow2_file *o, uint64_t off, uint64_t len)
{
	uint64_t first = off >> o->cluster_bits, bits = 0;
	uint64_t last = (off + len - 1) >> o->cluster_bits;

	if (last - first >= STRIPES - 1)
		return UINT64_MAX;
	for (; first <= last; first++)
		bits |= 1ULL << first % STRIPES;
	return bits;
}

void stripes_lock(struct qcow2_file *o, uint64_t bits, bool alone)
{
	unsigned int i;

	for (i = 0; i < STRIPES; i++) {
		if (!(bits >> i & 1))
			continue;
		if (alone)
			pthread_rwlock_wrlock(&o->stripes[i]);
		else
			pthread_rwlock_rdlock(&o->stripes[i]);
	}
}

void stripes_unlock(struct qcow2_file *o, uint64_t bits)
{
	unsigned int i;

	for (i = 0; i < STRIPES; i++)
		if (bits >> i & 1)
			pthread_rwlock_unlock(&o->stripes[i]);
}

/* The clusters of the file that the entry refers to. */
static void place_clusters(const struct qcow2_file *o, const struct entry *e,
			   uint64_t *ret_first, uint64_t *ret_end)
{
	unsigned int x = 62 - (o->cluster_bits - 8);
	uint64_t off = e->word & QCOW2_OFFSET_MASK, end = off ? off + 1 : 0;

	if (e->word & QCOW2_COMPRESSED) {
		off = e->word & ((1ULL << x) - 1);
		end = round_down(off, 512) +
		      (((e->word & (QCOW2_COMPRESSED - 1)) >> x) + 1) * 512;
	}
	*ret_first = off >> o->cluster_bits;
	*ret_end = end ? ((end - 1) >> o->cluster_bits) + 1 : 0;
}

int place_check(const struct qcow2_file *o, const struct entry *e,
		uint64_t guest_off, struct error *err)
{
	uint64_t c, end;

	for (place_clusters(o, e, &c, &end); c < end; c++)
		if (tables_have(o, c))
			return error_set(err, -EBADMSG, c << o->cluster_bits,
					 "the cluster of guest offset %" PRIu64
					 " lies on metadata",
					 guest_off);
	return 0;
}

int place_free(struct qcow2_file *o, const struct entry *e, struct error *err)
{
	uint64_t c, end;
	int r = 0;

	for (place_clusters(o, e, &c, &end); c < end && r >= 0; c++)
		r = alloc_free_later(o, c, err);
	return r;
}

/* What has to be read around the data, if anything. */
static void plan_copy(const struct qcow2_file *o, struct step *s, uint64_t have)
{
	uint64_t end = s->guest_off + s->len;
	bool ours = entry_place(&s->old) || !(s->old.word);
	uint64_t first = in_cluster(o, s->guest_off), last = first + s->len;

	if (!ours && have) {
		/* A place that is given up has other data as well. */
		s->copy_all = first || last != o->cluster_bytes;
		s->copy_len = s->copy_all ? o->cluster_bytes : 0;
		return;
	}
	if (!(s->guest_off & (o->sub_bytes - 1)) && ends_sub(o, end))
		return;
	s->copy_off = round_down(first, o->sub_bytes);
	s->copy_len = round_up(last, o->sub_bytes) - s->copy_off;
}

/*
 * Is the cluster's place fixed, so that its data may be written beside others?
 * Gives it one where whole subclusters will be written.
 */
static int plan_place(struct qcow2_file *o, struct step *s, bool alone,
		      struct error *err)
{
	struct page_set *t;
	uint64_t cluster;
	int r;

	if (!alone && (!o->extended || s->copy_len ||
		       (s->old.word && !entry_place(&s->old))))
		return -EAGAIN;
	r = table_get_writable(o, s->guest_off, &t, err);
	if (r < 0)
		return r;
	s->changes = true;
	s->place = entry_place(&s->old);
	if (s->place)
		return 0;
	r = alloc_cluster(o, &cluster, err);
	if (r < 0)
		return r;
	s->place = cluster << o->cluster_bits;
	if (alone) {
		s->fresh = cluster;
		return 0;
	}
	/* Others that write to this cluster must find the same place. */
	s->old.word = s->place | QCOW2_COPIED;
	entry_set(o, t, s->guest_off, s->old);
	return 0;
}

static int plan_step(struct qcow2_file *o, struct step *s, bool alone,
		     struct error *err)
{
	uint64_t mask = sub_mask(o, s->guest_off, s->len), have;
	struct qcow2_answer a;
	struct page_set *t;
	int r = table_get(o, s->guest_off, &t, err);

	if (r < 0)
		return r;
	/* Damage is not written over. */
	r = t ? lookup_answer(o, t, s->guest_off, &a, err) : 0;
	if (r < 0)
		return r;
	s->old = entry_get(o, t, s->guest_off);
	r = place_check(o, &s->old, s->guest_off, err);
	if (r < 0)
		return r;
	have = data_bits(o, &s->old);
	if (entry_place(&s->old) && (have & mask) == mask) {
		s->place = entry_place(&s->old);
		return 0;
	}
	plan_copy(o, s, have);
	return plan_place(o, s, alone, err);
}

/* The bytes around the data, as the guest sees them. */
static int fill_bounce(struct qcow2_file *o, struct step *s, struct error *err)
{
	uint64_t start =
		round_down(s->guest_off, o->cluster_bytes) + s->copy_off;
	uint64_t head = s->guest_off - start;
	uint64_t tail = s->copy_len - head - s->len;
	uint64_t sub = o->sub_bytes, n;
	int r = 0;

	s->bounce = malloc(s->copy_len);
	if (!s->bounce)
		return error_set(err, -ENOMEM, 0, "out of memory");
	n = s->copy_all ? head : head & (sub - 1);
	if (n)
		r = lookup_read(o, s->bounce + head - n, n, start + head - n,
				NULL, err);
	n = s->copy_all ? tail : tail & (sub - 1);
	if (n && r >= 0)
		r = lookup_read(o, s->bounce + head + s->len, n,
				s->guest_off + s->len, NULL, err);
	memcpy(s->bounce + head, s->buf, s->len);
	return r;
}

static int carry_out(struct qcow2_file *o, struct round *rd, struct error *err)
{
	size_t i, n = 0;
	int r = 0;

	for (i = 0; i < rd->n && r >= 0; i++) {
		struct step *s = &rd->steps[i];
		struct batch_io io = { .src = o->src, .op = BATCH_WRITE };
		struct batch_io *last = n ? &rd->ios[n - 1] : NULL;

		if (s->copy_len) {
			r = fill_bounce(o, s, err);
			io.off = s->place + s->copy_off;
			io.buf = s->bounce;
			io.len = s->copy_len;
		} else {
			io.off = s->place + in_cluster(o, s->guest_off);
			io.buf = (void *)(uintptr_t)s->buf;
			io.len = s->len;
		}
		if (last && last->off + last->len == io.off &&
		    (uint8_t *)last->buf + last->len == io.buf)
			last->len += io.len;
		else
			rd->ios[n++] = io;
	}
	if (r < 0)
		return r;
	atomic_store_explicit(&o->wrote, true, memory_order_relaxed);
	r = batch_run(rd->ios, n);
	/* Again: a flush may have come in between. */
	atomic_store(&o->wrote, true);
	if (r < 0)
		return error_set(err, r, 0, "data cannot be written: %s",
				 errno_text(-r));
	return 0;
}

/* The data are there: now they count. Meta is held. */
static int commit_step(struct qcow2_file *o, struct step *s, struct error *err)
{
	uint64_t start =
		s->copy_len ? s->copy_off : in_cluster(o, s->guest_off);
	uint64_t len = s->copy_len ? s->copy_len : s->len;
	uint64_t bits = sub_mask(o, start, len);
	struct page_set *t;
	struct entry e;
	int r = table_get(o, s->guest_off, &t, err);

	if (r < 0)
		return r;
	e = entry_get(o, t, s->guest_off);
	if (s->fresh) {
		r = place_free(o, &e, err);
		if (r < 0)
			return r;
		/* Subclusters that were data are so in the new place. */
		if (e.word & QCOW2_COMPRESSED)
			e.bitmap = 0;
	}
	e.word = s->place | QCOW2_COPIED;
	e.bitmap = (e.bitmap | bits) & ~(bits << QCOW2_SUBCLUSTERS);
	entry_set(o, t, s->guest_off, e);
	s->fresh = 0;
	return 0;
}

static int finish_round(struct qcow2_file *o, struct round *rd, int r,
			struct error *err)
{
	size_t i;

	pthread_mutex_lock(&o->meta);
	for (i = 0; i < rd->n; i++) {
		struct step *s = &rd->steps[i];

		if (r >= 0 && s->changes)
			r = commit_step(o, s, err);
		if (s->fresh)
			alloc_return(o, s->fresh);
	}
	tables_trim(o);
	pthread_mutex_unlock(&o->meta);
	for (i = 0; i < rd->n; i++)
		free(rd->steps[i].bounce);
	return r;
}

/* -EAGAIN: needs its clusters for itself. */
static int try_round(struct qcow2_file *o, const uint8_t *buf, uint64_t len,
		     uint64_t off, bool alone, struct error *err)
{
	struct round rd;
	int r = 0;

	rd.n = 0;
	pthread_mutex_lock(&o->meta);
	while (len && r >= 0) {
		uint64_t n =
			min_u64(len, o->cluster_bytes - in_cluster(o, off));

		rd.steps[rd.n] =
			(struct step){ .guest_off = off, .len = n, .buf = buf };
		r = plan_step(o, &rd.steps[rd.n++], alone, err);
		buf += n;
		off += n;
		len -= n;
	}
	pthread_mutex_unlock(&o->meta);
	if (r >= 0)
		r = carry_out(o, &rd, err);
	return finish_round(o, &rd, r, err);
}

int rounds_write(struct qcow2_file *o, const uint8_t *buf, uint64_t len,
		 uint64_t off, struct error *err)
{
	int r = 0;

	while (len && r >= 0) {
		uint64_t n =
			min_u64(len, ((uint64_t)STRIPES << o->cluster_bits) -
					     in_cluster(o, off));
		uint64_t stripes = stripes_of(o, off, n);

		stripes_lock(o, stripes, false);
		r = try_round(o, buf, n, off, false, err);
		stripes_unlock(o, stripes);
		if (r == -EAGAIN) {
			stripes_lock(o, stripes, true);
			r = try_round(o, buf, n, off, true, err);
			stripes_unlock(o, stripes);
		}
		buf += n;
		off += n;
		len -= n;
	}
	return r;
}
