/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nbdkit plugin: nbdkit's calls to sessions (session.h), their answers to
 * nbdkit. See nbdkit-plugin(3) for who calls what and when; formats/format.h for
 * what lies below.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "formats/format.h"
#include "iouring/nowait.h"
#include "nbd/bridge.h"
#include "nbd/control.h"
#include "nbd/peer-name.h"
#include "nbd/service.h"
#include "nbd/session.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit's own limit on a list is 10,000. */
#define LIST_MAX 9999U

static struct service service;

/* Of the start, where the administrator reads it. */
static int fail(const struct error *err)
{
	nbdkit_error("%s", err->msg);
	return -1;
}

/* Prints, once, what there is to be said of it. */
static int report(const struct fault *f)
{
	if (f->untold)
		nbdkit_error("%" PRIu64 " more like the next were not told",
			     f->untold);
	if (f->tell)
		nbdkit_error("%s", f->err.msg);
	nbdkit_set_error(f->wire);
	return -1;
}

/* Of a fallback; it is no failure, but the administrator should know. */
static void say(const char *line)
{
	fprintf(stderr, "nbdkit: platter: %s\n", line);
}

static void platter_load(void)
{
	service_init(&service);
}

/* The plugin is about to go: nobody may use it any more. */
static void platter_cleanup(void)
{
	service_stop(&service);
}

static void platter_unload(void)
{
	service_done(&service);
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

	if (service_set(&service, key, value, &err) != -ENOENT)
		return err.code < 0 ? fail(&err) : 0;
	nbdkit_error("%s (see nbdkit platter --help)", err.msg);
	return -1;
}

static int platter_config_complete(void)
{
	struct error err = { 0 };

	return service_complete(&service, say, &err) < 0 ? fail(&err) : 0;
}

static int platter_get_ready(void)
{
	static const struct nbd_door door = { .connect = bridge_connect,
					      .close = bridge_close };
	struct error err = { 0 };

	return service_prepare(&service, &door, &err) < 0 ? fail(&err) : 0;
}

/* What listens besides, and has been bound by now, is nbdkit's. */
static void find_nbd_server(void)
{
	int ours[2] = { -1, -1 };

	if (service.glance->http)
		ours[0] = http_listen_fd(service.glance->http);
	if (service.control)
		ours[1] = control_listen_fd(service.control);
	bridge_find_server(ours, ARRAY_SIZE(ours));
}

static bool client_has_gone(void)
{
	return nbdkit_nanosleep(0, 1) < 0;
}

/* nbdkit has gone to the background: threads and SQLite may come. */
static int platter_after_fork(void)
{
	struct error err = { 0 };

	engine_gone = client_has_gone;
	if (service.glance)
		find_nbd_server();
	return service_start(&service, &err) < 0 ? fail(&err) : 0;
}

static int add_export(void *opaque, const char *name, const char *description)
{
	return nbdkit_add_export(opaque, nbdkit_printf_intern("%s", name),
				 nbdkit_printf_intern("%s", description));
}

static bool came_by_http(struct bridged *ret)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	return nbdkit_peer_name((struct sockaddr *)&sa, &len) >= 0 &&
	       bridge_lookup(&sa, len, ret);
}

static int platter_list_exports(int readonly, int is_tls,
				struct nbdkit_exports *exports)
{
	struct bridged b;
	int r;

	/* The default export is all that there is for him. */
	if (came_by_http(&b))
		return nbdkit_add_export(exports, "", NULL);
	r = service_list(&service, LIST_MAX, add_export, exports);
	return r < 0 ? -1 : 0;
}

static const char *platter_default_export(int readonly, int is_tls)
{
	return "";
}

/* Who is at the other end. */
static void name_peer(struct peer_names *ret)
{
	struct sockaddr_storage sa = { .ss_family = AF_UNIX };
	socklen_t len = sizeof(sa);

	if (nbdkit_peer_name((struct sockaddr *)&sa, &len) < 0)
		len = 0;
	peer_name(&sa, len,
		  len && sa.ss_family == AF_UNIX ? nbdkit_peer_pid() : 0, ret);
}

/* He was let in to one image, which he need not name. */
static int open_bridged(const struct bridged *b, const char *name,
			struct connection **ret, struct fault *f)
{
	size_t id_len = strcspn(b->export, "~");

	if (*name &&
	    (strlen(name) != id_len || memcmp(name, b->export, id_len)))
		return session_refuse(name, f);
	return session_open(&service.config, b->export,
			    &(struct peer){ b->peer, b->peer }, ret, f);
}

static int open_named(const char *name, struct connection **ret,
		      struct fault *f)
{
	struct bridged b;
	struct peer_names names;

	if (came_by_http(&b))
		return open_bridged(&b, name, ret, f);
	name_peer(&names);
	return session_open(&service.config, name,
			    &(struct peer){ names.text, names.identity }, ret,
			    f);
}

/*
 * Who is not yet served must not take what those need who are. nbdkit has three
 * descriptors for him by now.
 */
static int platter_preconnect(int readonly)
{
	struct fault f;

	return session_admit(&f) < 0 ? report(&f) : 0;
}

static void *platter_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct connection *c = NULL;
	struct fault f;

	if (!name)
		return NULL;
	if (open_named(name, &c, &f) < 0) {
		report(&f);
		return NULL;
	}
	return c;
}

static void platter_close(void *handle)
{
	connection_close(handle);
}

static int64_t platter_get_size(void *handle)
{
	struct session_traits t;

	return session_traits(handle, &t) ? (int64_t)t.bytes : -1;
}

static const char *platter_export_description(void *handle)
{
	struct session_traits t;

	return session_traits(handle, &t)
		       ? nbdkit_printf_intern("%s", t.description)
		       : NULL;
}

static int platter_block_size(void *handle, uint32_t *minimum,
			      uint32_t *preferred, uint32_t *maximum)
{
	struct session_traits t;

	if (!session_traits(handle, &t))
		return -1;
	*minimum = t.block_min;
	*preferred = t.block_preferred;
	*maximum = t.block_max;
	return 0;
}

static int yes(void *handle)
{
	return 1;
}

static int platter_can_multi_conn(void *handle)
{
	struct session_traits t;

	return session_traits(handle, &t) && t.multi_conn;
}

static int is_writable(void *handle)
{
	struct session_traits t;

	return session_traits(handle, &t) && t.writable;
}

static int platter_can_fua(void *handle)
{
	return is_writable(handle) ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE;
}

static int platter_can_cache(void *handle)
{
	return NBDKIT_CACHE_NATIVE;
}

static unsigned int session_flags(uint32_t flags)
{
	return (flags & NBDKIT_FLAG_FUA ? SESSION_FUA : 0U) |
	       (flags & NBDKIT_FLAG_MAY_TRIM ? SESSION_MAY_TRIM : 0U) |
	       (flags & NBDKIT_FLAG_FAST_ZERO ? SESSION_FAST : 0U);
}

static int platter_pread(void *handle, void *buf, uint32_t count,
			 uint64_t offset, uint32_t flags)
{
	struct fault f;

	return session_read(handle, buf, count, offset, NULL, &f) ? report(&f)
								  : 0;
}

static int platter_pwrite(void *handle, const void *buf, uint32_t count,
			  uint64_t offset, uint32_t flags)
{
	struct fault f;

	return session_write(handle, buf, count, offset, session_flags(flags),
			     &f)
		       ? report(&f)
		       : 0;
}

static int platter_zero(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct fault f;

	return session_zero(handle, count, offset, session_flags(flags), &f)
		       ? report(&f)
		       : 0;
}

static int platter_trim(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct fault f;

	return session_trim(handle, count, offset, session_flags(flags), &f)
		       ? report(&f)
		       : 0;
}

static int platter_flush(void *handle, uint32_t flags)
{
	struct fault f;

	return session_flush(handle, &f) ? report(&f) : 0;
}

static int platter_cache(void *handle, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	struct fault f;

	return session_prefetch(handle, count, offset, &f) ? report(&f) : 0;
}

static int add_extent(void *extents, uint64_t off, uint64_t len,
		      unsigned int state)
{
	return nbdkit_add_extent(
		extents, off, len,
		(state & CONTEXT_HOLE ? NBDKIT_EXTENT_HOLE : 0U) |
			(state & CONTEXT_ZEROES ? NBDKIT_EXTENT_ZERO : 0U));
}

static int platter_extents(void *handle, uint32_t count, uint64_t offset,
			   uint32_t flags, struct nbdkit_extents *extents)
{
	struct fault f;
	int r = session_extents(handle, NULL, count, offset,
				flags & NBDKIT_FLAG_REQ_ONE, add_extent,
				extents, &f);

	/* 1: nbdkit could not take an answer, and has said why. */
	return r < 0 ? report(&f) : -r;
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
	.preconnect = platter_preconnect,
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
