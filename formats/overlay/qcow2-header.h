/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the header of a qcow2 file that is being written, so that a crash
 * at any moment leaves the old one or the new one: what decides is one sector.
 */
#ifndef FORMATS_OVERLAY_QCOW2_HEADER_H
#define FORMATS_OVERLAY_QCOW2_HEADER_H

#include "formats/overlay/qcow2-write.h"

/*
 * Puts the header extensions that name the backing file's format at @at of
 * @buf, which has room for them: @format and QCOW2_FORMAT_ROOM bytes. Returns
 * where the next may begin.
 */
#define QCOW2_FORMAT_ROOM 32U
size_t qcow2_put_format(uint8_t *buf, size_t at, const char *format);

/* The same for a mark (qcow2.h) that says nothing yet. */
size_t qcow2_put_mark(uint8_t *buf, size_t at);

/*
 * Adds one to the header of a file that has none, where it finds room.
 * Meta is held, or nobody else is there.
 */
int qcow2_make_room_for_mark(struct qcow2_file *f, struct error *err);

/*
 * The file's backing file is @name, of @format, from now on; either NULL:
 * none. Durable when it returns 0. -ENOTSUP: the header has no room for them.
 * The caller sees to it that nobody reads what that changes.
 */
int qcow2_set_base(struct qcow2_file *f, const char *name, const char *format,
		   struct error *err);

/* The same for what says that it is being pulled. */
size_t qcow2_put_pull(uint8_t *buf, size_t at, bool held);

/* It is held no more. Durable when it returns 0. As qcow2_set_epoch(). */
int qcow2_begin_pull(struct qcow2_file *f, struct error *err);

/* As qcow2_set_base(), and it is being pulled no more. */
int qcow2_end_pull(struct qcow2_file *f, const char *name, const char *format,
		   struct error *err);

/*
 * The file is of @epoch from now on. Durable when it returns 0. -ENOTSUP: the
 * header has no room. Gate is held for writing, or nobody else is there.
 */
int qcow2_set_epoch(struct qcow2_file *f, uint64_t epoch, struct error *err);

/* ---- qcow2-grow.c ---- */

/*
 * The disk has @bytes, no fewer than before, from now on, and an L1 table for
 * as many. Durable when it returns 0. Gate is held for writing.
 */
int qcow2_grow(struct qcow2_file *f, uint64_t bytes, struct error *err);

#endif
