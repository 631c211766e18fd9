/* SPDX-License-Identifier: BSD-3-Clause */
/* A copy's sink that is a new qcow2 file. */
#ifndef FORMATS_OVERLAY_QCOW2_SINK_H
#define FORMATS_OVERLAY_QCOW2_SINK_H

#include "formats/copy.h"
#include "formats/overlay/qcow2-create.h"

struct qcow2_sink {
	struct copy_sink sink;
	struct qcow2_dst *dst;
	uint32_t cluster_bits;
	bool compress;
	enum codec codec;
	int level;
	struct qcow2_create *file;
	bool has_base; /* zeroes are written down, too */
};

/*
 * @dst: as of qcow2_create_new(). @level: see encoder_new(). When all is
 * copied, qcow2_create_finish(s->file) makes the file whole. @s is the
 * caller's to qcow2_sink_done() in any case.
 */
int qcow2_sink_init(struct qcow2_sink *s, struct qcow2_dst *dst, uint64_t bytes,
		    uint32_t cluster_bits, bool compress, enum codec codec,
		    int level, struct error *err);
/* What is not copied is the base's: see qcow2_create_set_base(). */
int qcow2_sink_set_base(struct qcow2_sink *s, const char *name,
			const char *format, struct error *err);
void qcow2_sink_done(struct qcow2_sink *s);

#endif
