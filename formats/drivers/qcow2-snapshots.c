/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2's table of snapshots: "Snapshots". */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

/* "Snapshots": the fixed part of an entry */
enum {
	SNAP_L1_OFF_AT = 0,
	SNAP_L1_ENTRIES_AT = 8,
	SNAP_ID_BYTES_AT = 12,
	SNAP_NAME_BYTES_AT = 14,
	SNAP_DATE_SEC_AT = 16,
	SNAP_DATE_NSEC_AT = 20,
	SNAP_VM_CLOCK_AT = 24,
	SNAP_VM_STATE_AT = 32,
	SNAP_EXTRA_BYTES_AT = 36,
	SNAP_BYTES = 40,
	/* in the extra data */
	SNAP_EXTRA_VM_STATE_AT = 0,
	SNAP_EXTRA_DISK_AT = 8,
};

void qcow2_snapshot_done(struct qcow2_snapshot *s)
{
	free(s->id);
	free(s->name);
	*s = (struct qcow2_snapshot){ 0 };
}

static char *read_string(struct layer *l, uint64_t off, size_t bytes,
			 struct error *err)
{
	CLEANUP(freep) char *text = calloc(1, bytes + 1);

	if (!text) {
		error_set(err, -ENOMEM, 0, "out of memory");
		return NULL;
	}
	if (layer_read_meta(l, l->src, text, bytes, off, err) < 0)
		return NULL;
	return TAKE_PTR(text);
}

int qcow2_read_snapshot(struct layer *l, uint64_t off,
			struct qcow2_snapshot *ret, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint8_t buf[SNAP_BYTES], extra[16] = { 0 };
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	struct cursor x = { .buf = extra, .len = sizeof(extra) };
	struct qcow2_snapshot snap = { 0 };
	uint32_t id_bytes, name_bytes, extra_bytes;
	int r;

	r = layer_read_meta(l, l->src, buf, sizeof(buf), off, err);
	if (r < 0)
		return r;
	snap.l1_off = cursor_be64_at(&c, SNAP_L1_OFF_AT);
	snap.l1_entries = cursor_be32_at(&c, SNAP_L1_ENTRIES_AT);
	snap.date_sec = cursor_be32_at(&c, SNAP_DATE_SEC_AT);
	snap.date_nsec = cursor_be32_at(&c, SNAP_DATE_NSEC_AT);
	snap.vm_clock_nsec = cursor_be64_at(&c, SNAP_VM_CLOCK_AT);
	snap.vm_state_bytes = cursor_be32_at(&c, SNAP_VM_STATE_AT);
	snap.bytes = s->h.size;
	id_bytes = cursor_be16_at(&c, SNAP_ID_BYTES_AT);
	name_bytes = cursor_be16_at(&c, SNAP_NAME_BYTES_AT);
	extra_bytes = cursor_be32_at(&c, SNAP_EXTRA_BYTES_AT);
	if (extra_bytes > QCOW2_SNAPSHOT_EXTRA_MAX)
		return error_set(err, -EFBIG, off + SNAP_EXTRA_BYTES_AT,
				 "snapshot's extra data of %" PRIu32
				 " bytes are over the limit of %u",
				 extra_bytes, QCOW2_SNAPSHOT_EXTRA_MAX);
	off += SNAP_BYTES;
	r = layer_read_meta(l, l->src, extra,
			    min_size(extra_bytes, sizeof(extra)), off, err);
	if (r < 0)
		return r;
	if (extra_bytes >= 8)
		snap.vm_state_bytes =
			cursor_be64_at(&x, SNAP_EXTRA_VM_STATE_AT);
	if (extra_bytes >= 16)
		snap.bytes = cursor_be64_at(&x, SNAP_EXTRA_DISK_AT);
	off += extra_bytes;
	snap.id = read_string(l, off, id_bytes, err);
	snap.name = snap.id ? read_string(l, off + id_bytes, name_bytes, err)
			    : NULL;
	if (!snap.name) {
		r = err ? err->code : -EBADMSG;
		qcow2_snapshot_done(&snap);
		return r;
	}
	snap.entry_bytes = round_up(
		(uint64_t)SNAP_BYTES + extra_bytes + id_bytes + name_bytes, 8);
	*ret = snap;
	return 0;
}

int qcow2_each_snapshot(struct layer *l,
			int (*each)(void *opaque,
				    const struct qcow2_snapshot *s),
			void *opaque, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint64_t at = 0;
	uint32_t i;
	int r;

	for (i = 0; i < s->h.snapshots; i++) {
		CLEANUP(qcow2_snapshot_done) struct qcow2_snapshot snap = { 0 };

		r = qcow2_read_snapshot(l, s->h.snapshots_off + at, &snap, err);
		if (r < 0) {
			error_prefix(err, "snapshot %" PRIu32, i);
			return r;
		}
		snap.idx = i;
		at += snap.entry_bytes;
		if (at > QCOW2_SNAPSHOT_TABLE_MAX)
			return error_set(err, -EFBIG, QCOW2_SNAPSHOTS_AT,
					 "snapshot table is over the limit of "
					 "%u bytes",
					 QCOW2_SNAPSHOT_TABLE_MAX);
		r = each(opaque, &snap);
		if (r)
			return r;
	}
	return 0;
}

struct snapshot_search {
	const char *wanted;
	bool by_name; /* else by id */
	struct qcow2_snapshot found;
};

/* Takes the numbers; the strings stay with the entry. */
static int match_snapshot(void *opaque, const struct qcow2_snapshot *s)
{
	struct snapshot_search *f = opaque;

	ANALYSER_ASSUME(s->id && s->name);
	if (strcmp(f->by_name ? s->name : s->id, f->wanted))
		return 0;
	f->found = *s;
	f->found.id = f->found.name = NULL;
	return 1;
}

struct snapshot_relay {
	int (*each)(void *opaque, const struct snapshot *s);
	void *opaque;
};

static int relay_snapshot(void *opaque, const struct qcow2_snapshot *s)
{
	struct snapshot_relay *relay = opaque;
	struct snapshot plain = {
		.id = s->id,
		.name = s->name,
		.bytes = s->bytes,
		.vm_state_bytes = s->vm_state_bytes,
		.date_sec = s->date_sec,
		.date_nsec = s->date_nsec,
		.vm_clock_nsec = s->vm_clock_nsec,
	};

	return relay->each(relay->opaque, &plain);
}

int qcow2_snapshots(struct layer *l,
		    int (*each)(void *opaque, const struct snapshot *s),
		    void *opaque, struct error *err)
{
	struct snapshot_relay relay = { .each = each, .opaque = opaque };

	return qcow2_each_snapshot(l, relay_snapshot, &relay, err);
}

int qcow2_find_snapshot(struct layer *l, const char *wanted,
			struct qcow2_snapshot *ret, struct error *err)
{
	struct snapshot_search f = { .wanted = wanted };
	int r = qcow2_each_snapshot(l, match_snapshot, &f, err);

	if (!r) {
		f.by_name = true;
		r = qcow2_each_snapshot(l, match_snapshot, &f, err);
	}
	if (r < 0)
		return r;
	if (!r)
		return error_set(err, -ENOENT, 0, "there is no snapshot \"%s\"",
				 wanted);
	*ret = f.found;
	return 0;
}
