/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One failure, told once.
 *
 * A struct error lies on the stack of whoever will print it and is the last
 * argument of every function that can fail. The function that finds the fault
 * fills it with field, value, limit and the way out; layer.c puts the file's
 * name in front; nbd/ and glance/ print it. Functions return the code, a
 * negative errno:
 *
 *   -EBADMSG  the file is damaged
 *   -ENOTSUP  sound, but not supported (the message names what)
 *   -EFBIG    over a maximum that the message states
 *   -EPERM    refused for safety
 *   -EIO      this range cannot be read
 *   -EINVAL   the caller asked for nonsense
 */
#ifndef IOURING_ERROR_H
#define IOURING_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/util.h"

/* Long enough for a path of 255 bytes, a name, two values and a hint. */
#define ERROR_MSG_BYTES 768

struct error {
	int code; /* negative errno; 0: nothing has failed */
	uint64_t off; /* byte offset of the field in its file, or 0 */
	char msg[ERROR_MSG_BYTES];
};

/*
 * Fills @err, unless it already tells of an earlier failure, and gives @code.
 * Control characters and bytes that are not UTF-8 are written as \xNN, so
 * what comes out of an image cannot forge a line or drive a terminal. @err may
 * be NULL. @off: where in the file the field lies, for tests. (A macro, so that
 * an analyser of one file sees that the result is what was put in.)
 */
#define error_set(err, code, off, ...)                              \
	({                                                          \
		const int error_code_ = (code);                     \
		ANALYSER_ASSUME(error_code_ < 0);                   \
		error_fill((err), error_code_, (off), __VA_ARGS__); \
		error_code_;                                        \
	})
void error_fill(struct error *err, int code, uint64_t off, const char *fmt, ...)
	PRINTF(4, 5);

/*
 * A parameter in the words of who reads our messages: nbdkit's ("key=FILE"), or
 * the command's ("--key FILE"), which says so once, before anything is opened.
 */
extern bool parameters_are_options;
#define AS_GIVEN(parameter, option) \
	(parameters_are_options ? option : parameter)

/* Puts "text: " in front of the message. @err may be NULL. */
void error_prefix(struct error *err, const char *fmt, ...) PRINTF(2, 3);

/*
 * What errno value @code (positive) means, in English. Unlike strerror(), it
 * takes no lock of the locale's and any thread may call it.
 */
const char *errno_text(int code);

/*
 * Writes @text to @ret with control characters and what is not UTF-8 as \xNN,
 * cut to @ret_bytes (> 4) with the ending NUL, never inside a character.
 */
void text_escape(char *ret, size_t ret_bytes, const char *text);

/* Forgets what @err tells. @err may be NULL. */
void error_clear(struct error *err);

#endif
