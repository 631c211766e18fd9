/* SPDX-License-Identifier: BSD-3-Clause */
/* What people know from qemu-img and qemu-nbd, and what it is called here. */
#ifndef NBD_CMD_HABITS_H
#define NBD_CMD_HABITS_H

/* What does here what verb @name does there, to follow "unknown verb"; or NULL. */
const char *habit_of_verb(const char *name);

/*
 * The same of the option @arg ("-o", "--output=json") that @verb has not; or
 * NULL.
 */
const char *habit_of_option(const char *verb, const char *arg);

#endif
