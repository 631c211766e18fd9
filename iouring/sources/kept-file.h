/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A remote object's copy on this machine's disk, as far as it was read: a sparse
 * file NAME.data, and NAME.map that says which chunks of it there are. NAME comes
 * from what the object is (source_identity), so that another version of it has
 * other files.
 *
 * NAME.map, little-endian: a page with
 *
 *	 0	"PLTKEPT1"
 *	 8	u32 bytes of a chunk
 *	12	u32 bytes of the text
 *	16	u64 size of the object
 *	24	u64 salt, a number of this file's own
 *	32	text: the object's name, NUL, its version
 *	4088	u64 checksum of what is before it
 *
 * then pages of 4088 bytes of bits, a bit a chunk, the lowest first, each with a
 * checksum of them, its number and the salt. What has no right checksum says that
 * nothing is there. Bits are written when the data that they tell of are on disk,
 * and are gone from the disk before the data are.
 *
 * Who has it open has it locked: nobody else changes it, nor removes it.
 */
#ifndef IOURING_SOURCES_KEPT_FILE_H
#define IOURING_SOURCES_KEPT_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/source.h"

#define KEPT_CHUNK_BYTES (256U << 10)
#define KEPT_CHUNKS_MAX	 (1U << 24) /* of an object: 4 TiB */
#define KEPT_NAME_BYTES	 33U /* with the ending NUL */
#define KEPT_PAGE_BYTES	 4096U
#define KEPT_PAGE_CHUNKS ((KEPT_PAGE_BYTES - 8) * 8)

struct kept_file {
	char name[KEPT_NAME_BYTES];
	uint64_t bytes; /* of the object */
	size_t n_chunks;
	uint64_t salt;
	struct source *map, *data; /* both open for reading and writing */
	atomic_uint_fast64_t *bits; /* by chunk: it is in data */
	atomic_uchar *dirty; /* by page of the map: to be written */
	atomic_bool broken; /* what it says cannot be relied on: nothing is
			       read from it any more */
};

/* Can it be kept? What may change unseen cannot, nor what is too large. */
bool kept_can_be(const struct source_identity *id);

/* The name of the files. */
void kept_name(const struct source_identity *id, char ret[KEPT_NAME_BYTES]);

/*
 * Opens the files in the folder @dir, or makes them. What is there and is not what
 * it should be is replaced. -EBUSY: somebody else has it open. @ret is the
 * caller's to kept_close() on success.
 */
int kept_open(int dir, const struct source_identity *id, struct kept_file *ret,
	      struct error *err);

/* Without a flush. Zeroed is fine. */
void kept_close(struct kept_file *f);

/* Any thread. */
bool kept_has(const struct kept_file *f, size_t chunk);

/* The chunk has been written to data, whole. Any thread. */
void kept_add(struct kept_file *f, size_t chunk);

/* It is nothing any more; true: it was there. */
bool kept_take(struct kept_file *f, size_t chunk);

/* How many bytes the chunk has. */
size_t kept_chunk_bytes(const struct kept_file *f, size_t chunk);

/*
 * What was added and taken before this is on disk when it returns 0. One thread at
 * a time. A sync that fails makes it broken, here and on disk; else what could not be
 * written is dirty still.
 */
int kept_flush(struct kept_file *f, struct error *err);

/* Nothing is there any more, here and on disk, nor kept from now on. */
void kept_break(struct kept_file *f);
bool kept_is_dirty(const struct kept_file *f);

/* How many chunks there are. */
size_t kept_count(const struct kept_file *f);
uint64_t kept_bytes(const struct kept_file *f); /* in them */

/* What a map says, for people. */
struct kept_info {
	char text[4096]; /* the object's name, NUL, its version */
	const char *version; /* in it */
	uint64_t bytes, kept_bytes;
	struct timespec used; /* last */
	bool in_use; /* somebody has it open */
};

/*
 * Looks at the files of that name, which may be open, and changes nothing.
 * -EBADMSG: the map says nothing.
 */
int kept_look(int dir, const char *name, struct kept_info *ret);

/*
 * Removes the files of that name, unless somebody has them open (-EBUSY).
 */
int kept_remove(int dir, const char *name);

#endif
