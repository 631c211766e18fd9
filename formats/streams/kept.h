/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Indexes that are kept from one opening of a stream to the next, in a folder of
 * the user's: what took a pass is there at once. One belongs to a file as it is:
 * device, inode, size, time, and what its ends hold. Nothing here fails an
 * opening: what cannot be read, or is wrong, is as if it were not there.
 */
#ifndef FORMATS_STREAMS_KEPT_H
#define FORMATS_STREAMS_KEPT_H

#include <stdbool.h>

#include "formats/streams/stream.h"
#include "iouring/error.h"

/* Of all that are kept: those used least go. */
#define KEPT_BYTES_MAX (512ULL << 20)

/*
 * Before the first stream: they lie in the folder @path, which is made if need
 * be, in "index". -EPERM: others may write in it.
 */
int kept_configure(const char *path, struct error *err);

/* What a stream is the decoded form of, now. */
struct kept_key {
	struct source_identity identity;
	uint64_t off, bytes; /* of the stream, in what is identified */
	uint64_t ends; /* digest of what it begins and ends with */
};

/* False: nothing is kept of @s. */
bool kept_key(const struct stream *s, struct kept_key *ret);

/* Fills @s as look() or a pass would; windows stay in the file. False: there is
 * none. */
bool kept_load(struct stream *s, const struct kept_key *key);

/* What @s was loaded from has a window that is wrong: who opens it next makes the
 * index anew. */
void kept_drop(const struct stream *s);

/* Keeps what @s has, which unpacks to @bytes, unless its file is not what @key
 * says any more. */
void kept_save(const struct stream *s, const struct kept_key *key,
	       uint64_t bytes);

#endif
