/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "nbd/connection.h"
#include "nbd/peers.h"

#define WAIT_USEC 200U

struct connection {
	struct export *export; /* NULL: was shut */
	char *peer;
	char *identity;
	pthread_mutex_t noting;
	atomic_bool noted; /* as one who has something to lose */
	int slot; /* where; -1: nowhere */
	time_t since;
	atomic_uint requests; /* under way */
	atomic_bool shut;
	struct connection *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections;

static void connection_free(struct connection *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->noting);
	free(c->peer);
	free(c->identity);
	free(c);
}

static struct connection *connection_new(const struct peer *peer)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->noting, NULL);
	c->slot = -1;
	c->peer = strdup(peer->text);
	c->identity = strdup(peer->identity);
	if (c->peer && c->identity)
		return c;
	connection_free(c);
	return NULL;
}

/* His overlay is gone, and what is there is older. */
static int check_peer(const struct connection *c, struct error *err)
{
	if (!c->export->lone || !peers_has_lost(c->identity))
		return 0;
	return error_set(
		err, -EPERM, 0,
		"%s: wrote to an overlay of its connection alone, "
		"which is lost with the server that died: nobody of "
		"that %s is let in until platter serve is started anew",
		c->peer,
		strncmp(c->identity, "pid ", 4) ? "address" : "process");
}

int connection_open(const struct config *config, const char *name,
		    const struct peer *peer, struct connection **ret,
		    struct error *err)
{
	struct connection *c = connection_new(peer);
	int r = c ? export_open(config, name, &c->export, err)
		  : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0) {
		r = check_peer(c, err);
		if (r < 0)
			export_close(c->export);
	}
	if (r < 0) {
		connection_free(c);
		return r;
	}
	c->since = time(NULL);
	pthread_mutex_lock(&lock);
	c->next = connections;
	connections = c;
	pthread_mutex_unlock(&lock);
	*ret = c;
	return 0;
}

void connection_close(struct connection *c)
{
	struct connection **p = &connections;

	pthread_mutex_lock(&lock);
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	pthread_mutex_unlock(&lock);
	if (c->export)
		export_close(c->export);
	peers_drop(c->slot);
	connection_free(c);
}

int connection_will_change(struct connection *c, struct error *err)
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
		};

		if (i.export)
			r = each(opaque, &i);
	}
	pthread_mutex_unlock(&lock);
}

static void shut(struct connection *c)
{
	atomic_store(&c->shut, true);
	while (atomic_load(&c->requests))
		usleep(WAIT_USEC);
	export_close(TAKE_PTR(c->export));
}

unsigned int connection_shut(const char *name)
{
	struct connection *c;
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	for (c = connections; c; c = c->next) {
		if (!c->export || strcmp(c->export->name, name) != 0)
			continue;
		shut(c);
		n++;
	}
	pthread_mutex_unlock(&lock);
	return n;
}
