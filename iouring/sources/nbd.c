/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "iouring/batch.h"
#include "iouring/nowait.h"
#include "iouring/sources/libnbd-lib.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/remote-options.h"

#define CONNECTIONS_MAX	 4U
#define READ_BYTES_MAX	 (32U << 20)
#define LIKED_BYTES_MIN	 (64U << 10)
#define LIKED_BYTES_MAX	 (1U << 20)
#define STATUS_BYTES_MAX (1ULL << 31)
#define EXTENTS_MAX	 1024U
#define STATUS_TRIES	 2U /* where the connection dies */
#define RECONNECT_USEC	 50000U /* doubled, four times */
/* NBD_STATE_HOLE and NBD_STATE_ZERO of "base:allocation". */
#define STATE_HOLE	 1U
#define STATE_ZERO	 2U

/*
 * For one thread at a time, from a batch's start() to its finish(): libnbd
 * holds its handle's lock while it waits.
 */
struct connection {
	struct nbd_handle *h; /* NULL: not needed yet */
	pthread_mutex_t lock;
	unsigned int in_flight; /* requests; the holder's */
};

struct extent_of {
	uint64_t len;
	uint32_t state;
};

struct nbd_source {
	struct source s;
	char *uri;
	bool has_status;
	unsigned int n; /* connections that there may be */
	atomic_uint next;
	atomic_bool lost; /* and it was told */
	struct connection connections[CONNECTIONS_MAX];

	pthread_mutex_t lock; /* the last answer about extents */
	uint64_t off;
	struct extent_of extents[EXTENTS_MAX];
	size_t n_extents;
};

/* Anew, where there was one that died. The export is the one that it was. */
static int connect_anew(struct nbd_source *n, struct connection *c,
			uint64_t deadline, struct error *err)
{
	struct nbd_handle *h = NULL;
	int r;

	libnbd_api.close(TAKE_PTR(c->h));
	r = libnbd_connect(n->uri, deadline, &h, err);
	if (r < 0)
		return r;
	if (libnbd_api.get_size(h) != (int64_t)n->s.bytes) {
		libnbd_api.close(h);
		return error_set(err, -EIO, 0, "it has another size now");
	}
	c->h = h;
	return 0;
}

/*
 * A connection that is free now, for this thread alone until it is unlocked.
 * @may_connect: also one that must be made. NULL: all are busy, or not there.
 */
static struct connection *take_free(struct nbd_source *n, bool may_connect)
{
	unsigned int all = n->n ? n->n : 1, i;
	unsigned int first = atomic_fetch_add(&n->next, 1);

	for (i = 0; i < all; i++) {
		struct connection *c = &n->connections[(first + i) % all];

		if (pthread_mutex_trylock(&c->lock))
			continue;
		if (libnbd_is_alive(c->h) ||
		    (may_connect &&
		     !connect_anew(n, c, remote_deadline(), NULL)))
			return c;
		pthread_mutex_unlock(&c->lock);
		may_connect = false; /* nor can the others be */
	}
	return NULL;
}

static void sleep_a_little(unsigned int tries)
{
	unsigned int doubles = tries < 4 ? tries : 4;

	usleep((useconds_t)(RECONNECT_USEC << doubles));
}

/* Told once, until it is there again. */
static void tell(struct nbd_source *n, const char *why)
{
	bool told = atomic_exchange(&n->lost, why != NULL);

	if (why && !told)
		remote_say("%s: the connection is lost: %s", n->uri, why);
	else if (!why && told)
		remote_say("%s: can be read again", n->uri);
}

/* Until @deadline. @c is ours. */
static int revive(struct nbd_source *n, struct connection *c, uint64_t deadline)
{
	unsigned int tries = 0;
	struct error why;
	int r;

	do {
		why = (struct error){ 0 };
		r = connect_anew(n, c, deadline, &why);
		if (r >= 0)
			break;
		tell(n, why.msg);
		sleep_a_little(tries++);
	} while (now_nsec() < deadline && !remote_is_stopping());
	if (r >= 0)
		tell(n, NULL);
	return r;
}

/* The same, but waits for one. NULL: the server is gone. */
static struct connection *take(struct nbd_source *n)
{
	struct connection *c = take_free(n, true);

	if (c)
		return c;
	c = &n->connections[atomic_load(&n->next) % (n->n ? n->n : 1)];
	pthread_mutex_lock(&c->lock);
	if (libnbd_is_alive(c->h) || !revive(n, c, remote_deadline()))
		return c;
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* What the server's other errors mean to it is not for us. */
static int code_of(int server_errno)
{
	return server_errno == ENOMEM ? -ENOMEM : -EIO;
}

/* In the thread that holds the connection, in a call of libnbd's. */
static int on_completion(void *opaque, int *error)
{
	struct batch_io *io = opaque;
	struct connection *c = io->token;

	assert(c->in_flight);
	c->in_flight--;
	if (*error && !io->ret)
		io->ret = code_of(*error);
	return 1; /* libnbd may forget it */
}

/* Asks for all of @io, in as many requests as it takes. */
static void start_one(struct connection *c, struct batch_io *io)
{
	nbd_completion_callback cb = { .callback = on_completion,
				       .user_data = io };
	uint64_t at = io->src->root_off + io->off;
	size_t pos, len;

	io->ret = 0;
	io->token = c;
	for (pos = 0; pos < io->len && !io->ret; pos += len) {
		len = min_size(io->len - pos, READ_BYTES_MAX);
		c->in_flight++;
		if (libnbd_api.aio_pread(c->h, (uint8_t *)io->buf + pos, len,
					 at + pos, cb, 0) >= 0)
			continue;
		/* It was not taken: nobody will complete it. */
		c->in_flight--;
		if (!io->ret)
			io->ret = code_of(libnbd_api.get_errno());
	}
}

static bool is_to_start(const struct source *s, const struct batch_io *io)
{
	return io->src->root == s && io->ret == BATCH_NOT_STARTED;
}

static void nbd_source_start(struct source *s, struct batch_io *ios, size_t n,
			     bool may_wait)
{
	struct nbd_source *src = container_of(s, struct nbd_source, s);
	struct connection *c = may_wait ? take(src) : take_free(src, false);
	size_t i;

	if (!c && !may_wait)
		return;
	for (i = 0; i < n; i++) {
		if (!is_to_start(s, &ios[i]))
			continue;
		if (c)
			start_one(c, &ios[i]);
		else
			ios[i].ret = -EIO;
	}
}

/*
 * A dead connection has completed everything, with an error; one that is silent
 * is given up, and nobody writes to the buffers from then on.
 */
static void wait_for_all(struct connection *c, struct batch_io *ios, size_t n,
			 uint64_t deadline)
{
	size_t i;

	while (c->in_flight && !libnbd_poll(c->h, deadline))
		;
	if (!c->in_flight)
		return;
	libnbd_api.close(TAKE_PTR(c->h));
	c->in_flight = 0;
	for (i = 0; i < n; i++)
		if (ios[i].token == c)
			ios[i].ret = -EIO;
}

/* What the server's death took along is asked for again, of the next one. */
static void ask_again(struct nbd_source *src, struct connection *c,
		      struct batch_io *ios, size_t n, uint64_t deadline)
{
	size_t i;

	while (!libnbd_is_alive(c->h) && now_nsec() < deadline &&
	       !remote_is_stopping()) {
		if (revive(src, c, deadline) < 0)
			return;
		for (i = 0; i < n; i++)
			if (ios[i].token == c && ios[i].ret < 0)
				start_one(c, &ios[i]);
		wait_for_all(c, ios, n, deadline);
	}
}

static void nbd_source_finish(struct source *s, struct batch_io *ios, size_t n)
{
	uint64_t deadline = remote_deadline();
	struct connection *c = NULL;
	size_t i;

	for (i = 0; i < n && !c; i++)
		if (ios[i].src->root == s)
			c = ios[i].token;
	if (!c)
		return; /* nothing was started */
	wait_for_all(c, ios, n, deadline);
	if (!libnbd_is_alive(c->h))
		ask_again(container_of(s, struct nbd_source, s), c, ios, n,
			  deadline);
	for (i = 0; i < n; i++)
		if (ios[i].token == c)
			ios[i].token = NULL;
	pthread_mutex_unlock(&c->lock);
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
			(struct extent_of){ entries[i], entries[i + 1] };
	return 0;
}

static int on_status(void *opaque, int *error)
{
	struct connection *c = opaque;

	c->in_flight--;
	return 1;
}

/* Of one connection, which is ours. -EIO also where it dies meanwhile. */
static int ask_on(struct nbd_source *n, struct connection *c, uint64_t off)
{
	nbd_extent_callback cb = { .callback = take_extents, .user_data = n };
	nbd_completion_callback done = { .callback = on_status,
					 .user_data = c };
	uint64_t len = min_u64(n->s.bytes - off, STATUS_BYTES_MAX);

	n->n_extents = 0;
	c->in_flight++;
	if (libnbd_api.aio_block_status(c->h, len, off, cb, done, 0) < 0)
		c->in_flight--;
	wait_for_all(c, NULL, 0, remote_deadline());
	return n->n_extents ? 0 : -EIO;
}

/* Lock is held. */
static int ask(struct nbd_source *n, uint64_t off)
{
	unsigned int tries = 0;
	bool alive = false;
	int r = -EIO;

	ASSERT_HELD(&n->lock);
	while (r < 0 && !alive && tries++ < STATUS_TRIES) {
		struct connection *c = take(n);

		if (!c)
			return -EIO;
		r = ask_on(n, c, off);
		alive = libnbd_is_alive(c->h);
		pthread_mutex_unlock(&c->lock);
	}
	return r;
}

/* Is @off in what was told last? */
static bool look_up(const struct nbd_source *n, uint64_t off, uint64_t len,
		    uint32_t *ret_state, uint64_t *ret_len)
{
	uint64_t at = n->off, end;
	size_t i;

	for (i = 0; i < n->n_extents && at <= off; i++, at = end) {
		end = at + n->extents[i].len;
		if (off >= end)
			continue;
		*ret_state = n->extents[i].state;
		*ret_len = min_u64(len, end - off);
		return true;
	}
	return false;
}

/* What the server says of @off, and for how long it holds. */
static int find_state(struct source *s, uint64_t off, uint64_t len,
		      uint32_t *ret_state, uint64_t *ret_len)
{
	struct nbd_source *n = container_of(s, struct nbd_source, s);
	int r = 0;

	*ret_state = 0;
	*ret_len = len;
	if (!n->has_status)
		return 0;
	if (lock_or_again(&n->lock) < 0)
		return -EAGAIN;
	if (!look_up(n, off, len, ret_state, ret_len)) {
		r = may_wait() ? ask(n, off) : -EAGAIN;
		if (r >= 0 && !look_up(n, off, len, ret_state, ret_len))
			r = -EIO;
	}
	pthread_mutex_unlock(&n->lock);
	return r;
}

static int nbd_source_find_hole(struct source *s, uint64_t off, uint64_t len,
				bool *ret_hole, uint64_t *ret_len)
{
	uint32_t state;
	int r = find_state(s, off, len, &state, ret_len);

	*ret_hole = state & STATE_ZERO;
	return r;
}

static int nbd_source_find_below(struct source *s, uint64_t off, uint64_t len,
				 bool *ret_below, uint64_t *ret_len)
{
	uint32_t state;
	int r = find_state(s, off, len, &state, ret_len);

	*ret_below = (state & (STATE_HOLE | STATE_ZERO)) == STATE_HOLE;
	return r;
}

static void nbd_source_free(struct source *s)
{
	struct nbd_source *n = container_of(s, struct nbd_source, s);
	unsigned int i;

	for (i = 0; i < CONNECTIONS_MAX; i++) {
		libnbd_api.close(n->connections[i].h);
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
	.start = nbd_source_start,
	.finish = nbd_source_finish,
	.find_hole = nbd_source_find_hole,
	.find_below = nbd_source_find_below,
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

/* What the server prefers, but what a round trip is worth at least. */
static uint32_t liked_bytes(struct nbd_handle *h)
{
	int64_t told = libnbd_api.get_block_size(h, LIBNBD_SIZE_PREFERRED);

	return told > LIKED_BYTES_MIN && told <= LIKED_BYTES_MAX &&
			       is_power_of_2((uint64_t)told)
		       ? (uint32_t)told
		       : LIKED_BYTES_MIN;
}

int nbd_source_open(const char *uri, struct source **ret, struct error *err)
{
	struct nbd_handle *h = NULL;
	struct nbd_source *n;
	int64_t bytes;
	int r;

	if (!libnbd_load())
		return error_set(err, -ENOTSUP, 0,
				 "%s: libnbd.so.0 is missing: no server can be "
				 "read from",
				 uri);
	n = source_new(uri);
	if (!n)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = libnbd_connect(uri, remote_deadline(), &h, err);
	bytes = r >= 0 ? libnbd_api.get_size(h) : -1;
	if (r >= 0 && bytes < 0)
		r = error_set(err, -EIO, 0, "%s", libnbd_reason());
	source_init(&n->s, &nbd_source_ops, bytes > 0 ? (uint64_t)bytes : 0);
	n->connections[0].h = h;
	if (r < 0) {
		source_unref(&n->s);
		error_prefix(err, "%s", uri);
		return r;
	}
	n->s.read_bytes = liked_bytes(h);
	n->has_status = libnbd_api.can_meta_context(h, "base:allocation") == 1;
	n->n = libnbd_api.can_multi_conn(h) == 1 ? CONNECTIONS_MAX : 1;
	*ret = &n->s;
	return 0;
}
