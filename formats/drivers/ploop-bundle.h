/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DiskDescriptor.xml: which files make up a Parallels or Virtuozzo disk, and
 * in which order its snapshots stand. After QEMU's docs/interop/prl-xml.txt
 * and libploop's own files.
 *
 *	Parallels_disk_image | Virtuozzo_disk_image
 *	  Disk_Parameters   Disk_size (sectors), Padding, Encryption
 *	  StorageData       Storage: Start, End (sectors),
 *	                      Image: GUID, Type (Compressed, Plain), File
 *	  Snapshots         TopGUID, Shot: GUID, ParentGUID
 *
 * Parsed without DTD, entities and network; a descriptor is at most 1 MiB,
 * and every list in it has a stated maximum.
 */
#ifndef FORMATS_DRIVERS_PLOOP_BUNDLE_H
#define FORMATS_DRIVERS_PLOOP_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define BUNDLE_XML_NAME	    "DiskDescriptor.xml"
#define BUNDLE_NAMES_NAME   "Snapshots.xml"
#define BUNDLE_XML_MAX	    (1U << 20)
#define BUNDLE_DEPTH_MAX    16U /* of elements in each other */
#define BUNDLE_NAMES_DEPTH  200U /* one more for each snapshot on another */
#define BUNDLE_STORAGES_MAX 512U
#define BUNDLE_IMAGES_MAX   1024U /* of a storage */
#define BUNDLE_SHOTS_MAX    1024U
#define BUNDLE_SECTORS_MAX  (INT64_MAX / 512)

/* "5fbaabe3-6958-40ff-92a7-860e329aab41": small letters, no braces */
struct guid {
	char text[37];
};

struct bundle_image {
	struct guid guid;
	bool plain; /* raw, else ploop */
	char *file; /* relative to the descriptor's folder */
};

struct bundle_storage {
	uint64_t start; /* sectors of the disk */
	uint64_t end;
	struct bundle_image *images;
	size_t n_images;
};

struct bundle_shot {
	struct guid guid;
	struct guid parent; /* empty: this is the root */
	char *name; /* NULL: nobody gave it one */
};

struct bundle {
	uint64_t disk_sectors;
	struct guid top; /* what is written to */
	struct bundle_storage *storages; /* by start, not overlapping */
	size_t n_storages;
	struct bundle_shot *shots;
	size_t n_shots;
};

/* @ret is zeroed before, and the caller's to bundle_done() in any case. */
int bundle_parse(const uint8_t *xml, size_t bytes, struct bundle *ret,
		 struct error *err);
void bundle_done(struct bundle *b);

/*
 * Snapshots.xml, which Parallels and Virtuozzo keep for the machine: what the
 * shots of @b are called.
 *
 *	ParallelsSavedStates
 *	  SavedStateItem guid="": Name, SavedStateItem ...
 *
 * Snapshots of which @b has no shot are those of other disks.
 */
int bundle_parse_names(const uint8_t *xml, size_t bytes, struct bundle *b,
		       struct error *err);

/* Is this a DiskDescriptor.xml, by its root element? */
bool bundle_probe(const uint8_t *head, size_t bytes);

/* With or without braces, letters of any size. false: not a GUID. */
bool guid_parse(struct guid *ret, const char *text);
bool guid_equal(const struct guid *a, const struct guid *b);

/* The image of @guid in @s; NULL: there is none. */
const struct bundle_image *bundle_image(const struct bundle_storage *s,
					const struct guid *guid);

/* What @guid stands upon; empty: nothing. */
struct guid bundle_parent(const struct bundle *b, const struct guid *guid);

#endif
