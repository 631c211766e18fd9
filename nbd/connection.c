/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "nbd/connection.h"
#include "nbd/descriptors.h"
#include "nbd/export-name.h"
#include "nbd/peers.h"

#define WAIT_USEC 200U

struct connection {
	struct export *export; /* NULL: was shut; changes under the lock */
	struct context *contexts[CONTEXTS_MAX]; /* of it; under the lock */
	unsigned int n_contexts;
	/* What the client called it, without its right to it, and its epoch. */
	char *name;
	uint64_t epoch;
	char *peer;
	char *identity;
	pthread_mutex_t noting;
	atomic_bool noted; /* as one who has something to lose */
	int slot; /* where; -1: nowhere */
	time_t since;
	atomic_uint requests; /* under way */
	atomic_uint changes; /* those of them that change something */
	atomic_bool shut;
	unsigned int shutting; /* by so many: it is not freed under them */
	struct connection *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t was_shut = PTHREAD_COND_INITIALIZER;
static struct connection *connections;

static void connection_free(struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->noting);
	free(c->name);
	free(c->peer);
	free(c->identity);
	free(c);
}

/* NULL: no memory for it, or no name. */
static char *bare_name(const char *text, uint64_t *ret_epoch)
{
	CLEANUP(export_name_done) struct export_name n = { 0 };
	struct export_name bare;

	if (export_name_parse(text, &n, NULL) < 0)
		return NULL;
	bare = n;
	bare.grant = NULL;
	bare.epoch = 0;
	*ret_epoch = n.epoch;
	return export_name_format(&bare);
}

static struct connection *connection_new(const struct peer *peer,
					 const char *name)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->noting, NULL);
	c->slot = -1;
	c->since = time(NULL);
	c->name = bare_name(name, &c->epoch);
	c->peer = strdup(peer->text);
	c->identity = strdup(peer->identity);
	if (c->peer && c->identity)
		return c;
	connection_free(c);
	return NULL;
}

/* His overlay is gone, and what is there is older. */
static int check_peer(const struct connection *c, const struct export *e,
		      struct error *err)
{
	if (!e->lone || !peers_has_lost(c->identity))
		return 0;
	return error_set(
		err, -EPERM, 0,
		"%s: wrote to an overlay of its connection alone, "
		"which is lost with the server that died: nobody of "
		"that %s is let in until platter serve is started anew",
		c->peer,
		strncmp(c->identity, "pid ", 4) ? "address" : "process");
}

/* Under the lock. */
static int check_count(const struct config *config, const struct connection *c,
		       struct error *err)
{
	bool has_address = !strncmp(c->identity, "address ", 8);
	unsigned int all = 0, his = 0;
	const struct connection *other;

	for (other = connections; other; other = other->next) {
		all++;
		his += has_address && !strcmp(other->identity, c->identity);
	}
	if (config->connections_max && all >= config->connections_max)
		return error_set(
			err, -EUSERS, 0,
			"%s: refused: there are %u connections "
			"(%s%u)",
			c->peer, all,
			AS_GIVEN("max-connections=", "--max-connections "),
			config->connections_max);
	if (config->address_connections_max &&
	    his >= config->address_connections_max)
		return error_set(err, -EUSERS, 0,
				 "%s: refused: its address has %u connections "
				 "(%s%u)",
				 c->peer, his,
				 AS_GIVEN("max-connections-per-address=",
					  "--max-connections-per-address "),
				 config->address_connections_max);
	return 0;
}

/* From here on it counts, and can be found when it has an export. */
static int enlist(const struct config *config, struct connection *c,
		  struct error *err)
{
	int r;

	pthread_mutex_lock(&lock);
	r = check_count(config, c, err);
	if (r >= 0) {
		c->next = connections;
		connections = c;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static void delist(struct connection *c)
{
	struct connection **p = &connections;

	pthread_mutex_lock(&lock);
	while (c->shutting)
		pthread_cond_wait(&was_shut, &lock);
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	pthread_mutex_unlock(&lock);
}

/*
 * Who reads what an overlay has, and knows an epoch that it was at, is not shown
 * one that never was: its file is gone, and the image below it in its place.
 */
static int check_reader(const struct connection *c, const struct export *e,
			struct error *err)
{
	uint64_t epoch = e->overlay ? overlay_epoch(e->overlay) : 0;

	if (!e->overlay || !e->from || c->epoch <= epoch)
		return 0;
	return error_set(err, -ESTALE, 0,
			 "%s: export \"%s\": was never at epoch %" PRIu64
			 ", but is at %" PRIu64
			 ": it is not the overlay that is meant",
			 c->peer, e->name, c->epoch, epoch);
}

static int check_epoch(const struct connection *c, const struct export *e,
		       struct error *err)
{
	uint64_t epoch = e->overlay ? overlay_epoch(e->overlay) : 0;

	if (!export_is_writable(e))
		return check_reader(c, e, err);
	if (c->epoch >= epoch)
		return 0;
	return error_set(err, -ESTALE, 0,
			 "%s: export \"%s\": epoch %" PRIu64
			 " is over, it is at %" PRIu64,
			 c->peer, e->name, c->epoch, epoch);
}

static int open_export(const struct config *config, const char *name,
		       struct connection *c, struct error *err)
{
	struct export *e;
	int r = descriptors_check(true, err);

	if (r >= 0)
		r = export_open(config, name, &e, err);
	if (r < 0)
		return r;
	r = check_peer(c, e, err);
	if (r >= 0)
		r = check_epoch(c, e, err);
	if (r < 0) {
		export_close(e);
		return r;
	}
	pthread_mutex_lock(&lock);
	c->export = e;
	pthread_mutex_unlock(&lock);
	return 0;
}

int connection_open(const struct config *config, const char *name,
		    const struct peer *peer, struct connection **ret,
		    struct error *err)
{
	struct connection *c = connection_new(peer, name);
	int r;

	if (!c)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = enlist(config, c, err);
	if (r < 0) {
		connection_free(c);
		return r;
	}
	r = open_export(config, name, c, err);
	if (r < 0) {
		delist(c);
		connection_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void connection_keep_context(struct connection *c, struct context *x)
{
	pthread_mutex_lock(&lock);
	c->contexts[c->n_contexts++] = x;
	pthread_mutex_unlock(&lock);
}

void connection_drop_contexts(struct connection *c)
{
	struct context *x;

	do {
		pthread_mutex_lock(&lock);
		x = c->n_contexts ? c->contexts[--c->n_contexts] : NULL;
		pthread_mutex_unlock(&lock);
		context_close(x);
	} while (x);
}

void connection_close(struct connection *c)
{
	delist(c);
	connection_drop_contexts(c);
	if (c->export)
		export_close(c->export);
	peers_drop(c->slot);
	connection_free(c);
}

/*
 * As with connection_enter(): he has counted himself, and looks at the epoch; who
 * fences has raised it, and looks whether somebody is in.
 */
static int check_fence(struct connection *c, struct error *err)
{
	struct overlay *o = c->export->overlay;
	uint64_t epoch = overlay_epoch(o);
	int r = 0;

	if (c->epoch >= epoch && overlay_has_epoch(o, c->epoch))
		return 0;
	if (c->epoch >= epoch)
		r = connection_fence(c->export, c->epoch, err);
	if (r < 0 && r != -ESTALE)
		return r;
	if (r >= 0 && c->epoch >= epoch)
		return 0;
	error_clear(err);
	return error_set(err, -ESHUTDOWN, 0,
			 "%s: is fenced off: epoch %" PRIu64
			 " of export \"%s\" is over",
			 c->peer, c->epoch, c->export->name);
}

static int note_change(struct connection *c, struct error *err)
{
	int r = 0;

	if (!c->export->lone || atomic_load(&c->noted))
		return 0;
	pthread_mutex_lock(&c->noting);
	if (!atomic_load(&c->noted)) {
		r = peers_add(c->identity, &c->slot, err);
		atomic_store(&c->noted, r >= 0);
	}
	pthread_mutex_unlock(&c->noting);
	return r;
}

int connection_will_change(struct connection *c, struct error *err)
{
	int r;

	atomic_fetch_add(&c->changes, 1);
	r = check_fence(c, err);
	if (r >= 0)
		r = note_change(c, err);
	if (r < 0)
		connection_has_changed(c);
	return r;
}

void connection_has_changed(struct connection *c)
{
	atomic_fetch_sub_explicit(&c->changes, 1, memory_order_release);
}

/*
 * One who enters counts himself, then looks whether it is shut; one who shuts
 * says so, then looks whether somebody is in: one of the two sees the other.
 */
struct export *connection_enter(struct connection *c)
{
	atomic_fetch_add(&c->requests, 1);
	if (!atomic_load(&c->shut))
		return c->export;
	connection_leave(c);
	return NULL;
}

void connection_leave(struct connection *c)
{
	atomic_fetch_sub_explicit(&c->requests, 1, memory_order_release);
}

void connection_each(int (*each)(void *opaque, const struct connection_info *i),
		     void *opaque)
{
	struct connection *c;
	int r = 0;

	pthread_mutex_lock(&lock);
	for (c = connections; c && !r; c = c->next) {
		struct connection_info i = {
			.export = c->export ? c->export->name : NULL,
			.peer = c->peer,
			.since = c->since,
			.requests = atomic_load(&c->requests),
			.epoch = c->epoch,
		};

		if (i.export)
			r = each(opaque, &i);
	}
	pthread_mutex_unlock(&lock);
}

/*
 * Until @n, requests of @c, are none. Under the lock, which it lets go of while it
 * waits: requests may take as long as a disk that hangs. @c is there when it
 * returns.
 */
static void wait_for(struct connection *c, const atomic_uint *n)
{
	c->shutting++;
	pthread_mutex_unlock(&lock);
	while (atomic_load(n))
		usleep(WAIT_USEC);
	pthread_mutex_lock(&lock);
	c->shutting--;
	pthread_cond_broadcast(&was_shut);
}

static void wait_for_lower(void *opaque, uint64_t epoch)
{
	struct connection *c;

	pthread_mutex_lock(&lock);
	for (c = connections; c; c = c->next)
		if (c->epoch < epoch && c->export &&
		    c->export->overlay == opaque)
			wait_for(c, &c->changes);
	pthread_mutex_unlock(&lock);
}

int connection_fence(struct export *e, uint64_t epoch, struct error *err)
{
	return overlay_fence(e->overlay, epoch, wait_for_lower, e->overlay,
			     err);
}

/* The same, and nobody enters any more. */
static void shut(struct connection *c)
{
	struct export *e;

	c->shutting++;
	atomic_store(&c->shut, true);
	wait_for(c, &c->requests);
	e = TAKE_PTR(c->export);
	pthread_mutex_unlock(&lock);
	connection_drop_contexts(c);
	if (e)
		export_close(e);
	pthread_mutex_lock(&lock);
	c->shutting--;
	pthread_cond_broadcast(&was_shut);
}

static bool is_called(const struct connection *c, const char *name)
{
	return c->export && (!strcmp(c->export->name, name) ||
			     (c->name && !strcmp(c->name, name)));
}

unsigned int connection_shut(const char *name)
{
	struct connection *c;
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	for (c = connections; c; c = c->next) {
		if (!is_called(c, name))
			continue;
		shut(c); /* it is in the list for so long */
		n++;
	}
	pthread_mutex_unlock(&lock);
	return n;
}
