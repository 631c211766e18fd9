/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has a store: one process at a time.
 *
 *	DIR/lock	locked (an OFD lock) by whoever has the store, with a
 *			lease in it: host, process, boot, since when
 *
 * The lock is the kernel's, which frees it when the process ends, however it
 * ends. The lease says who it is, and is all there is on file systems without
 * locks, or whose locks another host does not see: it is renewed every
 * STORE_LEASE_BEAT_SEC, and holds for STORE_LEASE_SEC more. Its age is told by
 * the clock of the file system, so that the hosts' may differ.
 */
#ifndef GLANCE_STORE_LOCK_H
#define GLANCE_STORE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

#define STORE_LEASE_BEAT_SEC 10
#define STORE_LEASE_SEC	     60

struct store_lock;

/* As the lease has it. */
struct store_holder {
	char host[65];
	int64_t pid;
	int64_t since_sec; /* since 1970, UTC */
};

/*
 * Takes the store at @path, whose folder is @folder. -EBUSY: it is had by
 * another, in one line that names host and process.
 */
int store_lock_take(int folder, const char *path, struct store_lock **ret,
		    struct error *err);
/*
 * In the process that will have it, after all forks: those of before have it
 * no more. Renews the lease from now on.
 */
int store_lock_keep(struct store_lock *l, struct error *err);
/* Another has it by now: the lease was not renewed in time. */
bool store_lock_lost(const struct store_lock *l);
void store_lock_drop(struct store_lock *l); /* NULL is fine */

/* 1: somebody has it, *ret says who; 0: nobody; or a negative errno. */
int store_lock_holder(int folder, struct store_holder *ret, struct error *err);

#endif
