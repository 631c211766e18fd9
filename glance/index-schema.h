/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The index's tables, as steps: user_version counts those that were taken. A
 * step that was released is never changed; a new one is added at the end.
 */
#ifndef GLANCE_INDEX_SCHEMA_H
#define GLANCE_INDEX_SCHEMA_H

#include <stddef.h>

/* SQL of each step; ended by NULL. */
extern const char *const index_steps[];

#endif
