/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copying what lies below to the file that takes writes: "pulling", piece by
 * piece. See overlay-merge.c for what is pulled, and when.
 */
#ifndef FORMATS_OVERLAY_OVERLAY_PULL_H
#define FORMATS_OVERLAY_OVERLAY_PULL_H

#include "formats/overlay/overlay-inside.h"

/* Copied at once, while requests wait. */
#define PULL_BYTES (256U << 10)

struct pull {
	struct qcow2_file *file; /* is pulled into */
	pthread_rwlock_t *gate;
	unsigned int layers; /* of those below, so many give their data */
	uint64_t shorter; /* bytes that the lowest of them has */
	uint64_t lower; /* bytes of what lies below these; 0: nothing */
	bool all; /* whatever lies below, be it nothing */
	struct image *same; /* lies below the base, too; NULL: nobody says so */
	uint64_t sample_off; /* from there on the next is taken */
	bool as_zeroes; /* and whatever it is, it shall be zeroes */
	uint8_t *buf; /* PULL_BYTES, when it is needed; to be freed */
	/*
	 * AHEAD_BYTES, where the base is far: what it has from ahead_off on, read
	 * while requests go on. NULL: it is near.
	 */
	uint8_t *far;
	const uint8_t *ahead; /* the same, or what somebody else read */
	uint64_t ahead_off;
	int (*progress)(void *opaque, uint64_t done_bytes);
	void *opaque;

	uint64_t off, len; /* found by a look */
	bool zero; /* it reads as zeroes */
};

/*
 * The first of [@off, @off + @len) that must be pulled; p->len 0: none. Up to
 * *ret_end there is no other. Gate is held.
 */
int pull_look(struct pull *p, uint64_t off, uint64_t len, uint64_t *ret_end,
	      struct error *err);

/* [@off, @off + @len), as it is now that nobody writes. Gate is held so. */
int pull_held(struct pull *p, uint64_t off, uint64_t len, struct error *err);

/*
 * Of the base's [@off, @off + *len), data: are the first *len bytes what p->same
 * has? 1: they are; 0: they may not be; else a negative errno: a sample that was
 * compared is not. Gate is not held.
 */
int pull_is_same(struct pull *p, uint64_t off, uint64_t *len,
		 struct error *err);

/*
 * The same of what is told as zero: a sample of it, now and then. Who lets a
 * difference be applied calls so what has not changed.
 */
int pull_check_zero(struct pull *p, uint64_t off, uint64_t len,
		    struct error *err);

#endif
