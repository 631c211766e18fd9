/* SPDX-License-Identifier: BSD-3-Clause */
/* What there is to know of the NBD side, for GET /metrics. */
#ifndef NBD_METRICS_H
#define NBD_METRICS_H

struct text_buf;

/* Adds it in Prometheus's text format; glance.add_metrics. */
void metrics_add(struct text_buf *b);

#endif
