/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of an overlay's guest. See qcow2-write.h for how they reach the
 * disk.
 *
 * A write goes in rounds of at most STRIPES clusters. A round looks up where
 * its clusters lie. Where all that it touches has a place, or gets one that
 * only whole subclusters are written to, it goes on beside others; where
 * something must be copied around it, or an old place is given up, it begins
 * again with these clusters for itself.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

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

static uint64_t in_cluster(const struct qcow2_file *o, uint64_t off)
{
	return off & (o->cluster_bytes - 1);
}

/* The end of the disk ends a subcluster. */
static bool ends_sub(const struct qcow2_file *o, uint64_t off)
{
	return !(off & (o->sub_bytes - 1)) || off == o->bytes;
}

/* Bits of the subclusters that [@off, @off + @len) touches. */
static uint64_t sub_mask(const struct qcow2_file *o, uint64_t off, uint64_t len)
{
	uint64_t first = in_cluster(o, off) / o->sub_bytes;
	uint64_t last = (in_cluster(o, off) + len - 1) / o->sub_bytes;

	return ((2ULL << (last - first)) - 1) << first;
}

/* Subclusters with data, a bit each, be it in a place of ours or not. */
static uint64_t data_bits(const struct qcow2_file *o, const struct entry *e)
{
	if (e->word & QCOW2_COMPRESSED)
		return (1ULL << o->subs) - 1;
	if (!(e->word & QCOW2_OFFSET_MASK))
		return 0;
	if (o->extended)
		return e->bitmap & 0xffffffffU;
	return e->word & QCOW2_ZERO ? 0 : 1;
}

/* ---- locks ---- */

static uint64_t stripes_of(const struct qcow2_file *o, uint64_t off,
			   uint64_t len)
{
	uint64_t first = off >> o->cluster_bits, bits = 0;
	uint64_t last = (off + len - 1) >> o->cluster_bits;

	if (last - first >= STRIPES - 1)
		return UINT64_MAX;
	for (; first <= last; first++)
		bits |= 1ULL << first % STRIPES;
	return bits;
}

/* From the lowest up, so that nobody waits in a circle. */
static void lock_stripes(struct qcow2_file *o, uint64_t bits, bool alone)
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

static void unlock_stripes(struct qcow2_file *o, uint64_t bits)
{
	unsigned int i;

	for (i = 0; i < STRIPES; i++)
		if (bits >> i & 1)
			pthread_rwlock_unlock(&o->stripes[i]);
}

/* ---- where things lie ---- */

static bool continues(const struct qcow2_file *o,
		      const struct qcow2_answer *first,
		      const struct qcow2_answer *next, uint64_t clusters)
{
	if (next->kind != first->kind || first->kind == EXTENT_COMPRESSED)
		return false;
	return first->kind != EXTENT_DATA ||
	       next->host_off ==
		       first->host_off + (clusters << o->cluster_bits);
}

/* The entry of @off, which table @t maps. */
static const uint8_t *raw_entry(const struct qcow2_file *o,
				const struct page_set *t, uint64_t off)
{
	uint64_t mask = (1ULL << o->l2_bits) - 1;

	return t->buf + (off >> o->cluster_bits & mask) * o->s->l2_entry_bytes;
}

/* The answer for @off; damage is told as such. */
static int answer(const struct qcow2_file *o, const struct page_set *t,
		  uint64_t off, struct qcow2_answer *ret, struct error *err)
{
	int r = qcow2_decode_entry(o->s, raw_entry(o, t, off), off, ret, err);

	if (r >= 0 && ret->kind == EXTENT_DATA &&
	    ret->host_off >> o->cluster_bits >= o->end)
		r = error_set(err, -EBADMSG, 0,
			      "cluster at %" PRIu64
			      " lies behind the file's end",
			      ret->host_off);
	return r;
}

static void fill_extent(const struct qcow2_file *o,
			const struct qcow2_answer *a, uint64_t off,
			uint64_t run, struct extent *ret)
{
	struct extent e = { .kind = (uint8_t)a->kind, .len = run };

	if (a->kind == EXTENT_DATA) {
		e.src = o->src;
		e.host_off = a->host_off + in_cluster(o, off);
	} else if (a->kind == EXTENT_COMPRESSED) {
		e.src = o->src;
		e.host_off = a->host_off;
		e.comp_bytes = a->comp_bytes;
		e.unit_bytes = (uint32_t)o->cluster_bytes;
		e.unit_off = (uint32_t)in_cluster(o, off);
		e.codec = (uint8_t)o->s->codec;
	}
	*ret = e;
}

/* How much of [@off, @off + @len) the table of @off maps. */
static uint64_t to_table_end(const struct qcow2_file *o, uint64_t off,
			     uint64_t len)
{
	unsigned int table_bits = o->cluster_bits + o->l2_bits;

	return min_u64(len, (((off >> table_bits) + 1) << table_bits) - off);
}

/* The overlay's own answer. Meta is held. */
static int own_extent_locked(struct qcow2_file *o, uint64_t off, uint64_t len,
			     struct extent *ret, struct error *err)
{
	uint64_t run, cluster = off >> o->cluster_bits;
	struct qcow2_answer first, next;
	struct page_set *t;
	int r;

	len = to_table_end(o, off, len);
	r = table_get(o, off, &t, err);
	if (r < 0)
		return r;
	if (!t) {
		*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
		return 0;
	}
	r = answer(o, t, off, &first, err);
	if (r < 0) {
		*ret = (struct extent){
			.kind = EXTENT_DAMAGED,
			.len = min_u64(len, o->sub_bytes -
						    (off & (o->sub_bytes - 1)))
		};
		return 0;
	}
	for (run = qcow2_same_bytes(o->s, raw_entry(o, t, off), off); run < len;
	     run +=
	     qcow2_same_bytes(o->s, raw_entry(o, t, off + run), off + run))
		if (answer(o, t, off + run, &next, NULL) < 0 ||
		    !continues(o, &first, &next,
			       ((off + run) >> o->cluster_bits) - cluster))
			break;
	fill_extent(o, &first, off, min_u64(run, len), ret);
	return 0;
}

static int own_extent(struct qcow2_file *o, uint64_t off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	int r;

	if (table_is_absent(o, off)) {
		*ret = (struct extent){ .kind = EXTENT_HOLE,
					.len = to_table_end(o, off, len) };
		return 0;
	}
	pthread_mutex_lock(&o->meta);
	r = own_extent_locked(o, off, len, ret, err);
	tables_trim(o);
	pthread_mutex_unlock(&o->meta);
	return r;
}

/* How much of [@off, @off + @len) the base has; 0: nothing at @off. */
static uint64_t base_has(const struct qcow2_file *o, uint64_t off, uint64_t len)
{
	if (!o->base || off >= o->base->bytes)
		return 0;
	return min_u64(len, o->base->bytes - off);
}

static struct extent nothing(uint64_t len)
{
	return (struct extent){ .kind = EXTENT_ZERO,
				.len = len,
				.absent = true };
}

struct overlay_reader {
	struct extent_reader x;
	struct qcow2_file *o;
};

static int reader_resolve(struct extent_reader *x, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	struct qcow2_file *o = container_of(x, struct overlay_reader, x)->o;
	size_t n = 0, more, i;
	uint64_t below;
	int r;

	while (n < max && len) {
		r = own_extent(o, off, len, &ret[n], err);
		if (r < 0)
			return r;
		more = 1;
		if (ret[n].kind == EXTENT_HOLE) {
			below = base_has(o, off, ret[n].len);
			if (!below)
				ret[n] = nothing(ret[n].len);
			else
				r = image_resolve(o->base, off, below, ret + n,
						  max - n, &more, err);
		}
		if (r < 0)
			return r;
		for (i = 0; i < more; i++) {
			off += ret[n].len;
			len -= ret[n++].len;
		}
	}
	*ret_n = n;
	return 0;
}

static int reader_map(struct extent_reader *x, uint64_t off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	struct qcow2_file *o = container_of(x, struct overlay_reader, x)->o;
	uint64_t below;
	int r = own_extent(o, off, len, ret, err);

	if (r < 0 || ret->kind != EXTENT_HOLE)
		return r;
	below = base_has(o, off, ret->len);
	if (!below) {
		*ret = nothing(ret->len);
		return 0;
	}
	r = chain_map(&o->base->chain, off, below, ret, err);
	if (r >= 0)
		ret->depth++;
	return r;
}

static struct overlay_reader overlay_reader(struct qcow2_file *o)
{
	return (struct overlay_reader){
		.x = { .resolve = reader_resolve, .map = reader_map }, .o = o
	};
}

/* Gate is held. What lies behind the disk's end is zero. */
static int read_inside(struct qcow2_file *o, uint8_t *buf, size_t len,
		       uint64_t off, struct error *err)
{
	struct overlay_reader r = overlay_reader(o);
	size_t n = off < o->bytes ? (size_t)min_u64(len, o->bytes - off) : 0;

	memset(buf + n, 0, len - n);
	return n ? extents_read(&r.x, buf, n, off, err) : 0;
}

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
		    struct error *err)
{
	int r = check_range(o, off, len, err);

	if (r < 0 || !len)
		return r;
	r = read_inside(o, buf, len, off, err);
	/* What was seen once is not to be unseen, though nobody was told. */
	log_commit(o, NULL);
	return r;
}

int qcow2_file_walk(struct qcow2_file *o, uint64_t off, uint64_t len,
		    int (*each)(void *opaque, uint64_t off,
				const struct extent *e),
		    void *opaque, uint64_t *ret_end, struct error *err)
{
	struct overlay_reader x = overlay_reader(o);
	int r = check_range(o, off, len, err);

	return r < 0 ? r
		     : extents_walk(&x.x, off, len, each, opaque, ret_end, err);
}

/* ---- planning a write; meta is held ---- */

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

/* Where what the entry refers to is changed or given up: is it data at all? */
static int check_place(const struct qcow2_file *o, const struct entry *e,
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

/* An old place, or compressed data, that nobody will refer to. */
static int free_place(struct qcow2_file *o, const struct entry *e,
		      struct error *err)
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
	r = t ? answer(o, t, s->guest_off, &a, err) : 0;
	if (r < 0)
		return r;
	s->old = entry_get(o, t, s->guest_off);
	r = check_place(o, &s->old, s->guest_off, err);
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

/* ---- carrying it out ---- */

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
		r = read_inside(o, s->bounce + head - n, n, start + head - n,
				err);
	n = s->copy_all ? tail : tail & (sub - 1);
	if (n && r >= 0)
		r = read_inside(o, s->bounce + head + s->len, n,
				s->guest_off + s->len, err);
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
		r = free_place(o, &e, err);
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

/* Gate is held. */
static int write_inside(struct qcow2_file *o, const uint8_t *buf, uint64_t len,
			uint64_t off, struct error *err)
{
	int r = 0;

	while (len && r >= 0) {
		uint64_t n =
			min_u64(len, ((uint64_t)STRIPES << o->cluster_bits) -
					     in_cluster(o, off));
		uint64_t stripes = stripes_of(o, off, n);

		lock_stripes(o, stripes, false);
		r = try_round(o, buf, n, off, false, err);
		unlock_stripes(o, stripes);
		if (r == -EAGAIN) {
			lock_stripes(o, stripes, true);
			r = try_round(o, buf, n, off, true, err);
			unlock_stripes(o, stripes);
		}
		buf += n;
		off += n;
		len -= n;
	}
	return r;
}

/* ---- zeroes ---- */

static int write_zeroes(struct qcow2_file *o, uint64_t off, uint64_t len,
			struct error *err)
{
	uint64_t room = min_u64(len, 1U << 20), n;
	uint8_t *buf;
	int r;

	ANALYSER_ASSUME(room > 0);
	buf = calloc(1, room);
	r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, room);
		r = write_inside(o, buf, n, off, err);
	}
	free(buf);
	return r;
}

static int add_punch(struct qcow2_file *o, uint64_t off, uint64_t len,
		     struct error *err)
{
	struct punch_list *l = &o->punches;
	struct punch *grown;
	size_t room;

	if (l->n == l->room) {
		room = l->room ? 2 * l->room : 16;
		grown = realloc(l->items, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		l->items = grown;
		l->room = room;
	}
	l->items[l->n++] =
		(struct punch){ .guest_off = round_down(off, o->cluster_bytes),
				.in_cluster = in_cluster(o, off),
				.bytes = round_up(len, o->sub_bytes) };
	return 0;
}

static int zero_extended(struct qcow2_file *o, struct page_set *t, uint64_t off,
			 uint64_t len, bool trim, struct entry e,
			 struct error *err)
{
	uint64_t bits = sub_mask(o, off, len), had = data_bits(o, &e) & bits;
	struct entry new = e;
	int r = 0;

	if (e.word & QCOW2_COMPRESSED)
		new = (struct entry){ 0 };
	new.bitmap = (new.bitmap & ~bits) | bits << QCOW2_SUBCLUSTERS;
	if (!(new.bitmap & 0xffffffffU) && (trim || !entry_place(&e))) {
		new.word = 0;
		r = free_place(o, &e, err);
	} else if (trim && had) {
		r = add_punch(o, off, len, err);
	}
	if (r >= 0)
		entry_set(o, t, off, new);
	return r;
}

static int zero_standard(struct qcow2_file *o, struct page_set *t, uint64_t off,
			 bool trim, struct entry e, struct error *err)
{
	int r = 0;

	if (!trim && entry_place(&e)) {
		e.word |= QCOW2_ZERO;
	} else {
		r = free_place(o, &e, err);
		e.word = QCOW2_ZERO;
	}
	if (r >= 0)
		entry_set(o, t, off, e);
	return r;
}

/* 1: it must be done by writing. Meta is held, and the cluster ours alone. */
static int zero_cluster_locked(struct qcow2_file *o, uint64_t off, uint64_t len,
			       bool trim, struct error *err)
{
	uint64_t bits = sub_mask(o, off, len);
	struct qcow2_answer a;
	struct page_set *t;
	struct entry e;
	int r = table_get(o, off, &t, err);

	if (r < 0)
		return r;
	r = t ? answer(o, t, off, &a, err) : 0;
	if (r < 0)
		return r;
	e = entry_get(o, t, off);
	r = check_place(o, &e, off, err);
	if (r < 0)
		return r;
	/* Where nothing lies below, nothing need be said. */
	if (!(data_bits(o, &e) & bits) &&
	    !base_has(o, round_down(off, o->cluster_bytes), 1))
		return 0;
	if (o->s->h.version < 3)
		return 1;
	/* A place that is not ours goes as a whole or not at all. */
	if (e.word && !entry_place(&e) && o->extended &&
	    bits != (1ULL << o->subs) - 1)
		return 1;
	r = table_get_writable(o, off, &t, err);
	if (r < 0)
		return r;
	return o->extended ? zero_extended(o, t, off, len, trim, e, err)
			   : zero_standard(o, t, off, trim, e, err);
}

/* Subclusters of one cluster. Gate is held. */
static int zero_cluster(struct qcow2_file *o, uint64_t off, uint64_t len,
			unsigned int flags, struct error *err)
{
	uint64_t stripe = stripes_of(o, off, len);
	int r;

	lock_stripes(o, stripe, true);
	pthread_mutex_lock(&o->meta);
	r = zero_cluster_locked(o, off, len, flags & OVERLAY_MAY_TRIM, err);
	tables_trim(o);
	pthread_mutex_unlock(&o->meta);
	unlock_stripes(o, stripe);
	if (r != 1)
		return r;
	if (flags & OVERLAY_FAST)
		return error_set(err, -EOPNOTSUPP, 0,
				 "zeroes would have to be written");
	return write_zeroes(o, off, len, err);
}

/* Whole subclusters. Gate is held. */
static int zero_subs(struct qcow2_file *o, uint64_t off, uint64_t len,
		     unsigned int flags, struct error *err)
{
	uint64_t n;
	int r = 0;

	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, o->cluster_bytes - in_cluster(o, off));
		r = zero_cluster(o, off, n, flags, err);
	}
	return r;
}

/* The whole subclusters in a range; *ret_len 0: there are none. */
static void whole_subs(const struct qcow2_file *o, uint64_t off, uint64_t len,
		       uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t first = round_up(off, o->sub_bytes), end = off + len;

	if (!ends_sub(o, end))
		end = round_down(end, o->sub_bytes);
	*ret_off = first;
	*ret_len = first < end ? end - first : 0;
}

static int zero_inside(struct qcow2_file *o, uint64_t off, uint64_t len,
		       unsigned int flags, struct error *err)
{
	uint64_t whole, n, end = off + len;
	int r;

	whole_subs(o, off, len, &whole, &n);
	if (!n)
		return write_zeroes(o, off, len, err);
	r = whole > off ? write_zeroes(o, off, whole - off, err) : 0;
	if (r >= 0)
		r = zero_subs(o, whole, n, flags, err);
	if (r >= 0 && whole + n < end)
		r = write_zeroes(o, whole + n, end - whole - n, err);
	return r;
}

/* ---- requests ---- */

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
	    own_extent(o, off, len, &e, NULL) < 0 || e.kind != EXTENT_HOLE ||
	    e.len < len)
		return FATE_WRITE;
	if (read_inside(o, scratch, len, off, NULL) < 0 ||
	    memcmp(scratch, buf, len) != 0)
		return FATE_WRITE;
	return FATE_DROP;
}

static int apply_fate(struct qcow2_file *o, enum fate fate, const uint8_t *buf,
		      uint64_t len, uint64_t off, struct error *err)
{
	switch (fate) {
	case FATE_WRITE:
		return write_inside(o, buf, len, off, err);
	case FATE_ZERO:
		return zero_inside(o, off, len, OVERLAY_MAY_TRIM, err);
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
				      : write_inside(o, buf, len, off, err);
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
		r = zero_inside(o, off, len, flags, err);
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
	whole_subs(o, off, len, &whole, &n);
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
			pthread_cond_wait(&o->flush_ended, &o->flush_lock);
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
