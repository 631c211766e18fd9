/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Objects that are opened once, however many want them, and closed when the last
 * has gone. Opening and closing may take as long as a disk that hangs does: no
 * lock is held meanwhile, and only those wait who want the same object.
 */
#ifndef NBD_REGISTRY_H
#define NBD_REGISTRY_H

#include <pthread.h>
#include <stdbool.h>

#include "iouring/error.h"

struct registry {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* an entry's state */
	struct entry *first;

	/* Optional: @object has been opened, as @e. Once, by who opened it. */
	void (*opened)(void *object, struct entry *e);

	/*
	 * Optional: @object will not be found any more. Under the lock, so it is
	 * either among those that registry_each() sees, or has been retired.
	 */
	void (*retire)(void *object);

	/* Without the lock. */
	void (*close)(void *object);
};

#define REGISTRY(opened_fn, retire_fn, close_fn)                          \
	{                                                                 \
		.lock = PTHREAD_MUTEX_INITIALIZER,                        \
		.changed = PTHREAD_COND_INITIALIZER, .opened = opened_fn, \
		.retire = retire_fn, .close = close_fn,                   \
	}

/* One holder's share of an entry is dropped by registry_put(). */
struct entry;

/* Makes an object; *ret is written on success only. */
typedef int registry_open_fn(void *opaque, void **ret, struct error *err);

/*
 * The entry @key, which the caller holds from then on: it is there, or @open
 * makes its object, or another thread's does, which is waited for; what that one
 * fails with, this one does. @key NULL: one that nobody else will find. Any
 * thread, but not from within @open for the same key.
 */
int registry_get(struct registry *g, const char *key, registry_open_fn *open,
		 void *opaque, struct entry **ret, struct error *err);

/* As registry_get(), where the object is there: false: it is not. */
bool registry_find(struct registry *g, const char *key, struct entry **ret);

/* The last holder closes the object, and who wants it next waits for that. */
void registry_put(struct registry *g, struct entry *e);

void *entry_object(const struct entry *e);

/* Holders, the caller among them. */
unsigned int registry_holders(struct registry *g, const struct entry *e);

/*
 * Calls @run while nobody gets or puts @e, and returns what it does; -EBUSY,
 * with nothing said: others than @n hold it.
 */
int registry_run_alone(struct registry *g, struct entry *e, unsigned int n,
		       int (*run)(void *opaque, struct error *err),
		       void *opaque, struct error *err);

/*
 * Calls @each with what is open until it returns non-zero, and returns that.
 * registry_each() does under the lock: @each does not wait for anything;
 * registry_visit() without: the object is there for so long.
 */
int registry_each(struct registry *g,
		  int (*each)(void *opaque, void *object, unsigned int holders),
		  void *opaque);
int registry_visit(struct registry *g,
		   int (*each)(void *opaque, void *object,
			       unsigned int holders),
		   void *opaque);

/* Closes what is still open, whoever holds it; at the end, in one thread. */
void registry_close_all(struct registry *g);

#endif
