/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "iouring/library.h"
#include "iouring/sources/nbd-target.h"
#include "iouring/util.h"

#define CONNECTIONS_MAX	 4U
#define WRITE_BYTES_MAX	 (32U << 20) /* what any server takes */
#define ZERO_BYTES_MAX	 (64U << 20) /* a server may write them */
#define STATUS_BYTES_MAX (1ULL << 30)
#define STATE_ZERO	 2U /* NBD_STATE_ZERO of "base:allocation" */

static struct {
	__typeof__(nbd_create) *create;
	__typeof__(nbd_close) *close;
	__typeof__(nbd_add_meta_context) *add_meta_context;
	__typeof__(nbd_connect_uri) *connect_uri;
	__typeof__(nbd_get_size) *get_size;
	__typeof__(nbd_get_block_size) *get_block_size;
	__typeof__(nbd_is_read_only) *is_read_only;
	__typeof__(nbd_can_multi_conn) *can_multi_conn;
	__typeof__(nbd_can_zero) *can_zero;
	__typeof__(nbd_can_flush) *can_flush;
	__typeof__(nbd_can_meta_context) *can_meta_context;
	__typeof__(nbd_pwrite) *pwrite;
	__typeof__(nbd_zero) *zero;
	__typeof__(nbd_flush) *flush;
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
		{ "nbd_get_block_size", (void **)&lib.get_block_size },
		{ "nbd_is_read_only", (void **)&lib.is_read_only },
		{ "nbd_can_multi_conn", (void **)&lib.can_multi_conn },
		{ "nbd_can_zero", (void **)&lib.can_zero },
		{ "nbd_can_flush", (void **)&lib.can_flush },
		{ "nbd_can_meta_context", (void **)&lib.can_meta_context },
		{ "nbd_pwrite", (void **)&lib.pwrite },
		{ "nbd_zero", (void **)&lib.zero },
		{ "nbd_flush", (void **)&lib.flush },
		{ "nbd_block_status", (void **)&lib.block_status },
		{ "nbd_get_error", (void **)&lib.get_error },
		{ "nbd_get_errno", (void **)&lib.get_errno },
	};

	_Static_assert(sizeof(lib) == ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	return library_load("libnbd.so.0", symbols, ARRAY_SIZE(symbols));
}

/* One request at a time; libnbd locks the handle for it. */
struct connection {
	struct nbd_handle *h; /* NULL: not needed yet */
	pthread_mutex_t lock;
};

struct nbd_target {
	char *uri;
	uint64_t bytes;
	uint32_t block_bytes;
	uint32_t write_bytes_max;
	bool can_zero, can_flush, has_status;
	unsigned int n; /* connections that there may be */
	atomic_uint next;
	struct connection connections[CONNECTIONS_MAX];
};

/* What the last call of this thread said. */
static int fail(struct error *err)
{
	const char *why = lib.get_error();
	int code = lib.get_errno();

	return error_set(err, code > 0 ? -code : -EIO, 0, "%s",
			 why ? why : "the server does not answer");
}

static int connect_to(const struct nbd_target *t, struct nbd_handle **ret,
		      struct error *err)
{
	struct nbd_handle *h = lib.create();
	int r;

	if (h && lib.add_meta_context(h, "base:allocation") >= 0 &&
	    lib.connect_uri(h, t->uri) >= 0) {
		*ret = h;
		return 0;
	}
	r = fail(err);
	lib.close(h);
	return r;
}

/* A connection for this thread alone, until it is unlocked. */
static int take(struct nbd_target *t, struct connection **ret,
		struct error *err)
{
	unsigned int first = atomic_fetch_add(&t->next, 1), i;
	struct connection *c = NULL;
	int r = 0;

	ANALYSER_ASSUME(t->n);
	for (i = 0; i < t->n && !c; i++) {
		c = &t->connections[(first + i) % t->n];
		if (pthread_mutex_trylock(&c->lock))
			c = NULL;
	}
	if (!c) {
		c = &t->connections[first % t->n];
		pthread_mutex_lock(&c->lock);
	}
	if (!c->h)
		r = connect_to(t, &c->h, err);
	if (r < 0)
		pthread_mutex_unlock(&c->lock);
	else
		*ret = c;
	return r;
}

int nbd_target_write(struct nbd_target *t, const void *buf, size_t len,
		     uint64_t off, struct error *err)
{
	const uint8_t *at = buf;
	struct connection *c;
	int r = take(t, &c, err);

	if (r < 0)
		return r;
	while (r >= 0 && len) {
		size_t n = min_size(len, t->write_bytes_max);

		if (lib.pwrite(c->h, at, n, off, 0) < 0)
			r = fail(err);
		at += n;
		off += n;
		len -= n;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

static int send_zeroes(struct nbd_target *t, uint64_t off, uint64_t len,
		       struct error *err)
{
	static const uint8_t zeroes[1U << 20];
	int r = 0;

	while (r >= 0 && len) {
		size_t n = (size_t)min_u64(len, sizeof(zeroes));

		r = nbd_target_write(t, zeroes, n, off, err);
		off += n;
		len -= n;
	}
	return r;
}

int nbd_target_zero(struct nbd_target *t, uint64_t off, uint64_t len,
		    struct error *err)
{
	struct connection *c;
	int r;

	if (!t->can_zero)
		return send_zeroes(t, off, len, err);
	r = take(t, &c, err);
	if (r < 0)
		return r;
	while (r >= 0 && len) {
		uint64_t n = min_u64(len, ZERO_BYTES_MAX);

		if (lib.zero(c->h, n, off, 0) < 0)
			r = fail(err);
		off += n;
		len -= n;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

struct status {
	uint64_t off, len; /* asked for */
	bool zero;
	uint64_t known; /* bytes from @off on; 0: nothing was told */
};

static int take_status(void *opaque, const char *context, uint64_t off,
		       uint32_t *entries, size_t n_entries, int *error)
{
	struct status *s = opaque;

	if (strcmp(context, "base:allocation") != 0 || off != s->off ||
	    n_entries < 2 || s->known)
		return 0;
	s->known = min_u64(entries[0], s->len);
	s->zero = entries[1] & STATE_ZERO;
	return 0;
}

int nbd_target_find_zero(struct nbd_target *t, uint64_t off, uint64_t len,
			 bool *ret_zero, uint64_t *ret_len, struct error *err)
{
	struct status s = { .off = off, .len = min_u64(len, STATUS_BYTES_MAX) };
	nbd_extent_callback cb = { .callback = take_status, .user_data = &s };
	struct connection *c;
	int r;

	*ret_zero = false;
	*ret_len = len;
	if (!t->has_status)
		return 0;
	r = take(t, &c, err);
	if (r < 0)
		return r;
	if (lib.block_status(c->h, s.len, off, cb, LIBNBD_CMD_FLAG_REQ_ONE) < 0)
		r = fail(err);
	pthread_mutex_unlock(&c->lock);
	/* An answer that ends inside a block is no answer for that. */
	if (s.known < s.len)
		s.known = round_down(s.known, t->block_bytes);
	*ret_zero = s.known && s.zero;
	*ret_len = s.known ? s.known : min_u64(len, t->block_bytes);
	return r;
}

/* Where there are several, one is for all: NBD_FLAG_CAN_MULTI_CONN. */
int nbd_target_flush(struct nbd_target *t, struct error *err)
{
	struct connection *c;
	int r;

	if (!t->can_flush)
		return 0;
	r = take(t, &c, err);
	if (r < 0)
		return r;
	if (lib.flush(c->h, 0) < 0)
		r = fail(err);
	pthread_mutex_unlock(&c->lock);
	return r;
}

static struct nbd_target *target_new(const char *uri)
{
	struct nbd_target *t = calloc(1, sizeof(*t));
	unsigned int i;

	if (!t)
		return NULL;
	t->uri = strdup(uri);
	if (!t->uri) {
		free(t);
		return NULL;
	}
	for (i = 0; i < CONNECTIONS_MAX; i++)
		pthread_mutex_init(&t->connections[i].lock, NULL);
	return t;
}

void nbd_target_close(struct nbd_target *t)
{
	unsigned int i;

	if (!t)
		return;
	for (i = 0; i < CONNECTIONS_MAX; i++) {
		lib.close(t->connections[i].h);
		pthread_mutex_destroy(&t->connections[i].lock);
	}
	free(t->uri);
	free(t);
}

/* What the server says of the export. */
static int look_at(struct nbd_target *t, struct nbd_handle *h,
		   struct error *err)
{
	int64_t bytes = lib.get_size(h);
	int64_t least = lib.get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t most = lib.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (bytes < 0)
		return fail(err);
	if (lib.is_read_only(h) == 1)
		return error_set(err, -EROFS, 0, "takes no writes");
	/* A server that says nothing is asked for sectors, to be sure. */
	t->block_bytes = least > 0 ? (uint32_t)least : 512;
	t->write_bytes_max = most > 0 && most < WRITE_BYTES_MAX
				     ? (uint32_t)most
				     : WRITE_BYTES_MAX;
	if (least > WRITE_BYTES_MAX || !is_power_of_2(t->block_bytes) ||
	    t->write_bytes_max % t->block_bytes)
		return error_set(err, -EPROTO, 0,
				 "the server's block sizes, %lld to %lld, make "
				 "no sense",
				 (long long)least, (long long)most);
	t->bytes = (uint64_t)bytes;
	t->can_zero = lib.can_zero(h) == 1;
	t->can_flush = lib.can_flush(h) == 1;
	t->has_status = lib.can_meta_context(h, "base:allocation") == 1;
	t->n = lib.can_multi_conn(h) == 1 ? CONNECTIONS_MAX : 1;
	return 0;
}

int nbd_target_open(const char *uri, struct nbd_target **ret, struct error *err)
{
	struct nbd_target *t;
	int r;

	if (!load())
		return error_set(err, -ENOTSUP, 0,
				 "libnbd.so.0 is missing: no server can be "
				 "written to");
	t = target_new(uri);
	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = connect_to(t, &t->connections[0].h, err);
	if (r >= 0)
		r = look_at(t, t->connections[0].h, err);
	if (r < 0)
		nbd_target_close(t);
	else
		*ret = t;
	return r;
}

uint64_t nbd_target_bytes(const struct nbd_target *t)
{
	return t->bytes;
}

uint32_t nbd_target_block_bytes(const struct nbd_target *t)
{
	return t->block_bytes;
}
