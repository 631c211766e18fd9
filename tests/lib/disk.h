/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk image in memory and its driver alone, below layer.c: drivers must not
 * rely on what is checked there.
 */
#ifndef TESTS_LIB_DISK_H
#define TESTS_LIB_DISK_H

#include "formats/layer.h"
#include "tests/lib/unit.h"

/* A field that a hostile file has, and the refusal that it meets. */
struct disk_row {
	size_t at;
	unsigned int width; /* 0: the file is as it was */
	uint64_t value;
	int code;
	uint64_t off; /* of the field that is blamed */
	const char *says;
};

extern uint8_t *disk_file;
extern size_t disk_bytes;
extern struct error disk_err;

/* A file of zeroes; the one before is gone. */
void disk_new(size_t bytes);
void disk_done(void);

void disk_le(size_t at, unsigned int width, uint64_t value);
void disk_be(size_t at, unsigned int width, uint64_t value);

/* Opens the file; what open() says is in *ret. */
struct layer *disk_open(const char *format, const struct open_options *options,
			int *ret);
struct layer *disk_must_open(const char *format);

/* The file, with what the row changes, must be refused as the row says. */
void disk_refuses(const char *format, const struct disk_row *row, bool le);

/* The extent at @off; its failure fails the test. */
struct extent disk_map(struct layer *l, uint64_t off, uint64_t len);

/* The same, which must be of this kind and length, and DATA at this place. */
void disk_maps(struct layer *l, uint64_t off, enum extent_kind kind,
	       uint64_t len, uint64_t host_off);

/* map() at @off must fail with -EBADMSG and say so. */
void disk_is_damaged(struct layer *l, uint64_t off, const char *says);

/* check() must find this. */
void disk_checks(struct layer *l, uint64_t corruptions, uint64_t leaks);

/* The value that info() tells for @key; "" when it does not. */
const char *disk_info(struct layer *l, const char *key);

#endif
