/* SPDX-License-Identifier: BSD-3-Clause */
/* Glance v1 and Cyclades/Image, but for their routes (routes.h). */
#ifndef GLANCE_LEGACY_H
#define GLANCE_LEGACY_H

#include "glance/glance.h"

/* At the start: finishes what an ended server was about to register anew. */
int legacy_recover(struct glance *g, struct error *err);

#endif
