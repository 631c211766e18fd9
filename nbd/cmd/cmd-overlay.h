/* SPDX-License-Identifier: BSD-3-Clause */
/* platter overlay, of files that no server has open: cmd-overlay-file.c. */
#ifndef NBD_CMD_CMD_OVERLAY_H
#define NBD_CMD_CMD_OVERLAY_H

#include "nbd/cmd/cmd.h"

struct overlay_file_options {
	const char *base; /* NULL: not given; "": none */
	const char *base_format; /* NULL: guess */
	bool unsafe;
	bool keep;
	bool discard;
	bool quiet;
};

/* Is it one of those commands? @n operands, the command first. */
bool overlay_file_knows(int n, char **operands);

/* Carries it out; returns the exit status. */
int overlay_file_run(struct cmd *c, const struct overlay_file_options *options,
		     int n, char **operands);

#endif
