/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "iouring/sources/libnbd-lib.h"
#include "iouring/sources/nbd-target.h"
#include "iouring/sources/remote-options.h"
#include "iouring/util.h"

#define CONNECTIONS_MAX	 4U
#define WRITE_BYTES_MAX	 (32U << 20) /* what any server takes */
#define ZERO_BYTES_MAX	 (64U << 20) /* a server may write them */
#define STATUS_BYTES_MAX (1ULL << 30)
#define STATE_ZERO	 2U /* NBD_STATE_ZERO of "base:allocation" */

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
	int code = libnbd_api.get_errno();

	return error_set(err, code > 0 ? -code : -EIO, 0, "%s",
			 libnbd_reason());
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
		r = libnbd_connect(t->uri, remote_deadline(), &c->h, err);
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

		if (libnbd_api.pwrite(c->h, at, n, off, 0) < 0)
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

		if (libnbd_api.zero(c->h, n, off, 0) < 0)
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
	if (libnbd_api.block_status(c->h, s.len, off, cb,
				    LIBNBD_CMD_FLAG_REQ_ONE) < 0)
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
	if (libnbd_api.flush(c->h, 0) < 0)
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
		libnbd_api.close(t->connections[i].h);
		pthread_mutex_destroy(&t->connections[i].lock);
	}
	free(t->uri);
	free(t);
}

/* What the server says of the export. */
static int look_at(struct nbd_target *t, struct nbd_handle *h,
		   struct error *err)
{
	int64_t bytes = libnbd_api.get_size(h);
	int64_t least = libnbd_api.get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t most = libnbd_api.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (bytes < 0)
		return fail(err);
	if (libnbd_api.is_read_only(h) == 1)
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
	t->can_zero = libnbd_api.can_zero(h) == 1;
	t->can_flush = libnbd_api.can_flush(h) == 1;
	t->has_status = libnbd_api.can_meta_context(h, "base:allocation") == 1;
	t->n = libnbd_api.can_multi_conn(h) == 1 ? CONNECTIONS_MAX : 1;
	return 0;
}

int nbd_target_open(const char *uri, struct nbd_target **ret, struct error *err)
{
	struct nbd_target *t;
	int r;

	if (!libnbd_load())
		return error_set(err, -ENOTSUP, 0,
				 "libnbd.so.0 is missing: no server can be "
				 "written to");
	t = target_new(uri);
	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = libnbd_connect(t->uri, remote_deadline(), &t->connections[0].h,
			   err);
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
