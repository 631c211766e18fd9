/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <string.h>

#include "formats/library.h"
#include "nbd/nbd-source.h"

#define CONNECTIONS_MAX	 4U
#define READ_BYTES_MAX	 (32U << 20)
#define STATUS_BYTES_MAX (1ULL << 31)
#define EXTENTS_MAX	 1024U
#define STATE_ZERO	 2U /* NBD_STATE_ZERO of "base:allocation" */

static struct {
	__typeof__(nbd_create) *create;
	__typeof__(nbd_close) *close;
	__typeof__(nbd_add_meta_context) *add_meta_context;
	__typeof__(nbd_connect_uri) *connect_uri;
	__typeof__(nbd_get_size) *get_size;
	__typeof__(nbd_can_multi_conn) *can_multi_conn;
	__typeof__(nbd_can_meta_context) *can_meta_context;
	__typeof__(nbd_pread) *pread;
	__typeof__(nbd_block_status) *block_status;
	__typeof__(nbd_get_error) *get_error;
	__typeof__(nbd_get_errno) *get_errno;
} lib;

static bool load(void)
{
	static const struct library_symbol symbols[] = {
		{ "nbd_create", (void **)&lib.create },
		{ "nbd_close", (void **)&lib.close },
		{ "nbd_add_meta_context", (void **)&lib.add_meta_context },
		{ "nbd_connect_uri", (void **)&lib.connect_uri },
		{ "nbd_get_size", (void **)&lib.get_size },
		{ "nbd_can_multi_conn", (void **)&lib.can_multi_conn },
		{ "nbd_can_meta_context", (void **)&lib.can_meta_context },
		{ "nbd_pread", (void **)&lib.pread },
		{ "nbd_block_status", (void **)&lib.block_status },
		{ "nbd_get_error", (void **)&lib.get_error },
		{ "nbd_get_errno", (void **)&lib.get_errno },
	};

	_Static_assert(sizeof(lib) == ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	return library_load("libnbd.so.0", symbols, ARRAY_SIZE(symbols));
}

/* One request at a time. */
struct connection {
	struct nbd_handle *h; /* NULL: not needed yet */
	pthread_mutex_t lock;
};

struct extent_of {
	uint64_t len;
	bool zero;
};

struct nbd_source {
	struct source s;
	char *uri;
	bool has_status;
	unsigned int n; /* connections that there may be */
	atomic_uint next;
	struct connection connections[CONNECTIONS_MAX];

	pthread_mutex_t lock; /* the last answer about extents */
	uint64_t off;
	struct extent_of extents[EXTENTS_MAX];
	size_t n_extents;
};

static int fail(const char *uri, struct error *err)
{
	const char *why = lib.get_error();

	return error_set(err, -EIO, 0, "%s: %s", uri,
			 why ? why : "the server does not answer");
}

static int connect_to(const char *uri, struct nbd_handle **ret,
		      struct error *err)
{
	struct nbd_handle *h = lib.create();

	if (!h || lib.add_meta_context(h, "base:allocation") < 0 ||
	    lib.connect_uri(h, uri) < 0) {
		fail(uri, err);
		lib.close(h);
		return -EIO;
	}
	*ret = h;
	return 0;
}

/* A connection for this thread alone, until it is unlocked. NULL: none. */
static struct connection *take(struct nbd_source *n)
{
	unsigned int all = n->n ? n->n : 1, i;
	unsigned int first = atomic_fetch_add(&n->next, 1);
	struct connection *c;

	for (i = 0; i < all; i++) {
		c = &n->connections[(first + i) % all];
		if (!pthread_mutex_trylock(&c->lock))
			break;
	}
	if (i == all) {
		c = &n->connections[first % all];
		pthread_mutex_lock(&c->lock);
	}
	if (!c->h && connect_to(n->uri, &c->h, NULL) < 0) {
		pthread_mutex_unlock(&c->lock);
		return NULL;
	}
	return c;
}

static ssize_t nbd_source_pread(struct source *s, void *buf, size_t len,
				uint64_t off)
{
	struct nbd_source *n = container_of(s, struct nbd_source, s);
	struct connection *c = take(n);
	int code;

	if (!c)
		return -EIO;
	len = min_size(len, READ_BYTES_MAX);
	code = lib.pread(c->h, buf, len, off, 0) < 0 ? lib.get_errno() : 0;
	pthread_mutex_unlock(&c->lock);
	/* What the server's other errors mean to it is not for us. */
	return !code ? (ssize_t)len : code == ENOMEM ? -ENOMEM : -EIO;
}

static int take_extents(void *opaque, const char *context, uint64_t off,
			uint32_t *entries, size_t n_entries, int *error)
{
	struct nbd_source *n = opaque;
	size_t i;

	if (strcmp(context, "base:allocation") != 0)
		return 0;
	n->off = off;
	for (i = 0; i + 1 < n_entries && n->n_extents < EXTENTS_MAX; i += 2)
		n->extents[n->n_extents++] =
			(struct extent_of){ entries[i],
					    entries[i + 1] & STATE_ZERO };
	return 0;
}

/* Lock is held. */
static int ask(struct nbd_source *n, uint64_t off)
{
	nbd_extent_callback cb = { .callback = take_extents, .user_data = n };
	struct connection *c = take(n);
	int r;

	if (!c)
		return -EIO;
	n->n_extents = 0;
	r = lib.block_status(c->h, min_u64(n->s.bytes - off, STATUS_BYTES_MAX),
			     off, cb, 0);
	pthread_mutex_unlock(&c->lock);
	return r < 0 || !n->n_extents ? -EIO : 0;
}

/* Is @off in what was told last? */
static bool look_up(const struct nbd_source *n, uint64_t off, uint64_t len,
		    bool *ret_hole, uint64_t *ret_len)
{
	uint64_t at = n->off, end;
	size_t i;

	for (i = 0; i < n->n_extents && at <= off; i++, at = end) {
		end = at + n->extents[i].len;
		if (off >= end)
			continue;
		*ret_hole = n->extents[i].zero;
		*ret_len = min_u64(len, end - off);
		return true;
	}
	return false;
}

static int nbd_source_find_hole(struct source *s, uint64_t off, uint64_t len,
				bool *ret_hole, uint64_t *ret_len)
{
	struct nbd_source *n = container_of(s, struct nbd_source, s);
	int r = 0;

	*ret_hole = false;
	*ret_len = len;
	if (!n->has_status)
		return 0;
	pthread_mutex_lock(&n->lock);
	if (!look_up(n, off, len, ret_hole, ret_len)) {
		r = ask(n, off);
		if (r >= 0 && !look_up(n, off, len, ret_hole, ret_len))
			r = -EIO;
	}
	pthread_mutex_unlock(&n->lock);
	return r;
}

static void nbd_source_free(struct source *s)
{
	struct nbd_source *n = container_of(s, struct nbd_source, s);
	unsigned int i;

	for (i = 0; i < CONNECTIONS_MAX; i++) {
		lib.close(n->connections[i].h);
		pthread_mutex_destroy(&n->connections[i].lock);
	}
	pthread_mutex_destroy(&n->lock);
	free(n->uri);
	free(n);
}

static void nbd_source_identify(const struct source *s,
				struct source_identity *ret)
{
	ret->kind = SOURCE_EXPORT;
	ret->name = container_of(s, struct nbd_source, s)->uri;
}

static const struct source_ops nbd_source_ops = {
	.name = "nbd",
	.pread = nbd_source_pread,
	.find_hole = nbd_source_find_hole,
	.identify = nbd_source_identify,
	.free = nbd_source_free,
};

bool nbd_source_is_uri(const char *text)
{
	static const char *const schemes[] = {
		"nbd://",	"nbds://",	"nbd+unix://",
		"nbds+unix://", "nbd+vsock://", "nbds+vsock://"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(schemes); i++)
		if (!strncasecmp(text, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

static struct nbd_source *source_new(const char *uri)
{
	struct nbd_source *n = calloc(1, sizeof(*n));
	unsigned int i;

	if (!n)
		return NULL;
	n->uri = strdup(uri);
	if (!n->uri) {
		free(n);
		return NULL;
	}
	pthread_mutex_init(&n->lock, NULL);
	for (i = 0; i < CONNECTIONS_MAX; i++)
		pthread_mutex_init(&n->connections[i].lock, NULL);
	return n;
}

int nbd_source_open(const char *uri, struct source **ret, struct error *err)
{
	struct nbd_handle *h = NULL;
	struct nbd_source *n;
	int64_t bytes;
	int r;

	if (!load())
		return error_set(err, -ENOTSUP, 0,
				 "%s: libnbd.so.0 is missing: no server can be "
				 "read from",
				 uri);
	n = source_new(uri);
	if (!n)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = connect_to(uri, &h, err);
	bytes = r >= 0 ? lib.get_size(h) : -1;
	if (r >= 0 && bytes < 0)
		r = fail(uri, err);
	source_init(&n->s, &nbd_source_ops, bytes > 0 ? (uint64_t)bytes : 0);
	n->connections[0].h = h;
	if (r < 0) {
		source_unref(&n->s);
		return r;
	}
	n->has_status = lib.can_meta_context(h, "base:allocation") == 1;
	n->n = lib.can_multi_conn(h) == 1 ? CONNECTIONS_MAX : 1;
	*ret = &n->s;
	return 0;
}
