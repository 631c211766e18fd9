/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The property list of a UDIF image, as far as it tells where data lie:
 *
 *	plist / dict "resource-fork" / dict "blkx" / array / dict "Data"
 *
 * Its DOCTYPE names a DTD on a server, which is not asked for; entities are
 * refused.
 */
#ifndef FORMATS_DRIVERS_DMG_PLIST_H
#define FORMATS_DRIVERS_DMG_PLIST_H

#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

/* libxml2 takes no text longer than this. */
#define DMG_PLIST_MAX	    10000000U
#define DMG_PLIST_DEPTH_MAX 16U
#define DMG_BLKX_MAX	    1024U

/*
 * Calls @each with the decoded bytes of each block list, in order, until it
 * returns non-zero, and returns that. A list that cannot be decoded or has no
 * block list is -EBADMSG.
 */
int dmg_plist_each(const uint8_t *xml, size_t bytes,
		   int (*each)(void *opaque, const uint8_t *list, size_t bytes,
			       struct error *err),
		   void *opaque, struct error *err);

#endif
