/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What block status can tell of an export: NBD's metadata contexts
 * (doc/proto.md of the NBD project, "Metadata querying"), with QEMU's names for
 * what is not base:allocation (docs/interop/nbd.txt there).
 *
 *	base:allocation			holes, zeroes
 *	qemu:allocation-depth		which layer has it: 1 is the top, 0 is none
 *	qemu:dirty-bitmap:BITMAP	changed, says a bitmap inside a qcow2 image
 *	qemu:dirty-bitmap:SNAPSHOT	changed since the snapshot of an overlay,
 *					say the tables
 *	qemu:dirty-bitmap::base		the overlay's own: what is not, or may
 *					not be, as in the image below it
 *
 * No snapshot of an overlay can be called ":base".
 *
 * Absence is not emptiness: a bitmap that may be wrong is no context at all, one
 * that cannot be read is an error of the request, and a snapshot is held while a
 * client has its context, whatever becomes of its name.
 */
#ifndef NBD_CONTEXT_H
#define NBD_CONTEXT_H

#include "nbd/export-name.h"
#include "nbd/export.h"

#define CONTEXT_ALLOCATION     "base:allocation"
#define CONTEXT_DEPTH	       "qemu:allocation-depth"
#define CONTEXT_DIRTY	       "qemu:dirty-bitmap:"
#define CONTEXT_NAME_BYTES_MAX 4096U /* as of all of the protocol's strings */

/* That one connection may have open at a time. */
#define CONTEXTS_MAX 16U

struct context;

/*
 * Calls @each with the name of every context that @e has, until it returns
 * non-zero, and returns that, or 0, or a negative errno: there may be more.
 */
int context_each(const struct export *e,
		 int (*each)(void *opaque, const char *name), void *opaque,
		 struct error *err);

/*
 * The context of @e called @name, the caller's to context_close() while @e is
 * there. *ret NULL, and 0: there is none. May wait for disks.
 */
int context_open(const struct export *e, const char *name, struct context **ret,
		 struct error *err);
void context_close(struct context *x); /* NULL is fine */

/* What base:allocation says of a range, as the protocol numbers it. */
enum { CONTEXT_HOLE = 1, CONTEXT_ZEROES = 2 };
/* What qemu:dirty-bitmap: says. */
enum { CONTEXT_DIRTY_BIT = 1 };

/* Does context_walk() of it heed nowait.h? */
bool context_may_try(const struct export *e, const struct context *x);

/*
 * Calls @each with range after range from @off on, inside the export, without
 * gaps; may stop before @len has been told, but not before something was. @one:
 * after the first kind. @x NULL: base:allocation. @each returns 0 to go on, else
 * that is returned; or 0 or a negative errno.
 */
int context_walk(const struct export *e, const struct context *x, uint64_t off,
		 uint64_t len, bool one,
		 int (*each)(void *opaque, uint64_t off, uint64_t len,
			     unsigned int state),
		 void *opaque, struct error *err);

#endif
