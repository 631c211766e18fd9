/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The parameters of one image, as `nbdkit platter KEY=VALUE` and as the
 * options of the platter command: one place knows their names and ranges.
 */
#ifndef NBD_CONFIG_H
#define NBD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layer.h"
#include "glance/config.h"
#include "iouring/batch.h"
#include "iouring/error.h"
#include "iouring/sources/disk-cache.h"

/* An image that is an export by a name of its own. */
struct config_export {
	char *name; /* decoded; never empty */
	char *path; /* absolute, or a URL */
};

struct config {
	char *image; /* absolute path, or a URL; NULL: not given yet */
	struct config_export *exports; /* no two of one name */
	size_t n_exports;
	char *format; /* NULL: guess */
	char *member; /* of a container; NULL: its one disk */
	uint64_t said_bytes; /* of the raw disk in a compressed file; 0: nobody
				    said */
	char *snapshot; /* NULL: the live state */
	uint8_t *key; /* contents of the key file; NULL: none */
	size_t key_bytes;
	char **allow_values; /* what allow points into */
	size_t n_allow_values;
	struct allow allow;
	char *credentials, *ca; /* absolute paths; NULL: none */
	char *proxy; /* NULL: the environment's */
	unsigned int remote_seconds;
	char *cache_dir; /* absolute path; NULL: none */
	uint64_t cache_dir_bytes;
	char *trace; /* absolute path, or a URL; NULL: beside the image */
	enum disk_cache_fill fill;
	uint64_t fill_bytes_sec; /* 0: at any rate */
	uint64_t cache_bytes;
	bool spare_given; /* which there was once */
	unsigned int connections_max; /* 0: no limit of its own */
	unsigned int address_connections_max; /* of one TCP address; 0: none */
	enum engine_mode io;
	bool direct;
	bool force_parent;
	bool force_share; /* images that somebody may be writing are read */
	bool diff_apply; /* differences: what did not change reads as zero */
	char *overlay; /* absolute path; NULL: none, or a temporary one */
	bool overlay_temp;
	bool overlay_per_connection; /* temporary ones */
	char *overlays; /* absolute folder; NULL: not given */
	bool overlays_explicit; /* clients do not make new ones in it */
	char *control; /* absolute path of a socket; NULL: none */
	uint64_t overlay_bytes_max; /* 0: no limit */
	uint64_t overlay_free_min;
	unsigned int detect; /* OVERLAY_DETECT_ZEROES, ... */
	struct glance_config glance; /* store=, glance=, ... */
};

void config_init(struct config *c);
void config_done(struct config *c); /* wipes the key */

/*
 * Sets parameter @key: image, export (may repeat), format, member, size, snapshot, key, allow (may repeat),
 * force, credentials, ca, proxy, remote-timeout, cache-dir,
 * cache-size, fill, trace, cache, spare, io, direct, diff, overlay, overlay-scope, overlays,
 * overlay-max, overlay-free, detect, control, max-connections,
 * max-connections-per-address. Returns 0, -ENOENT when there is no such parameter (and
 * @err is not touched), or -EINVAL with the reason.
 */
int config_set(struct config *c, const char *key, const char *value,
	       struct error *err);

/* The path of export= @name; NULL: there is none such. */
const char *config_export_path(const struct config *c, const char *name);
/*
 * Of the overlays over each of the images given, that over @name, "" being the
 * image without one; at most config_overlays().
 */
size_t config_overlay_of(const struct config *c, const char *name);
size_t config_overlays(const struct config *c);

/* Points into @c, which must outlive the result's use. */
void config_open_options(const struct config *c, struct open_options *ret);

/* Hands cache and io to the rooms below, once, before the first image. */
int config_apply(const struct config *c, void (*say)(const char *line),
		 struct error *err);

/*
 * -EINVAL where @path is "-": standard input and output are of use to a copy
 * alone. Elsewhere a file of that name is called "./-".
 */
int config_check_path(const char *path, struct error *err);

/*
 * A number of bytes, perhaps with a suffix K, M, G or T: powers of 1024. What
 * 64 bits do not hold is UINT64_MAX. false: it is no such number.
 */
bool config_size(const char *value, uint64_t *ret);

/* "NAME=VALUE  what it does" for each parameter, one a line. */
extern const char config_help[];

/* The @i-th parameter's name; NULL: there are fewer. */
const char *config_key(size_t i);

/* Do they go together, for a server? -EINVAL */
int config_check(const struct config *c, struct error *err);

#endif
