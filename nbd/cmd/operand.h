/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What commands take for an image: FILE, or FILE@STATE with a state as
 * formats/history.h calls it. A file whose name has an '@' is that file, where
 * it exists; else what follows the first '@' behind a file's name is a state. Or
 * the URI of an NBD export (nbd-source.h), or the URL of an object of a web server,
 * whose states --snapshot names.
 */
#ifndef NBD_CMD_OPERAND_H
#define NBD_CMD_OPERAND_H

#include <stdbool.h>

#include "formats/image.h"
#include "nbd/config.h"

/* Is @text more than the name of a file: one with a state, or a URI? */
bool operand_is_more(const char *text);

/* IMAGE@A..B, what has changed from one state to another, or one state. */
struct operand_change {
	struct image *from; /* NULL: it is one */
	struct image *to;
	bool from_is_file; /* a layer or the live state: all from's layers'
			      files have it, and no snapshot inside one */
};

/*
 * Opens @text as operand_open() does, or as a change where a state is called A..B
 * that there is not; one of A and B may be empty, the live state. The caller's to
 * operand_change_done() in any case.
 */
int operand_open_change(const struct config *c, const char *text,
			const char *format, struct operand_change *ret,
			struct error *err);
void operand_change_done(struct operand_change *o);

/* Opens @text. @format: as declared, or NULL; else as @c has it. */
int operand_open(const struct config *c, const char *text, const char *format,
		 struct image **ret, struct error *err);

#endif
