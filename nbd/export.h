/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exports: names that NBD clients open (export-name.h), and the images behind
 * them. All connections to one export share one image; the states of an image
 * (formats/history.h) and the differences between them share its layers.
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "formats/difference.h"
#include "formats/history.h"
#include "formats/image.h"
#include "formats/overlay/overlay.h"
#include "nbd/config.h"
#include "nbd/line-budget.h"
#include "nbd/registry.h"
#include "nbd/trace.h"
#include "nbd/traffic.h"

struct glance;
struct glance_image;
struct glance_wish;

/*
 * Names of images are the store's, from now on: @find, glance_find_image() by
 * way of a pointer, as the command, which shares this file, has no store.
 */
void export_use_store(int (*find)(struct glance *g, const struct glance_wish *w,
				  struct glance_image *ret, struct error *err),
		      struct glance *g);

struct export
{
	struct image *image; /* what is read */
	/* Of a difference that ends at image, or at the live overlay; or NULL. */
	struct image *from;
	struct overlay *overlay; /* what is read, over image; or NULL */
	char *name; /* however the client spelled it */
	char *id; /* of the store's image; else its name, "" for image= */
	char *path; /* of the image's file */
	bool live; /* else a snapshot, a layer, or a difference */
	bool own; /* a difference of the live overlay that takes writes */
	bool lone; /* of one connection */
	bool diff_apply; /* of a difference: see config.h */
	bool standing; /* one of its holders is the server */
	struct traffic_meter traffic; /* all connections' */
	struct line_budget failures; /* lines for requests that fail */
	pthread_rwlock_t tracing; /* of: */
	struct trace_recorder *trace; /* NULL: nobody records what is read */
	atomic_bool traced; /* trace is not NULL */
	struct entry *entry, *live_entry, *overlay_entry; /* registry.h */
};

/*
 * Opens export @name, or joins those who have it open. Names are checked;
 * one that there is not is -ENOENT. Takes as long as its files take, and holds up
 * nobody but those who want the same image.
 */
int export_open(const struct config *c, const char *name, struct export **ret,
		struct error *err);
void export_close(struct export *e);

/*
 * The same for who has the control socket. He needs no grant, and names the
 * project in whose name space an overlay is: "ID+PROJECT:vm1"; as the names of
 * such exports are.
 */
int export_open_by_operator(const struct config *c, const char *name,
			    struct export **ret, struct error *err);

/* Makes the overlay that @name names, for him; -EEXIST where there is one. */
int export_create(const struct config *c, const char *name, struct error *err);

/*
 * An image of the command line, for the server's life: @image is "" for that of
 * image=, or the name of one of export=. What keeps its overlay from being
 * opened is told now, not to the first client. -ENOTUNIQ: it is a container of
 * several disks, whose names clients give.
 */
int export_open_standing(const struct config *c, const char *image,
			 struct export **ret, struct error *err);

/*
 * Notes what is read from now on, by whose open export @e is. -EBUSY: somebody
 * does so already.
 */
int export_trace_begin(struct export *e, struct error *err);
/* What was read since; see trace_take(). -ENOMEM */
int export_trace_end(struct export *e, struct trace *ret, bool *ret_full);

/* A read of it. Any thread. */
void export_note_read(struct export *e, uint64_t off, uint64_t len);

/* Connections that have it open; @e's holder is one. */
unsigned int export_connections(const struct export *e);

/*
 * Calls @run while nobody opens or closes @e, and returns what it does;
 * -EBUSY: others than the caller have @e open.
 */
int export_run_alone(struct export *e,
		     int (*run)(void *opaque, struct export *e,
				struct error *err),
		     void *opaque, struct error *err);

/* Does it take writes? */
bool export_is_writable(const struct export *e);

uint64_t export_bytes(const struct export *e); /* virtual size */

/*
 * Calls @each with every export that is open; see history_each(). Each is there
 * for so long.
 */
int export_each_open(int (*each)(void *opaque, const struct export *e,
				 unsigned int connections),
		     void *opaque);

/* How many are open. Does not wait for any. */
unsigned int export_count(void);

/* What clients asked for since the start, of all exports. Does not wait. */
void export_get_traffic(struct traffic *ret);

/* Closes what is still open, at the server's end. */
void export_close_all(void);

#endif
