/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nbdkit plugin: NBD's requests to images, images' answers to NBD. See
 * nbdkit-plugin(3) for who calls what and when; formats/format.h for what
 * lies below.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "formats/boot-id.h"
#include "formats/cache.h"
#include "formats/codec.h"
#include "glance/glance.h"
#include "nbd/bridge.h"
#include "nbd/config.h"
#include "nbd/connection.h"
#include "nbd/control.h"
#include "nbd/descriptors.h"
#include "nbd/export-name.h"
#include "nbd/export.h"
#include "nbd/keep.h"
#include "nbd/metrics.h"
#include "nbd/overlays.h"
#include "nbd/peers.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit's own limit on a list is 10,000. */
#define LIST_MAX 9999U

/* What clients may ask for at once; nbdkit takes up to 64 MiB. */
#define REQUEST_BYTES_MAX (32U << 20)

static struct config config;
static struct glance *glance; /* NULL: there is no store */
static struct control *control; /* NULL: no socket for it */

/* A client that is refused may come again at once, and again. */
static struct line_budget refusals = { .burst = 50, .per_second = 5 };

/* The live image, held open so that the first client need not wait. */
static struct export *standing;

/*
 * Damage is EIO on the wire: nbdkit would send EBADMSG and most others as
 * EINVAL, which blames the client.
 */
static void set_wire_error(int code)
{
	switch (code) {
	case -ENOMEM:
	case -ENOSPC:
	case -EPERM:
	case -EINVAL:
	case -EOPNOTSUPP:
	case -ESHUTDOWN:
		nbdkit_set_error(-code);
		break;
	default:
		nbdkit_set_error(EIO);
		break;
	}
}

/* Prints, once. */
static int fail(const struct error *err)
{
	nbdkit_error("%s", err->msg);
	set_wire_error(err->code);
	return -1;
}

/*
 * The same, where a client can have it written as often as he likes. *@budget is
 * one of several kinds of such lines.
 */
static int fail_within(struct line_budget *budget, const struct error *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	uint64_t left_out = 0;
	bool may_say;

	pthread_mutex_lock(&lock);
	may_say = line_budget_take(budget, now_nsec(), &left_out);
	pthread_mutex_unlock(&lock);
	if (left_out)
		nbdkit_error("%" PRIu64 " more like the next were not told",
			     left_out);
	if (may_say)
		nbdkit_error("%s", err->msg);
	set_wire_error(err->code);
	return -1;
}

/* Of a fallback; it is no failure, but the administrator should know. */
static void say(const char *line)
{
	fprintf(stderr, "nbdkit: platter: %s\n", line);
}

static void platter_load(void)
{
	descriptors_raise();
	config_init(&config);
	keep_take();
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
	codec_shutdown();
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
	if (glance) {
		export_use_store(glance_find_image, glance);
		glance->add_metrics = metrics_add;
		glance->nbd = (struct nbd_door){ .connect = bridge_connect,
						 .close = bridge_close };
	}
	if (r >= 0)
		r = peers_use(keep_fd(KEEP_PEERS), &err);
	if (r >= 0 && config.image)
		r = export_open_standing(&config, &standing, &err);
	if (r >= 0 && config.control)
		r = control_listen(config.control, &control, &err);
	return r < 0 ? fail(&err) : 0;
}

/* What listens besides, and has been bound by now, is nbdkit's. */
static void find_nbd_server(void)
{
	int ours[2] = { -1, -1 };

	if (glance->http)
		ours[0] = http_listen_fd(glance->http);
	if (control)
		ours[1] = control_listen_fd(control);
	bridge_find_server(ours, ARRAY_SIZE(ours));
}

/* nbdkit has gone to the background: threads and SQLite may come. */
static int platter_after_fork(void)
{
	struct error err = { 0 };
	int r = 0;

	descriptors_raise();
	if (glance) {
		find_nbd_server();
		r = glance_start(glance, &err);
	}
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

struct peer_names {
	char text[128];
	char identity[PEER_BYTES_MAX];
};

/* Who is at the other end. */
static void name_peer(struct peer_names *ret)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char host[INET6_ADDRSTRLEN + 16], port[8];
	int64_t pid;

	snprintf(ret->text, sizeof(ret->text), "unknown");
	snprintf(ret->identity, sizeof(ret->identity), "unknown");
	if (nbdkit_peer_name((struct sockaddr *)&sa, &len) < 0)
		return;
	if (sa.ss_family == AF_UNIX) {
		pid = nbdkit_peer_pid();
		if (pid <= 0)
			return;
		snprintf(ret->text, sizeof(ret->text), "pid %" PRId64, pid);
		snprintf(ret->identity, sizeof(ret->identity),
			 "pid %" PRId64 " since %" PRIu64, pid,
			 process_started(pid));
		return;
	}
	if (getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	snprintf(ret->text, sizeof(ret->text),
		 strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	snprintf(ret->identity, sizeof(ret->identity), "address %s", host);
}

/* He was let in to one image, which he need not name. */
static int open_bridged(const struct bridged *b, const char *name,
			struct connection **ret, struct error *err)
{
	size_t id_len = strcspn(b->export, "~");

	if (*name &&
	    (strlen(name) != id_len || memcmp(name, b->export, id_len)))
		return export_name_unknown(name, err);
	return connection_open(&config, b->export,
			       &(struct peer){ b->peer, b->peer }, ret, err);
}

static int open_named(const char *name, struct connection **ret,
		      struct error *err)
{
	struct bridged b;
	struct peer_names names;

	if (came_by_http(&b))
		return open_bridged(&b, name, ret, err);
	name_peer(&names);
	return connection_open(&config, name,
			       &(struct peer){ names.text, names.identity },
			       ret, err);
}

/*
 * Who is not yet served must not take what those need who are. nbdkit has three
 * descriptors for him by now.
 */
static int platter_preconnect(int readonly)
{
	struct error err = { 0 };

	return descriptors_check(false, &err) < 0 ? fail_within(&refusals, &err)
						  : 0;
}

static void *platter_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct error err = { 0 };
	struct connection *c = NULL;

	if (!name)
		return NULL;
	if (open_named(name, &c, &err) < 0) {
		fail_within(&refusals, &err);
		return NULL;
	}
	return c;
}

static void platter_close(void *handle)
{
	connection_close(handle);
}

/* A request under way. */
struct call {
	struct connection *connection;
	struct export *export;
	enum traffic_op op;
	uint32_t bytes;
	uint64_t began_nsec;
};

static bool begin(struct call *r, void *handle, enum traffic_op op,
		  uint32_t bytes)
{
	r->connection = handle;
	r->export = connection_enter(r->connection);
	r->op = op;
	r->bytes = bytes;
	if (!r->export) {
		struct error err = { 0 };

		error_set(&err, -ESHUTDOWN, 0,
			  "the export was closed by the administrator");
		fail_within(&refusals, &err);
		return false;
	}
	r->began_nsec = now_nsec();
	return true;
}

/* @code: what it ended with. */
static int end(const struct call *r, int code, const struct error *err)
{
	traffic_note(&r->export->traffic, r->op, r->bytes,
		     now_nsec() - r->began_nsec, code < 0);
	if (code < 0)
		fail_within(&r->export->failures, err);
	connection_leave(r->connection);
	return code < 0 ? -1 : 0;
}

/* The same for one that changes the disk. */
static bool begin_change(struct call *r, void *handle, enum traffic_op op,
			 uint32_t bytes)
{
	struct error err = { 0 };

	if (!begin(r, handle, op, bytes))
		return false;
	if (connection_will_change(r->connection, &err) >= 0)
		return true;
	end(r, err.code, &err);
	return false;
}

static int64_t platter_get_size(void *handle)
{
	struct export *e = connection_enter(handle);
	int64_t ret = e ? (int64_t)export_bytes(e) : -1;

	if (e)
		connection_leave(handle);
	return ret;
}

static const char *describe(const struct export *e)
{
	const char *kind = e->from ? "changes of the " : "";

	if (e->overlay)
		kind = "overlay of the ";
	else if (!e->live && !e->from)
		kind = "earlier state of the ";
	return nbdkit_printf_intern("%s%s image", kind,
				    e->image->chain.layers[0]->ops->name);
}

static const char *platter_export_description(void *handle)
{
	struct export *e = connection_enter(handle);
	const char *ret = e ? describe(e) : NULL;

	if (e)
		connection_leave(handle);
	return ret;
}

/* Any byte may be asked for; whole clusters are cheapest. */
static int platter_block_size(void *handle, uint32_t *minimum,
			      uint32_t *preferred, uint32_t *maximum)
{
	struct export *e = connection_enter(handle);
	uint64_t unit;

	if (!e)
		return -1;
	unit = e->overlay ? overlay_unit_bytes(e->overlay)
			  : e->image->chain.layers[0]->unit_bytes;
	*minimum = 1;
	*preferred = (uint32_t)max_u64(4096, min_u64(unit, 64 << 10));
	*maximum = REQUEST_BYTES_MAX;
	connection_leave(handle);
	return 0;
}

static int yes(void *handle)
{
	return 1;
}

/* A flush is of the overlay, whoever wrote; but each may have its own. */
static int platter_can_multi_conn(void *handle)
{
	struct export *e = connection_enter(handle);
	int ret = e && !(e->overlay && e->lone);

	if (e)
		connection_leave(handle);
	return ret;
}

static int is_writable(void *handle)
{
	struct export *e = connection_enter(handle);
	int ret = e && e->overlay;

	if (e)
		connection_leave(handle);
	return ret;
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
	struct overlay *o;
	struct call q;
	struct error err;
	int r;

	err.code = 0;
	if (!begin(&q, handle, TRAFFIC_READ, count))
		return -1;
	o = q.export->overlay;
	r = o ? overlay_read(o, buf, count, offset, &err)
	      : image_read(q.export->image, buf, count, offset, &err);
	return end(&q, r, &err);
}

static int platter_pwrite(void *handle, const void *buf, uint32_t count,
			  uint64_t offset, uint32_t flags)
{
	struct call q;
	struct error err;
	int r;

	err.code = 0;
	if (!begin_change(&q, handle, TRAFFIC_WRITE, count))
		return -1;
	r = overlay_write(q.export->overlay, buf, count, offset,
			  flags & NBDKIT_FLAG_FUA, &err);
	return end(&q, r, &err);
}

static int platter_zero(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct error err = { 0 };
	unsigned int how = 0;
	struct call q;
	int r;

	if (!begin_change(&q, handle, TRAFFIC_ZERO, count))
		return -1;
	if (flags & NBDKIT_FLAG_MAY_TRIM)
		how |= OVERLAY_MAY_TRIM;
	if (flags & NBDKIT_FLAG_FUA)
		how |= OVERLAY_DURABLE;
	if (flags & NBDKIT_FLAG_FAST_ZERO)
		how |= OVERLAY_FAST;
	r = overlay_zero(q.export->overlay, offset, count, how, &err);
	return end(&q, r, &err);
}

static int platter_trim(void *handle, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	struct error err = { 0 };
	struct call q;
	int r;

	if (!begin_change(&q, handle, TRAFFIC_TRIM, count))
		return -1;
	r = overlay_trim(q.export->overlay, offset, count,
			 flags & NBDKIT_FLAG_FUA, &err);
	return end(&q, r, &err);
}

static int platter_flush(void *handle, uint32_t flags)
{
	struct error err = { 0 };
	struct call q;

	if (!begin(&q, handle, TRAFFIC_FLUSH, 0))
		return -1;
	return end(&q, overlay_flush(q.export->overlay, &err), &err);
}

static int platter_cache(void *handle, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	struct error err = { 0 };
	struct call q;
	int r = 0;

	if (!begin(&q, handle, TRAFFIC_CACHE, count))
		return -1;
	/* What an overlay has was written a moment ago. */
	if (!q.export->overlay)
		r = image_prefetch(q.export->image, offset, count, &err);
	return end(&q, r, &err);
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

/* Returns as the walks do. */
static int walk(const struct export *e, uint64_t offset, uint32_t count,
		struct extents_reply *reply, struct error *err)
{
	uint64_t end;

	if (e->from)
		return difference_walk(
			&(struct difference){ .from = e->from, .to = e->image },
			offset, count, add_change, reply, &end, err);
	if (e->overlay)
		return overlay_walk(e->overlay, offset, count, add_extent,
				    reply, &end, err);
	return image_walk(e->image, offset, count, add_extent, reply, &end,
			  err);
}

static int platter_extents(void *handle, uint32_t count, uint64_t offset,
			   uint32_t flags, struct nbdkit_extents *extents)
{
	struct extents_reply reply = { .extents = extents,
				       .one = flags & NBDKIT_FLAG_REQ_ONE };
	struct error err = { 0 };
	struct call q;
	int r;

	if (!begin(&q, handle, TRAFFIC_STATUS, count))
		return -1;
	r = walk(q.export, offset, count, &reply, &err);
	if (err.code || r >= 0)
		return end(&q, err.code, &err);
	/* nbdkit could not take an answer, and has said why. */
	end(&q, 0, &err);
	return -1;
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
