/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QED, after QEMU's docs/interop/qed_spec.txt. All little endian.
 *
 *	header | backing file name              (the header's clusters)
 *	L1 table -> L2 tables -> data clusters
 *
 * All tables have one size, 1 to 16 clusters. An entry is an offset in the
 * file; 0 is nothing, in an L2 table 1 is a cluster of zeroes.
 *
 * Images whose tables need a check are read: the bit speaks of leaks. Refused
 * are features that are not known.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"

#define QED_MAGIC	  0x00444551U /* "QED\0" */
#define QED_CLUSTER_MIN	  (4U << 10)
#define QED_CLUSTER_MAX	  (64U << 20)
#define QED_TABLE_MAX	  16U
#define QED_NAME_MAX	  1023U
#define QED_SIZE_MULTIPLE 512U

#define QED_FEATURE_BACKING  1ULL
#define QED_FEATURE_CHECK    2ULL /* tables were being changed */
#define QED_FEATURE_NO_PROBE 4ULL /* the backing file is raw */
#define QED_FEATURES_KNOWN                                    \
	((uint64_t)(QED_FEATURE_BACKING | QED_FEATURE_CHECK | \
		    QED_FEATURE_NO_PROBE))

#define QED_ENTRY_NONE 0U
#define QED_ENTRY_ZERO 1U

enum {
	QED_MAGIC_AT = 0,
	QED_CLUSTER_BYTES_AT = 4,
	QED_TABLE_CLUSTERS_AT = 8,
	QED_HEADER_CLUSTERS_AT = 12,
	QED_FEATURES_AT = 16,
	QED_COMPAT_AT = 24,
	QED_AUTOCLEAR_AT = 32,
	QED_L1_OFF_AT = 40,
	QED_SIZE_AT = 48,
	QED_BACKING_OFF_AT = 56,
	QED_BACKING_BYTES_AT = 60,
	QED_HEADER_BYTES = 64,
};

struct qed_header {
	uint32_t magic;
	uint32_t cluster_bytes;
	uint32_t table_clusters;
	uint32_t header_clusters;
	uint64_t features;
	uint64_t l1_off;
	uint64_t size;
	uint32_t backing_off;
	uint32_t backing_bytes;
};

struct qed_state {
	struct qed_header h;
	struct source *src;
	uint64_t table_bytes;
	uint64_t span; /* guest bytes that an L2 table maps */
};

static int decode_header(const uint8_t *buf, size_t len, struct qed_header *ret,
			 struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct qed_header h = {
		.magic = cursor_le32_at(&c, QED_MAGIC_AT),
		.cluster_bytes = cursor_le32_at(&c, QED_CLUSTER_BYTES_AT),
		.table_clusters = cursor_le32_at(&c, QED_TABLE_CLUSTERS_AT),
		.header_clusters = cursor_le32_at(&c, QED_HEADER_CLUSTERS_AT),
		.features = cursor_le64_at(&c, QED_FEATURES_AT),
		.l1_off = cursor_le64_at(&c, QED_L1_OFF_AT),
		.size = cursor_le64_at(&c, QED_SIZE_AT),
		.backing_off = cursor_le32_at(&c, QED_BACKING_OFF_AT),
		.backing_bytes = cursor_le32_at(&c, QED_BACKING_BYTES_AT),
	};

	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "QED header is cut off after %zu bytes", len);
	*ret = h;
	return 0;
}

static int check_kind(const struct qed_header *h, struct error *err)
{
	if (h->magic != QED_MAGIC)
		return error_set(err, -EBADMSG, QED_MAGIC_AT,
				 "not QED: magic 0x%08" PRIx32, h->magic);
	if (h->features & ~QED_FEATURES_KNOWN)
		return error_set(err, -ENOTSUP, QED_FEATURES_AT,
				 "features 0x%" PRIx64 " are not supported",
				 h->features & ~QED_FEATURES_KNOWN);
	if (!is_power_of_2(h->cluster_bytes) ||
	    h->cluster_bytes < QED_CLUSTER_MIN ||
	    h->cluster_bytes > QED_CLUSTER_MAX)
		return error_set(err, -EBADMSG, QED_CLUSTER_BYTES_AT,
				 "cluster size %" PRIu32
				 " is not a power of two in %u..%u",
				 h->cluster_bytes, QED_CLUSTER_MIN,
				 QED_CLUSTER_MAX);
	if (!is_power_of_2(h->table_clusters) ||
	    h->table_clusters > QED_TABLE_MAX)
		return error_set(err, -EBADMSG, QED_TABLE_CLUSTERS_AT,
				 "table size of %" PRIu32
				 " clusters is not a power of two up to %u",
				 h->table_clusters, QED_TABLE_MAX);
	return 0;
}

/* Every relation that qed_map() relies on. */
static int check_sound(const struct qed_state *s, uint64_t file_bytes,
		       struct error *err)
{
	const struct qed_header *h = &s->h;
	uint64_t header = (uint64_t)h->header_clusters * h->cluster_bytes;

	if (!h->header_clusters || header > file_bytes)
		return error_set(err, -EBADMSG, QED_HEADER_CLUSTERS_AT,
				 "header of %" PRIu32 " clusters of %" PRIu32
				 " bytes is not in the file's %" PRIu64,
				 h->header_clusters, h->cluster_bytes,
				 file_bytes);
	if (h->l1_off % h->cluster_bytes || h->l1_off < header ||
	    !range_inside(h->l1_off, s->table_bytes, file_bytes))
		return error_set(err, -EBADMSG, QED_L1_OFF_AT,
				 "L1 table at %" PRIu64 " with %" PRIu64
				 " bytes is not in whole clusters behind the "
				 "header and inside the file's %" PRIu64,
				 h->l1_off, s->table_bytes, file_bytes);
	if (h->size % QED_SIZE_MULTIPLE)
		return error_set(err, -EBADMSG, QED_SIZE_AT,
				 "virtual size %" PRIu64
				 " is not a multiple of %u",
				 h->size, QED_SIZE_MULTIPLE);
	if (h->size > INT64_MAX ||
	    div_round_up(h->size, s->span) > s->table_bytes / 8)
		return error_set(err, -EBADMSG, QED_SIZE_AT,
				 "virtual size %" PRIu64
				 " is more than the tables can map",
				 h->size);
	return 0;
}

static int open_backing(struct layer *l, struct error *err)
{
	const struct qed_state *s = l->state;
	const struct qed_header *h = &s->h;
	char name[QED_NAME_MAX + 1] = "";
	int r;

	/* qemu-img rebase leaves the place, but no length. */
	if (!(h->features & QED_FEATURE_BACKING) && h->backing_bytes)
		return error_set(err, -EBADMSG, QED_FEATURES_AT,
				 "has a backing file name of %" PRIu32
				 " bytes, but is not marked as having a "
				 "backing file",
				 h->backing_bytes);
	if (!(h->features & QED_FEATURE_BACKING))
		return 0;
	if (!h->backing_bytes || h->backing_bytes > QED_NAME_MAX)
		return error_set(err, -EBADMSG, QED_BACKING_BYTES_AT,
				 "backing file name of %" PRIu32
				 " bytes is not in 1..%u",
				 h->backing_bytes, QED_NAME_MAX);
	if (!range_inside(h->backing_off, h->backing_bytes,
			  (uint64_t)h->header_clusters * h->cluster_bytes))
		return error_set(err, -EBADMSG, QED_BACKING_OFF_AT,
				 "backing file name at %" PRIu32
				 " ends past the header",
				 h->backing_off);
	r = layer_read_meta(l, l->src, name, h->backing_bytes, h->backing_off,
			    err);
	if (r < 0)
		return r;
	if (memchr(name, 0, h->backing_bytes))
		return error_set(err, -EBADMSG, h->backing_off,
				 "backing file name holds a NUL byte");
	return layer_set_parent(
		l, name, h->features & QED_FEATURE_NO_PROBE ? "raw" : NULL,
		h->backing_off, err);
}

static int qed_open(struct layer *l, struct error *err)
{
	struct qed_state *s = l->state;
	uint8_t buf[QED_HEADER_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), l->src->bytes);
	int r;

	r = source_read(l->src, buf, len, 0, err);
	if (r >= 0)
		r = decode_header(buf, len, &s->h, err);
	if (r >= 0)
		r = check_kind(&s->h, err);
	if (r < 0)
		return r;
	s->src = l->src;
	/* At most 2^30 bytes and 2^53. */
	s->table_bytes = (uint64_t)s->h.table_clusters * s->h.cluster_bytes;
	s->span = s->table_bytes / 8 * s->h.cluster_bytes;
	r = check_sound(s, l->src->bytes, err);
	if (r < 0)
		return r;
	l->bytes = s->h.size;
	l->unit_bytes = s->h.cluster_bytes;
	return open_backing(l, err);
}

static int check_place(const struct qed_state *s, const char *what,
		       uint64_t off, struct error *err)
{
	if (off % s->h.cluster_bytes)
		return error_set(err, -EBADMSG, 0,
				 "%s at %" PRIu64
				 " is not aligned to clusters of %" PRIu32,
				 what, off, s->h.cluster_bytes);
	if (off < (uint64_t)s->h.header_clusters * s->h.cluster_bytes)
		return error_set(err, -EBADMSG, 0,
				 "%s at %" PRIu64 " lies in the header", what,
				 off);
	/* All are aligned to clusters, so beginnings will do. */
	if (off >= s->h.l1_off && off - s->h.l1_off < s->table_bytes)
		return error_set(err, -EBADMSG, 0,
				 "%s at %" PRIu64
				 " lies over the L1 table at %" PRIu64,
				 what, off, s->h.l1_off);
	return 0;
}

static int decode_l1(const void *state, const uint8_t *raw,
		     struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 8 };
	const struct qed_state *s = state;
	uint64_t off = cursor_le64_at(&c, 0);

	ret->host_off = off;
	ret->kind = off ? EXTENT_DATA : EXTENT_HOLE;
	if (!off)
		return 0;
	if (off >= s->src->bytes)
		return error_set(err, -EBADMSG, 0,
				 "L2 table at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 off, s->src->bytes);
	return check_place(s, "L2 table", off, err);
}

static int decode_l2(const void *state, const uint8_t *raw,
		     struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 8 };
	uint64_t entry = cursor_le64_at(&c, 0);

	if (entry == QED_ENTRY_NONE) {
		ret->kind = EXTENT_HOLE;
		return 0;
	}
	if (entry == QED_ENTRY_ZERO) {
		ret->kind = EXTENT_ZERO;
		return 0;
	}
	ret->kind = EXTENT_DATA;
	ret->host_off = entry;
	return check_place(state, "cluster", entry, err);
}

static struct unit_table l1_table(const struct qed_state *s)
{
	return (struct unit_table){
		.src = s->src,
		.off = s->h.l1_off,
		.entry_bytes = 8,
		.unit_bytes = s->span,
		.data = s->src,
		.decode = decode_l1,
		.state = s,
	};
}

/* @idx: which one it is. */
static struct unit_table l2_table(const struct qed_state *s, uint64_t off,
				  uint64_t idx)
{
	return (struct unit_table){
		.src = s->src,
		.off = off,
		.entry_bytes = 8,
		.first_unit = idx * (s->table_bytes / 8),
		.unit_bytes = s->h.cluster_bytes,
		.stride = s->h.cluster_bytes,
		.data = s->src,
		.decode = decode_l2,
		.state = s,
	};
}

static int qed_map(struct layer *l, uint64_t guest_off, uint64_t len,
		   struct extent *ret, struct error *err)
{
	const struct qed_state *s = l->state;
	struct unit_table l1 = l1_table(s), l2;
	uint64_t in_span = guest_off % s->span, run = 0;
	struct unit_place p = { 0 };
	int r;

	r = unit_table_find(l, &l1, guest_off, len, &p, &run, err);
	if (r < 0)
		return r;
	if (p.kind == EXTENT_HOLE) {
		*ret = (struct extent){ .kind = EXTENT_HOLE, .len = run };
		return 0;
	}
	l2 = l2_table(s, p.host_off, guest_off / s->span);
	return unit_table_map(l, &l2, in_span, min_u64(len, s->span - in_span),
			      ret, err);
}

static void qed_info(struct layer *l, struct info_sink *sink)
{
	const struct qed_state *s = l->state;

	sink->number(sink, "table-size", s->table_bytes);
	sink->flag(sink, "needs-check", s->h.features & QED_FEATURE_CHECK);
}

struct l1_walk {
	struct unit_check *k;
	const struct qed_state *s;
};

static int check_l1_entry(void *opaque, uint64_t idx,
			  const struct unit_place *p, int r,
			  const struct error *err)
{
	struct l1_walk *w = opaque;
	struct unit_table l2 = l2_table(w->s, p->host_off, idx);

	if (r < 0) {
		unit_check_corrupt(w->k, "L1 entry %" PRIu64 ": %s", idx,
				   err->msg);
		return 0;
	}
	if (p->kind != EXTENT_DATA)
		return 0;
	r = unit_check_claim(w->k, p->host_off, w->s->table_bytes);
	return r < 0 ? r : unit_check_table(w->k, &l2, w->s->table_bytes / 8);
}

static int qed_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct qed_state *s = l->state;
	struct unit_table l1 = l1_table(s);
	uint64_t header = (uint64_t)s->h.header_clusters * s->h.cluster_bytes;
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "cluster",
		.unit_bytes = s->h.cluster_bytes,
		.src = l->src,
		.err = err,
	};
	struct l1_walk w = { .k = &k, .s = s };
	int code;

	code = unit_check_claim(&k, 0, header);
	if (code >= 0)
		code = unit_check_claim(&k, s->h.l1_off, s->table_bytes);
	if (code >= 0)
		code = unit_table_walk(l, &l1, s->table_bytes / 8,
				       check_l1_entry, &w);
	if (code < 0)
		return code;
	unit_check_finish(&k, header);
	return 0;
}

const struct format_ops qed_format = {
	.name = "qed",
	.magic = { { QED_MAGIC_AT, 4, "QED" } }, /* with its NUL */
	.open_ended = format_reads_forward,
	.state_bytes = sizeof(struct qed_state),
	.open = qed_open,
	.map = qed_map,
	.info = qed_info,
	.check = qed_check,
};
