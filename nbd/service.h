/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A server's life, whatever front end takes its clients: parameters, the image
 * of the command line held open, the image service, the control socket. A front
 * end calls these in this order, each from one thread.
 */
#ifndef NBD_SERVICE_H
#define NBD_SERVICE_H

#include <stdbool.h>

#include "glance/glance.h"
#include "nbd/config.h"

struct control;
struct export;

struct service {
	struct config config;
	struct glance *glance; /* NULL: there is no store */
	struct control *control; /* NULL: no socket for it */
	/*
	 * The live images of the command line, held open so that the first
	 * client need not wait: that of image= first, where there is one.
	 */
	struct export **standing;
	size_t n_standing;
	/* Containers of several disks; each is the image of an export's name. */
	struct archive {
		const char *image;
		struct container *container;
	} * archives;
	size_t n_archives;
};

/* Before anything is opened. Takes what platter serve kept for us (keep.h). */
void service_init(struct service *s);

/* Parameter @key; -ENOENT, with a message: there is none such. */
int service_set(struct service *s, const char *key, const char *value,
		struct error *err);

/* All parameters are there. @say: see engine_configure(). */
int service_complete(struct service *s, void (*say)(const char *line),
		     struct error *err);

/*
 * Opens what must be there. No thread is made yet. @door: where the image
 * service hands clients who come by HTTP to NBD.
 */
int service_prepare(struct service *s, const struct nbd_door *door,
		    struct error *err);

/* No fork comes any more: threads do. */
int service_start(struct service *s, struct error *err);

/* Whoever waits for another server, or for a stream to be decoded, does so no more.
 * Any thread. */
void service_stop_waiting(void);

/* Nobody uses it any more; then service_done() frees all. */
void service_stop(struct service *s);
void service_done(struct service *s);

/*
 * Calls @each with the exports that a client is told of, at most @max, until it
 * returns non-zero, and returns that, or a negative errno. Names and
 * descriptions are valid in the call.
 */
int service_list(const struct service *s, unsigned int max,
		 int (*each)(void *opaque, const char *name,
			     const char *description),
		 void *opaque);

#endif
