/* SPDX-License-Identifier: BSD-3-Clause */
/* The dirty bit ("Header", incompatible features bit 0). */
#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

static int set_dirty(struct qcow2_file *o, bool dirty, struct error *err)
{
	uint64_t bits = o->s->h.incompatible & ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
	int r;

	bits = htobe64(dirty ? bits | QCOW2_INCOMPAT_DIRTY : bits);
	r = source_write(o->src, &bits, sizeof(bits), QCOW2_INCOMPATIBLE_AT,
			 err);
	if (r >= 0)
		r = disk_sync(o, err);
	if (r >= 0)
		o->dirty = dirty;
	return r;
}

/* Twice: the tables, and what the guest's data may leave behind. */
bool dirty_is_possible(const struct qcow2_file *o)
{
	return o->s->h.version >= 3 && !o->temporary &&
	       o->bytes >> o->cluster_bits <
		       REPAIR_BYTES_MAX / sizeof(uint32_t) / 2;
}

int dirty_mark(struct qcow2_file *o, struct error *err)
{
	return o->dirty || !dirty_is_possible(o) ? 0 : set_dirty(o, true, err);
}

int dirty_unmark(struct qcow2_file *o, struct error *err)
{
	return o->dirty ? set_dirty(o, false, err) : 0;
}
