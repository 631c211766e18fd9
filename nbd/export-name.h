/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The names of exports.
 *
 *	NAME[/MEMBER][@STATE][+OVERLAY[=EPOCH][@STATE]][~GRANT]
 *	STATE: SNAPSHOT, or FROM..TO for what changed between the two;
 *	of an overlay FROM may be ":base", the image below it, and a STATE
 *	":own", itself with a map of what it holds
 *
 * Each part is written with '%', '/', '@', '+', '~' and dots that could be
 * taken for ".." as %XX; any byte may be written so, but for control
 * characters, which no part has. An empty NAME is the image of the command
 * line; an empty FROM or TO (not both) is the live state; no other part may
 * be empty. EPOCH is a number: see overlay_fence(). Whether there is such an export is not known here.
 */
#ifndef NBD_EXPORT_NAME_H
#define NBD_EXPORT_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

/* As long as the NBD protocol lets a name be, without the ending NUL. */
#define EXPORT_NAME_MAX 4096

/* What no snapshot of an overlay is called. */
#define EXPORT_STATE_BASE ":base"
#define EXPORT_STATE_OWN  ":own"

/* A moment of an image or an overlay, or the way from one to another. */
struct export_state {
	char *at; /* NULL: the live state */
	char *from; /* of a difference that ends at @at; NULL: the live state */
	bool difference; /* else @from is NULL */
};

/* As JSON has it. */
#define EXPORT_EPOCH_MAX ((uint64_t)INT64_MAX)

/* The parts, decoded. */
struct export_name {
	char *image; /* "": that of the command line */
	char *member; /* of a container; NULL: none is named */
	struct export_state state; /* of the image */
	char *overlay; /* NULL: the image itself, read-only */
	uint64_t
		epoch; /* of who wants to write the overlay; 0: none is given */
	struct export_state overlay_state; /* all NULL without overlay */
	char *grant; /* NULL: none is given */
};

/*
 * Takes @text apart. What is not such a name is -ENOENT, in the words that
 * any other export that there is not would meet. *ret is the caller's to
 * export_name_done(), and untouched on failure.
 */
int export_name_parse(const char *text, struct export_name *ret,
		      struct error *err);
void export_name_done(struct export_name *n);

/*
 * The one name that every spelling of @n's parts comes down to. NULL: it is
 * too long, a part cannot be written, or there is no memory. To be freed.
 */
char *export_name_format(const struct export_name *n);

/* Has @s the form of an id that a store gives, a UUID? */
bool export_name_is_id(const char *s);

/* -ENOENT: "there is no export", with @text's beginning. */
int export_name_unknown(const char *text, struct error *err);

#endif
