/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log of a VHDX file, replayed into memory ([MS-VHDX] 2.3).
 *
 *	log:	ring of 4 KiB sectors, in which entries lie side by side
 *	entry:	header and descriptors (whole sectors) | data sectors
 *
 * Each descriptor is an update of the file: zeroes over a range, or a 4 KiB
 * sector whose first 8 and last 4 bytes stand in the descriptor, since in the
 * log their places hold a signature and the sequence number.
 *
 * The active sequence is the run of sound entries with rising numbers whose
 * last number is the highest and whose last entry's tail is one of them; from
 * that tail on it is replayed. What is torn, of another GUID or older does
 * not belong to it. A header that names a log GUID without any such sequence
 * is damage.
 *
 * Nothing is copied: the updates are sorted into ranges, each of which knows
 * the log sector that holds its data. Memory goes with the descriptors, up to
 * LOG_UPDATES_MAX of them; time with the length of the log, of which each
 * sector is a few times checksummed at most, whatever entries claim.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/vhdx-inside.h"

#define LOG_BYTES_MAX	 (128ULL << 20)
#define LOG_UPDATES_MAX	 (256U << 10)
#define LOG_WINDOW_BYTES (64U << 10)
/* Checksummed in all, in lengths of the log. */
#define LOG_WORK_FACTOR	 4U
#define LOG_WORK_MIN	 (64ULL << 20)
#define VIEW_BYTES_MAX	 (1ULL << 62)
#define DESCRIPTOR_BYTES 32U
#define ENTRY_HEAD_BYTES 64U

/* 2.3.1.1 */
enum {
	ENTRY_SIGNATURE_AT = 0,
	ENTRY_CHECKSUM_AT = 4,
	ENTRY_BYTES_AT = 8,
	ENTRY_TAIL_AT = 12,
	ENTRY_SEQUENCE_AT = 16,
	ENTRY_DESCRIPTORS_AT = 24,
	ENTRY_GUID_AT = 32,
	ENTRY_FLUSHED_AT = 48,
	ENTRY_LAST_AT = 56,
};

/* 2.3.1.2, 2.3.1.3 */
enum {
	DESC_SIGNATURE_AT = 0,
	DESC_TRAILING_AT = 4,
	DESC_LEADING_AT = 8, /* a zero descriptor's length */
	DESC_FILE_OFF_AT = 16,
	DESC_SEQUENCE_AT = 24,
};

/* 2.3.1.4 */
enum {
	DATA_SEQUENCE_HIGH_AT = 4,
	DATA_BYTES_AT = 8,
	DATA_SEQUENCE_LOW_AT = 4092,
};

static uint32_t crc_tables[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_init(void)
{
	unsigned int i, k;

	for (i = 0; i < 256; i++) {
		uint32_t v = i;

		for (k = 0; k < 8; k++)
			v = v >> 1 ^ (v & 1 ? 0x82f63b78U : 0);
		crc_tables[0][i] = v;
	}
	for (i = 0; i < 256; i++)
		for (k = 1; k < 8; k++)
			crc_tables[k][i] =
				crc_tables[k - 1][i] >> 8 ^
				crc_tables[0][crc_tables[k - 1][i] & 0xff];
}

/* Eight bytes a step, by eight tables. */
uint32_t vhdx_crc32c(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t w;

	pthread_once(&crc_once, crc_init);
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&w, p, 8);
		w = le64toh(w) ^ crc;
		crc = crc_tables[7][w & 0xff] ^ crc_tables[6][w >> 8 & 0xff] ^
		      crc_tables[5][w >> 16 & 0xff] ^
		      crc_tables[4][w >> 24 & 0xff] ^
		      crc_tables[3][w >> 32 & 0xff] ^
		      crc_tables[2][w >> 40 & 0xff] ^
		      crc_tables[1][w >> 48 & 0xff] ^ crc_tables[0][w >> 56];
	}
	while (len--)
		crc = crc >> 8 ^ crc_tables[0][(crc ^ *p++) & 0xff];
	return ~crc;
}

struct vhdx_log {
	struct source *file;
	const struct vhdx_header *h;
	uint64_t window_at; /* in the log; UINT64_MAX: nothing is read yet */
	uint64_t work; /* bytes that may still be checksummed */
	uint8_t window[LOG_WINDOW_BYTES];
};

/* Positions in the log; sums of one and a length may be over its end once. */
static uint64_t log_wrap(const struct vhdx_log *log, uint64_t pos)
{
	return pos >= log->h->log_bytes ? pos - log->h->log_bytes : pos;
}

/* The sector at @pos, good until the next call. */
static int log_sector(struct vhdx_log *log, uint64_t pos, const uint8_t **ret,
		      struct error *err)
{
	uint64_t at = round_down(pos, LOG_WINDOW_BYTES);
	int r;

	if (at != log->window_at) {
		log->window_at = UINT64_MAX;
		r = source_read(log->file, log->window, sizeof(log->window),
				log->h->log_off + at, err);
		if (r < 0)
			return r;
		log->window_at = at;
	}
	*ret = log->window + (pos - at);
	return 0;
}

struct log_entry {
	uint64_t pos;
	uint32_t bytes;
	uint32_t tail;
	uint32_t descriptors;
	uint64_t sequence;
	uint64_t flushed_bytes; /* of the file, when this was written */
	uint64_t last_bytes; /* that the file must have at least */
};

static uint32_t descriptor_sectors(const struct log_entry *e)
{
	return (uint32_t)div_round_up(
		ENTRY_HEAD_BYTES + (uint64_t)e->descriptors * DESCRIPTOR_BYTES,
		VHDX_SECTOR_BYTES);
}

/* Does an entry of this log begin in @buf, a sector, as far as that tells? */
static bool decode_entry(const struct vhdx_log *log, const uint8_t *buf,
			 uint64_t pos, struct log_entry *ret)
{
	struct cursor c = { .buf = buf, .len = VHDX_SECTOR_BYTES };
	struct log_entry e = {
		.pos = pos,
		.bytes = cursor_le32_at(&c, ENTRY_BYTES_AT),
		.tail = cursor_le32_at(&c, ENTRY_TAIL_AT),
		.descriptors = cursor_le32_at(&c, ENTRY_DESCRIPTORS_AT),
		.sequence = cursor_le64_at(&c, ENTRY_SEQUENCE_AT),
		.flushed_bytes = cursor_le64_at(&c, ENTRY_FLUSHED_AT),
		.last_bytes = cursor_le64_at(&c, ENTRY_LAST_AT),
	};

	*ret = e;
	/* An entry as long as the log would be its own successor. */
	return !memcmp(buf + ENTRY_SIGNATURE_AT, "loge", 4) &&
	       !memcmp(buf + ENTRY_GUID_AT, log->h->log_guid,
		       VHDX_GUID_BYTES) &&
	       e.sequence && e.bytes && e.bytes % VHDX_SECTOR_BYTES == 0 &&
	       e.bytes < log->h->log_bytes && e.tail % VHDX_SECTOR_BYTES == 0 &&
	       e.tail < log->h->log_bytes &&
	       e.descriptors <= (e.bytes - ENTRY_HEAD_BYTES) / DESCRIPTOR_BYTES;
}

/* Are the descriptors in sector @i of @e its own? Counts those with data. */
static bool descriptors_are_sound(const struct log_entry *e, uint32_t i,
				  const uint8_t *buf, uint32_t *data)
{
	struct cursor c = { .buf = buf, .len = VHDX_SECTOR_BYTES };
	uint32_t per_sector = VHDX_SECTOR_BYTES / DESCRIPTOR_BYTES;
	/* The entry's head takes the places of two. */
	uint32_t from = i ? 0 : ENTRY_HEAD_BYTES / DESCRIPTOR_BYTES;
	uint32_t n = e->descriptors + ENTRY_HEAD_BYTES / DESCRIPTOR_BYTES -
		     i * per_sector;
	uint32_t k;

	for (k = from; k < n && k < per_sector; k++) {
		size_t at = k * DESCRIPTOR_BYTES;

		if (!memcmp(buf + at, "desc", 4))
			++*data;
		else if (memcmp(buf + at, "zero", 4))
			return false;
		if (cursor_le64_at(&c, at + DESC_SEQUENCE_AT) != e->sequence)
			return false;
	}
	return true;
}

/* Is this data sector one of @e? Else it is torn. */
static bool data_is_sound(const struct log_entry *e, const uint8_t *buf)
{
	struct cursor c = { .buf = buf, .len = VHDX_SECTOR_BYTES };

	return !memcmp(buf, "data", 4) &&
	       cursor_le32_at(&c, DATA_SEQUENCE_HIGH_AT) ==
		       (uint32_t)(e->sequence >> 32) &&
	       cursor_le32_at(&c, DATA_SEQUENCE_LOW_AT) ==
		       (uint32_t)e->sequence;
}

static int check_work(struct vhdx_log *log, uint64_t bytes, struct error *err)
{
	if (bytes > log->work)
		return error_set(err, -EFBIG, log->h->log_off,
				 "log: its entries overlap so much that they "
				 "cannot be checked in reasonable time");
	log->work -= bytes;
	return 0;
}

/* 1: a sound entry lies at @pos; 0: none; or a negative errno. */
static int log_entry_at(struct vhdx_log *log, uint64_t pos,
			struct log_entry *ret, struct error *err)
{
	uint32_t crc = 0, want, sectors, first, data = 0, i;
	uint8_t head[VHDX_SECTOR_BYTES];
	const uint8_t *buf;
	bool sound = true;
	int r;

	r = log_sector(log, pos, &buf, err);
	if (r < 0)
		return r;
	if (!decode_entry(log, buf, pos, ret))
		return 0;
	r = check_work(log, ret->bytes, err);
	if (r < 0)
		return r;
	memcpy(head, buf, sizeof(head));
	want = cursor_le32_at(
		&(struct cursor){ .buf = head, .len = sizeof(head) },
		ENTRY_CHECKSUM_AT);
	memset(head + ENTRY_CHECKSUM_AT, 0, 4);
	sectors = ret->bytes / VHDX_SECTOR_BYTES;
	first = descriptor_sectors(ret);
	for (i = 0; i < sectors && sound; i++) {
		r = log_sector(
			log,
			log_wrap(log, pos + (uint64_t)i * VHDX_SECTOR_BYTES),
			&buf, err);
		if (r < 0)
			return r;
		crc = vhdx_crc32c(crc, i ? buf : head, VHDX_SECTOR_BYTES);
		if (i < first)
			sound = descriptors_are_sound(ret, i, buf, &data);
		else if (i - first < data)
			sound = data_is_sound(ret, buf);
	}
	return sound && crc == want && data <= sectors - first;
}

/* Entries side by side with rising numbers. */
struct log_sequence {
	struct log_entry first;
	struct log_entry head; /* the last one */
	uint64_t bytes;
	uint32_t entries; /* 0: there is none */
};

/* The longest sequence that begins at @pos. */
static int log_sequence_at(struct vhdx_log *log, uint64_t pos,
			   struct log_sequence *ret, struct error *err)
{
	struct log_sequence s = { .entries = 0 };
	struct log_entry e;
	int r;

	for (;;) {
		r = log_entry_at(log, log_wrap(log, pos + s.bytes), &e, err);
		if (r < 0)
			return r;
		/* It ends before it bites its own tail. */
		if (!r || e.bytes > log->h->log_bytes - s.bytes ||
		    (s.entries && e.sequence != s.head.sequence + 1))
			break;
		if (!s.entries)
			s.first = e;
		s.head = e;
		s.bytes += e.bytes;
		s.entries++;
		if (s.bytes == log->h->log_bytes)
			break;
	}
	*ret = s;
	return 0;
}

/*
 * Calls @each for the entries of @s, from the first on, until it returns
 * non-zero, and returns that.
 */
static int for_each_entry(struct vhdx_log *log, const struct log_sequence *s,
			  int (*each)(struct vhdx_log *log,
				      const struct log_entry *e, void *opaque,
				      struct error *err),
			  void *opaque, struct error *err)
{
	uint64_t pos = s->first.pos;
	struct log_entry e;
	const uint8_t *buf;
	uint32_t i;
	int r;

	for (i = 0; i < s->entries; i++) {
		r = log_sector(log, pos, &buf, err);
		if (r < 0)
			return r;
		if (!decode_entry(log, buf, pos, &e))
			return error_set(err, -EBADMSG, log->h->log_off + pos,
					 "log: changed while it was read");
		r = each(log, &e, opaque, err);
		if (r)
			return r;
		pos = log_wrap(log, pos + e.bytes);
	}
	return 0;
}

static int is_at(struct vhdx_log *log, const struct log_entry *e, void *opaque,
		 struct error *err)
{
	const uint64_t *pos = opaque;

	return e->pos == *pos;
}

/*
 * 2.3.2: the active sequence. A run whose last entry's tail lies outside it
 * is not one, and neither is any end of that run, so all of it is passed by.
 */
static int find_active(struct vhdx_log *log, struct log_sequence *ret,
		       struct error *err)
{
	struct log_sequence s;
	uint64_t pos = 0, tail;
	int r;

	*ret = (struct log_sequence){ 0 };
	while (pos < log->h->log_bytes) {
		r = log_sequence_at(log, pos, &s, err);
		if (r < 0)
			return r;
		if (!s.entries) {
			pos += VHDX_SECTOR_BYTES;
			continue;
		}
		tail = s.head.tail;
		r = for_each_entry(log, &s, is_at, &tail, err);
		if (r < 0)
			return r;
		if (r &&
		    (!ret->entries || s.head.sequence > ret->head.sequence))
			*ret = s;
		pos += s.bytes;
	}
	if (!ret->entries)
		return error_set(err, -EBADMSG, log->h->at,
				 "log: the header says that it is to be "
				 "replayed, but it has no sound entries");
	return 0;
}

/* An update of the file, or a range of the sorted ones. */
struct update {
	uint64_t off; /* in the file */
	uint64_t end;
	uint64_t log_off; /* DATA: its sector, in the file; 0: zeroes */
	uint64_t leading; /* as they stand in the file */
	uint32_t trailing;
	uint32_t order; /* a later one hides an earlier one */
};

struct updates {
	struct update *list;
	size_t n, room;
	uint64_t tail; /* where replay begins */
	bool begun;
	uint64_t data_end; /* of the last byte that is written */
};

static int updates_add(struct updates *u, const struct update *one,
		       struct error *err)
{
	struct update *grown;

	if (u->n == u->room) {
		if (u->room >= LOG_UPDATES_MAX)
			return error_set(err, -EFBIG, one->log_off,
					 "log: more than %u updates",
					 LOG_UPDATES_MAX);
		u->room = u->room ? 2 * u->room : 64;
		grown = reallocarray(u->list, u->room, sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		u->list = grown;
	}
	u->list[u->n] = *one;
	u->list[u->n].order = (uint32_t)u->n;
	u->n++;
	return 0;
}

/* 2.3.1.2, 2.3.1.3: @buf has the descriptor, @data_pos is its data's place. */
static int add_descriptor(struct vhdx_log *log, struct updates *u,
			  const uint8_t *buf, uint64_t data_pos,
			  struct error *err)
{
	struct cursor c = { .buf = buf, .len = DESCRIPTOR_BYTES };
	bool data = !memcmp(buf, "desc", 4);
	uint64_t len =
		data ? VHDX_SECTOR_BYTES : cursor_le64_at(&c, DESC_LEADING_AT);
	struct update one = { .off = cursor_le64_at(&c, DESC_FILE_OFF_AT) };

	if (one.off % VHDX_SECTOR_BYTES || len % VHDX_SECTOR_BYTES ||
	    one.off > VIEW_BYTES_MAX || len > VIEW_BYTES_MAX)
		return error_set(err, -EBADMSG, log->h->log_off + data_pos,
				 "log: update of %" PRIu64 " bytes at %" PRIu64
				 " is not one of whole sectors below 2^62",
				 len, one.off);
	if (!len)
		return 0;
	one.end = one.off + len;
	if (data) {
		one.log_off = log->h->log_off + data_pos;
		cursor_copy_at(&c, DESC_LEADING_AT, &one.leading, 8);
		cursor_copy_at(&c, DESC_TRAILING_AT, &one.trailing, 4);
		u->data_end = max_u64(u->data_end, one.end);
	}
	return updates_add(u, &one, err);
}

static int replay_entry(struct vhdx_log *log, const struct log_entry *e,
			void *opaque, struct error *err)
{
	uint64_t data_pos =
		e->pos + (uint64_t)descriptor_sectors(e) * VHDX_SECTOR_BYTES;
	struct updates *u = opaque;
	const uint8_t *buf;
	uint32_t i;
	int r;

	u->begun |= e->pos == u->tail;
	if (!u->begun)
		return 0;
	for (i = 0; i < e->descriptors; i++) {
		uint64_t at = ENTRY_HEAD_BYTES + (uint64_t)i * DESCRIPTOR_BYTES;
		uint64_t in = at % VHDX_SECTOR_BYTES;

		r = log_sector(log, log_wrap(log, e->pos + at - in), &buf, err);
		if (r >= 0)
			r = add_descriptor(log, u, buf + in,
					   log_wrap(log, data_pos), err);
		if (r < 0)
			return r;
		if (!memcmp(buf + in, "desc", 4))
			data_pos += VHDX_SECTOR_BYTES;
	}
	return 0;
}

/* The file as it is after replay: sorted ranges in front of the file. */
struct view {
	struct source base;
	struct source *file;
	struct update *list; /* ascending, no two overlap */
	size_t n;
};

/* The first range that ends behind @off; v->n: there is none. */
static size_t view_find(const struct view *v, uint64_t off)
{
	size_t low = 0, high = v->n, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (v->list[mid].end <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* @len bytes at @in of a logged sector. */
static int read_logged(const struct view *v, const struct update *u, size_t in,
		       uint8_t *buf, size_t len)
{
	uint8_t sector[VHDX_SECTOR_BYTES];
	int r;

	r = source_read(v->file, sector, sizeof(sector), u->log_off, NULL);
	if (r < 0)
		return r;
	memcpy(sector, &u->leading, 8);
	memcpy(sector + DATA_SEQUENCE_LOW_AT, &u->trailing, 4);
	memcpy(buf, sector + in, len);
	return 0;
}

static ssize_t view_pread(struct source *s, void *buf, size_t len, uint64_t off)
{
	struct view *v = container_of(s, struct view, base);
	size_t i = view_find(v, off), n;
	const struct update *u = i < v->n ? &v->list[i] : NULL;
	int r = 0;

	if (u && u->off <= off) {
		n = (size_t)min_u64(len, u->end - off);
		if (u->log_off)
			r = read_logged(v, u, (size_t)(off - u->off), buf, n);
		else
			memset(buf, 0, n);
		return r < 0 ? r : (ssize_t)n;
	}
	n = u ? (size_t)min_u64(len, u->off - off) : len;
	if (off >= v->file->bytes) {
		memset(buf, 0, n); /* by which replay makes it longer */
		return (ssize_t)n;
	}
	n = (size_t)min_u64(n, v->file->bytes - off);
	r = source_read(v->file, buf, n, off, NULL);
	return r < 0 ? r : (ssize_t)n;
}

static void view_free(struct source *s)
{
	struct view *v = container_of(s, struct view, base);

	source_unref(v->file);
	free(v->list);
	free(v);
}

static const struct source_ops view_ops = {
	.name = "vhdx-log",
	.pread = view_pread,
	.nested = true,
	.free = view_free,
};

int vhdx_view_extent(struct extent *e, struct source *view, struct source *file,
		     uint64_t unit_off, uint64_t in_unit, uint64_t len,
		     struct error *err)
{
	const struct update *u;
	const struct view *v;
	uint64_t off;
	size_t i;
	int r;

	r = extent_set_data(e, view, unit_off, in_unit, len, err);
	if (r < 0 || view == file || e->kind != EXTENT_DATA)
		return r;
	v = container_of(view, struct view, base);
	off = e->host_off;
	i = view_find(v, off);
	u = i < v->n ? &v->list[i] : NULL;
	if (u && u->off <= off) {
		e->len = min_u64(e->len, u->end - off);
		if (u->log_off)
			return 0;
	} else {
		if (u)
			e->len = min_u64(e->len, u->off - off);
		if (off < file->bytes) {
			e->len = min_u64(e->len, file->bytes - off);
			e->src = file;
			return 0;
		}
	}
	*e = (struct extent){ .kind = EXTENT_ZERO, .len = e->len };
	return 0;
}

static int compare_off(const void *a, const void *b)
{
	const struct update *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* Updates that cover where the sweep is, the latest at the root. */
struct heap {
	const struct update **list;
	size_t n;
};

static void heap_push(struct heap *h, const struct update *u)
{
	size_t i = h->n++, up;

	for (; i; i = up) {
		up = (i - 1) / 2;
		if (h->list[up]->order > u->order)
			break;
		h->list[i] = h->list[up];
	}
	h->list[i] = u;
}

static void heap_pop(struct heap *h)
{
	const struct update *u = h->list[--h->n];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < h->n) {
		if (k + 1 < h->n && h->list[k + 1]->order > h->list[k]->order)
			k++;
		if (u->order > h->list[k]->order)
			break;
		h->list[i] = h->list[k];
		i = k;
	}
	if (h->n)
		h->list[i] = u;
}

/* [@off, @end) of @u; neighbours of zeroes become one. */
static void append_range(struct view *v, const struct update *u, uint64_t off,
			 uint64_t end)
{
	struct update *last = v->n ? &v->list[v->n - 1] : NULL;

	if (last && !u->log_off && !last->log_off && last->end == off) {
		last->end = end;
		return;
	}
	v->list[v->n] = *u;
	v->list[v->n].off = off;
	v->list[v->n++].end = end;
}

/*
 * Sweeps over the updates, which overlap, and keeps the latest of each place.
 * A range ends where an update begins or ends: at most 2 for each of them.
 */
static int flatten(struct updates *u, struct view *v, struct error *err)
{
	struct heap h = { .list = calloc(u->n + 1, sizeof(*h.list)) };
	uint64_t at = 0, end;
	size_t i = 0;

	v->list = calloc(2 * u->n + 1, sizeof(*v->list));
	if (!h.list || !v->list) {
		free(h.list);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (u->n)
		qsort(u->list, u->n, sizeof(*u->list), compare_off);
	while (i < u->n || h.n) {
		while (h.n && h.list[0]->end <= at)
			heap_pop(&h);
		if (!h.n) {
			if (i == u->n)
				break;
			at = max_u64(at, u->list[i].off);
		}
		while (i < u->n && u->list[i].off <= at)
			heap_push(&h, &u->list[i++]);
		while (h.n && h.list[0]->end <= at)
			heap_pop(&h);
		if (!h.n)
			continue; /* all hidden by what was swept */
		end = h.list[0]->end;
		if (i < u->n)
			end = min_u64(end, u->list[i].off);
		append_range(v, h.list[0], at, end);
		at = end;
	}
	free(h.list);
	return 0;
}

static int make_view(struct source *file, struct updates *u,
		     const struct log_sequence *active, struct source **ret,
		     struct error *err)
{
	struct view *v = calloc(1, sizeof(*v));
	uint64_t bytes = max_u64(file->bytes, active->head.last_bytes);
	int r;

	if (!v)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&v->base, &view_ops, max_u64(bytes, u->data_end));
	v->file = source_ref(file);
	r = flatten(u, v, err);
	if (r < 0)
		view_free(&v->base);
	else
		*ret = &v->base;
	return r;
}

/* 2.3.3 */
static int replay(struct vhdx_log *log, struct source **ret, struct error *err)
{
	struct log_sequence active;
	struct updates u = { 0 };
	int r;

	r = find_active(log, &active, err);
	if (r < 0)
		return r;
	if (active.head.flushed_bytes > log->file->bytes)
		return error_set(err, -EBADMSG,
				 log->h->log_off + active.head.pos +
					 ENTRY_FLUSHED_AT,
				 "log: the file was cut: it had %" PRIu64
				 " bytes, now %" PRIu64,
				 active.head.flushed_bytes, log->file->bytes);
	if (active.head.last_bytes > VIEW_BYTES_MAX)
		return error_set(
			err, -EBADMSG,
			log->h->log_off + active.head.pos + ENTRY_LAST_AT,
			"log: file size %" PRIu64 " is over the limit of 2^62",
			active.head.last_bytes);
	u.tail = active.head.tail;
	r = for_each_entry(log, &active, replay_entry, &u, err);
	if (r >= 0)
		r = make_view(log->file, &u, &active, ret, err);
	free(u.list);
	return r;
}

int vhdx_log_replay(struct source *file, const struct vhdx_header *h,
		    struct source **ret_view, struct error *err)
{
	struct vhdx_log *log;
	int r;

	if (h->log_bytes > LOG_BYTES_MAX)
		return error_set(err, -EFBIG, h->at,
				 "log of %" PRIu32
				 " bytes is to be replayed, the limit is %llu",
				 h->log_bytes, LOG_BYTES_MAX);
	log = malloc(sizeof(*log));
	if (!log)
		return error_set(err, -ENOMEM, 0, "out of memory");
	log->file = file;
	log->h = h;
	log->window_at = UINT64_MAX;
	log->work = LOG_WORK_MIN + (uint64_t)h->log_bytes * LOG_WORK_FACTOR;
	r = replay(log, ret_view, err);
	free(log);
	return r;
}
