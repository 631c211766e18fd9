/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What commands take for an image: FILE, or FILE@STATE with a state as
 * formats/history.h calls it. A file whose name has an '@' is that file, where
 * it exists; else what follows the first '@' behind a file's name is a state. Or
 * the URI of an NBD export (nbd-source.h).
 */
#ifndef NBD_CMD_OPERAND_H
#define NBD_CMD_OPERAND_H

#include <stdbool.h>

#include "formats/image.h"
#include "nbd/config.h"

/* Is @text more than the name of a file: one with a state, or a URI? */
bool operand_is_more(const char *text);

/* Opens @text. @format: as declared, or NULL; else as @c has it. */
int operand_open(const struct config *c, const char *text, const char *format,
		 struct image **ret, struct error *err);

#endif
