/* SPDX-License-Identifier: BSD-3-Clause */
/* How numbers, names and maps are written for people and for shells. */
#ifndef NBD_TEXT_H
#define NBD_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "formats/extent.h"

#define TEXT_BYTES_MAX 32

/* "512 bytes", "64 KiB", "3.5 GiB", "16 EiB": to three digits. */
const char *text_bytes(char ret[TEXT_BYTES_MAX], uint64_t bytes);

/*
 * @s with everything but letters, digits, "-._~" and the characters of @keep
 * as %XX. To be freed; NULL when there is no memory.
 */
char *text_percent(const char *s, const char *keep);

/* What text_percent() made of what; likewise. Other "%" stay as they are. */
char *text_unpercent(const char *s);

/*
 * The number at *@p, at most @max, behind which @end comes: *@p goes on behind
 * that. false: there is none such.
 */
bool text_take_number(char **p, char end, uintmax_t max, uintmax_t *ret);

/*
 * Tells of a disk whose size is not a multiple of 512 what becomes of that, in
 * a line; nothing of others.
 */
void text_odd_size(uint64_t bytes, FILE *fp);

/*
 * @s as one word of a shell: in single quotes where it needs them. To be
 * freed; NULL when there is no memory.
 */
char *text_shell_word(const char *s);

/* "nbdkit 1.32.5 ..." to { 1, 32, 5 }; false: it is not that. */
bool text_nbdkit_version(const char *s, unsigned int ret[3]);

/* Can one plaintext client abort this nbdkit? Mended in 1.33.10. */
bool text_nbdkit_abortable(const unsigned int version[3]);

/* Allocation of a whole disk, drawn in one line. */
struct bar {
	uint64_t bytes; /* of the disk */
	unsigned int columns;
	uint64_t *used; /* per column: bytes of data */
	uint64_t *zero; /* per column: bytes that a layer says are zero */
	uint64_t *bad; /* per column: damaged bytes */
	uint64_t used_bytes, zero_bytes, bad_bytes;
};

/* Returns 0 or -ENOMEM. @columns > 0. */
int bar_init(struct bar *b, uint64_t bytes, unsigned int columns);
void bar_done(struct bar *b);

/* [@off, @off + @len) is inside the disk. */
void bar_add(struct bar *b, uint64_t off, uint64_t len, const struct extent *e);

/* The line and its legend; with @utf8 in shades, else in ASCII. */
void bar_print(const struct bar *b, bool utf8, FILE *fp);

#endif
