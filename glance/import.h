/* SPDX-License-Identifier: BSD-3-Clause */
/* Images' data from elsewhere: what was staged, or a web server's. */
#ifndef GLANCE_IMPORT_H
#define GLANCE_IMPORT_H

#include <jansson.h>

#include "glance/glance.h"
#include "glance/task.h"

/*
 * Does what @t says, to its end; the index has what came of it. When @w is
 * ending the task stays as it is, to be begun anew.
 */
struct worker;
void import_run(struct glance *g, const struct task *t, struct worker *w);

/* In index_write(), at the start: images whose import nobody goes on with. */
int import_reset(struct index_tx *tx, struct error *err);

#endif
