/* SPDX-License-Identifier: BSD-3-Clause */
/* platter convert: what its options came to, and where the disk goes. */
#ifndef NBD_CMD_CONVERT_H
#define NBD_CMD_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/codec/codec.h"
#include "formats/copy.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/progress.h"

struct convert {
	struct cmd cmd;
	const char *output; /* a path, or "-" */
	bool qcow2;
	bool output_given; /* raw is no default */
	const char *base; /* from the output's folder; NULL: none, or that of
			     the states */
	const char *base_format;
	bool compress;
	enum codec codec;
	int level;
	uint32_t cluster_bits; /* 0: not given */
	unsigned int threads;
	bool overwrite;
	bool existing; /* the output is a block device or an export */
	bool all; /* it is a folder, for each disk of a container */
	bool quiet;
	struct progress progress;
};

/* Copies cmd.image. Returns 0 or a negative errno: nothing is left behind. */
int convert_run(struct convert *c, struct error *err);

/*
 * Each disk of the container cmd.image to a file in the folder output, which is made
 * if need be. Ends with the first that fails: those before it are there.
 */
int convert_all(struct convert *c, struct error *err);

#endif
