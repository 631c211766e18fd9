/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nbdkit plugin: NBD's requests to images, images' answers to NBD. See
 * nbdkit-plugin(3) for who calls what and when; formats/format.h for what
 * lies below.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "formats/cache.h"
#include "glance/glance.h"
#include "nbd/config.h"
#include "nbd/control.h"
#include "nbd/export.h"
#include "nbd/overlays.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit's own limit on a list is 10,000. */
#define LIST_MAX 9999U

/* What clients may ask for at once; nbdkit takes up to 64 MiB. */
#define REQUEST_BYTES_MAX (32U << 20)

static struct config config;
static struct glance *glance; /* NULL: there is no store */
static struct control *control; /* NULL: no socket for it */

/* The live image, held open so that the first client need not wait. */
static struct export *standing;

/*
 * Damage is EIO on the wire: nbdkit would send EBADMSG and most others as
 * EINVAL, which blames the client. Prints, once.
 */
static int fail(const struct error *err)
{
	nbdkit_error("%s", err->msg);
	switch (err->code) {
	case -ENOMEM:
	case -ENOSPC:
	case -EPERM:
	case -EINVAL:
	case -EOPNOTSUPP:
		nbdkit_set_error(-err->code);
		break;
	default:
		nbdkit_set_error(EIO);
		break;
	}
	return -1;
}

/* Of a fallback; it is no failure, but the administrator should know. */
static void say(const char *line)
{
	fprintf(stderr, "nbdkit: platter: %s\n", line);
}

static void platter_load(void)
{
	config_init(&config);
}

/* The plugin is about to go: nobody may use it any more. */
static void platter_cleanup(void)
{
	control_free(TAKE_PTR(control));
	glance_free(TAKE_PTR(glance));
}

static void platter_unload(void)
{
	if (standing)
		export_close(standing);
	export_close_all();
	config_done(&config);
	cache_shutdown();
}

static void platter_dump_plugin(void)
{
	const struct format_ops *const *f;

	printf("platter_formats=");
	for (f = format_table; *f; f++)
		printf("%s%s", f == format_table ? "" : ",", (*f)->name);
	printf("\nplatter_io=%s\n", engine_name());
}

static int platter_config(const char *key, const char *value)
{
	struct error err = { 0 };
	int r = config_set(&config, key, value, &err);

	if (r == -ENOENT) {
		nbdkit_error("unknown parameter \"%s\" (see nbdkit platter "
			     "--help)",
			     key);
		return -1;
	}
	return r < 0 ? fail(&err) : 0;
}

static int platter_config_complete(void)
{
	struct error err = { 0 };

	if (!config.image && !config.glance.store) {
		nbdkit_error("no image was given: nbdkit platter FILE, or "
			     "store=DIR");
		return -1;
	}
	if ((config.overlay || config.overlay_temp || config.overlays) &&
	    !(config.image || (config.overlays && config.glance.store))) {
		nbdkit_error("overlays need an image: nbdkit platter FILE");
		return -1;
	}
	if (config.overlay_per_connection && !config.overlay_temp) {
		nbdkit_error("overlay-scope=connection is for overlay=temp");
		return -1;
	}
	if (config.glance.listen && !config.glance.store) {
		nbdkit_error("glance= needs a store: store=DIR");
		return -1;
	}
	return config_apply(&config, say, &err) < 0 ? fail(&err) : 0;
}

static int platter_get_ready(void)
{
	struct error err = { 0 };
	int r = 0;

	if (config.glance.store)
		r = glance_prepare(&config.glance, &glance, &err);
	if (glance)
		export_use_store(glance_find_image, glance);
	if (r >= 0 && config.image)
		r = export_open_standing(&config, &standing, &err);
	if (r >= 0 && config.control)
		r = control_listen(config.control, &control, &err);
	return r < 0 ? fail(&err) : 0;
}

/* nbdkit has gone to the background: threads and SQLite may come. */
static int platter_after_fork(void)
{
	struct error err = { 0 };

	int r = glance ? glance_start(glance, &err) : 0;

	if (r >= 0 && control)
		r = control_start(control, &config, &err);
	return r < 0 ? fail(&err) : 0;
}

static int add_export(void *opaque, const char *name, const char *description)
{
	return nbdkit_add_export(opaque, name, description);
}

static int add_overlay(void *opaque, const char *name)
{
	return nbdkit_add_export(opaque, nbdkit_printf_intern("%s", name),
				 "overlay");
}

static int add_image(void *opaque, const char *id, const char *name)
{
	return nbdkit_add_export(opaque, nbdkit_printf_intern("%s", id),
				 nbdkit_printf_intern("%s", name));
}

static int platter_list_exports(int readonly, int is_tls,
				struct nbdkit_exports *exports)
{
	int r;

	r = standing ? export_list(&standing->image->chain, LIST_MAX,
				   add_export, exports)
		     : 0;
	if (!r && glance)
		r = glance_each_image(glance, LIST_MAX / 4, add_image, exports);
	/* A folder that cannot be read hides what is in it, not the image. */
	if (!r)
		overlays_each(&config, add_overlay, exports);
	return r < 0 ? -1 : 0;
}

static const char *platter_default_export(int readonly, int is_tls)
{
	return "";
}

static void *platter_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct error err = { 0 };
	struct export *e;

	if (!name)
		return NULL;
	if (export_open(&config, name, &e, &err) < 0) {
		fail(&err);
		return NULL;
	}
	return e;
}

static void platter_close(void *handle)
{
	export_close(handle);
}

static int64_t platter_get_size(void *handle)
{
	struct export *e = handle;

	return (int64_t)export_bytes(e);
}

static const char *platter_export_description(void *handle)
{
	struct export *e = handle;
	const char *kind = e->from ? "changes of the " : "";

	if (e->overlay)
		kind = "overlay of the ";
	else if (!e->live && !e->from)
		kind = "earlier state of the ";
	return nbdkit_printf_intern("%s%s image", kind,
				    e->image->chain.layers[0]->ops->name);
}

/* Any byte may be asked for; whole clusters are cheapest. */
static int platter_block_size(void *handle, uint32_t *minimum,
			      uint32_t *preferred, uint32_t *maximum)
{
	struct export *e = handle;
	uint64_t unit = e->overlay ? overlay_unit_bytes(e->overlay)
				   : e->image->chain.layers[0]->unit_bytes;

	*minimum = 1;
	*preferred = (uint32_t)max_u64(4096, min_u64(unit, 64 << 10));
	*maximum = REQUEST_BYTES_MAX;
	return 0;
}

static int yes(void *handle)
{
	return 1;
}

/* A flush is of the overlay, whoever wrote; but each may have its own. */
static int platter_can_multi_conn(void *handle)
{
	struct export *e = handle;

	return !(e->overlay && e->lone);
}

static int is_writable(void *handle)
{
	struct export *e = handle;

	return e->overlay != NULL;
}

static int platter_can_fua(void *handle)
{
	return is_writable(handle) ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE;
}

static int platter_can_cache(void *handle)
{
	return NBDKIT_CACHE_NATIVE;
}

static int platter_pread(void *handle, void *buf, uint32_t count,
			 uint64_t offset, uint32_t flags)
{
	struct export *e = handle;
	struct error err;

	int r;

	err.code = 0;
	r = e->overlay ? overlay_read(e->overlay, buf, count, offset, &err)
		       : image_read(e->image, buf, count, offset, &err);
	return r < 0 ? fail(&err) : 0;
}

static int platter_pwrite(void *handle, const void *buf, uint32_t count,
			  uint64_t offset, uint32_t flags)
{
	struct export *e = handle;
	struct error err;

	err.code = 0;
	if (overlay_write(e->overlay, buf, count, offset,
			  flags & NBDKIT_FLAG_FUA, &err) < 0)
		return fail(&err);
	return 0;
}

static int platter_zero(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct export *e = handle;
	struct error err = { 0 };
	unsigned int how = 0;

	if (flags & NBDKIT_FLAG_MAY_TRIM)
		how |= OVERLAY_MAY_TRIM;
	if (flags & NBDKIT_FLAG_FUA)
		how |= OVERLAY_DURABLE;
	if (flags & NBDKIT_FLAG_FAST_ZERO)
		how |= OVERLAY_FAST;
	if (overlay_zero(e->overlay, offset, count, how, &err) < 0)
		return fail(&err);
	return 0;
}

static int platter_trim(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct export *e = handle;
	struct error err = { 0 };

	if (overlay_trim(e->overlay, offset, count, flags & NBDKIT_FLAG_FUA,
			 &err) < 0)
		return fail(&err);
	return 0;
}

static int platter_flush(void *handle, uint32_t flags)
{
	struct export *e = handle;
	struct error err = { 0 };

	return overlay_flush(e->overlay, &err) < 0 ? fail(&err) : 0;
}

static int platter_cache(void *handle, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	struct export *e = handle;
	struct error err = { 0 };

	/* What an overlay has was written a moment ago. */
	if (!e->overlay && image_prefetch(e->image, offset, count, &err) < 0)
		return fail(&err);
	return 0;
}

struct extents_reply {
	struct nbdkit_extents *extents;
	bool one; /* the client wants only the first */
	bool begun; /* its type is known */
	uint32_t type;
};

static uint32_t extent_type(const struct extent *e)
{
	switch ((enum extent_kind)e->kind) {
	case EXTENT_HOLE:
	case EXTENT_ZERO:
		return NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
	case EXTENT_DATA:
	case EXTENT_COMPRESSED:
	case EXTENT_DAMAGED: /* reading it says what is wrong */
		break;
	}
	return 0;
}

static int add_type(struct extents_reply *r, uint64_t off, uint64_t len,
		    uint32_t type)
{
	if (r->one && r->begun && type != r->type)
		return 1;
	r->begun = true;
	r->type = type;
	return nbdkit_add_extent(r->extents, off, len, type);
}

static int add_extent(void *opaque, uint64_t off, const struct extent *e)
{
	return add_type(opaque, off, e->len, extent_type(e));
}

/*
 * What has not changed is a hole for clients to leave out. Those that apply a
 * difference to a copy (diff=apply) leave out what reads as zeroes, and must be
 * handed the zeroes that are new.
 */
static int add_change(void *opaque, uint64_t off, uint64_t len,
		      enum change change)
{
	static const uint32_t types[2][3] = {
		{ [CHANGE_NONE] = NBDKIT_EXTENT_HOLE,
		  [CHANGE_ZERO] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO },
		{ [CHANGE_NONE] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO },
	};

	return add_type(opaque, off, len, types[config.diff_apply][change]);
}

static int platter_extents(void *handle, uint32_t count, uint64_t offset,
			   uint32_t flags, struct nbdkit_extents *extents)
{
	struct export *e = handle;
	struct extents_reply reply = { .extents = extents,
				       .one = flags & NBDKIT_FLAG_REQ_ONE };
	struct error err = { 0 };
	uint64_t end;
	int r;

	if (e->from)
		r = difference_walk(
			&(struct difference){ .from = e->from, .to = e->image },
			offset, count, add_change, &reply, &end, &err);
	else if (e->overlay)
		r = overlay_walk(e->overlay, offset, count, add_extent, &reply,
				 &end, &err);
	else
		r = image_walk(e->image, offset, count, add_extent, &reply,
			       &end, &err);
	if (err.code)
		return fail(&err);
	return r < 0 ? -1 : 0;
}

static struct nbdkit_plugin plugin = {
	.name = "platter",
	.longname = "platter, stored disk images of any format",
	.version = PLATTER_VERSION,
	.description = "Serves a stored disk image as a raw block device: "
		       "snapshots, backing chains, compression, encryption. "
		       "Names inside images are confined to their folder.",
	.load = platter_load,
	.unload = platter_unload,
	.dump_plugin = platter_dump_plugin,
	.config = platter_config,
	.config_complete = platter_config_complete,
	.config_help = config_help,
	.magic_config_key = "image",
	.get_ready = platter_get_ready,
	.after_fork = platter_after_fork,
	.cleanup = platter_cleanup,
	.list_exports = platter_list_exports,
	.default_export = platter_default_export,
	.open = platter_open,
	.close = platter_close,
	.get_size = platter_get_size,
	.export_description = platter_export_description,
	.block_size = platter_block_size,
	.can_write = is_writable,
	.can_flush = is_writable,
	.can_trim = is_writable,
	.can_zero = is_writable,
	.can_fast_zero = is_writable,
	.can_fua = platter_can_fua,
	.can_multi_conn = platter_can_multi_conn,
	.can_extents = yes,
	.can_cache = platter_can_cache,
	.pread = platter_pread,
	.pwrite = platter_pwrite,
	.flush = platter_flush,
	.trim = platter_trim,
	.zero = platter_zero,
	.cache = platter_cache,
	.extents = platter_extents,
	.errno_is_preserved = 0,
};

/* The macro defines it; clang wants it declared. */
extern struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
