/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/nowait.h"
#include "iouring/util.h"

enum entry_state {
	OPENING,
	OPEN,
	FAILED, /* out of the list */
	ALONE, /* somebody has it to himself, or closes it */
};

struct entry {
	struct entry *next;
	char *key; /* NULL: nobody looks for it */
	void *object;
	unsigned int holders; /* and those who wait for it */
	unsigned int visitors; /* it is not closed under them */
	enum entry_state state;
	struct error why; /* FAILED */
};

static void entry_free(struct entry *e)
{
	free(e->key);
	free(e);
}

void *entry_object(const struct entry *e)
{
	return e->object;
}

/* Under the lock, as all that follow down to the public ones. */
static struct entry *find(const struct registry *g, const char *key)
{
	struct entry *e;

	for (e = g->first; key && e; e = e->next)
		if (e->key && !strcmp(e->key, key))
			return e;
	return NULL;
}

/* Who is had by somebody alone may be gone after that. */
static struct entry *find_settled(struct registry *g, const char *key)
{
	struct entry *e;

	while ((e = find(g, key)) && e->state == ALONE)
		wait_on(&g->changed, &g->lock);
	return e;
}

static void take_out(struct registry *g, struct entry *e)
{
	struct entry **p = &g->first;

	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
}

static struct entry *add(struct registry *g, const char *key)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (e && key) {
		e->key = strdup(key);
		if (!e->key) {
			free(e);
			return NULL;
		}
	}
	if (!e)
		return NULL;
	e->next = g->first;
	g->first = e;
	return e;
}

/* Ends the opening of @e, whose holder the caller is. */
static void settle(struct registry *g, struct entry *e, int code,
		   const struct error *why)
{
	e->state = code < 0 ? FAILED : OPEN;
	if (code < 0) {
		e->why = *why;
		e->why.code = code;
		take_out(g, e);
	}
	pthread_cond_broadcast(&g->changed);
}

/* The caller has become one of @e's holders; he is none when it fails. */
static int join(struct registry *g, struct entry *e, struct error *err)
{
	int code = 0;

	while (e->state == OPENING)
		wait_on(&g->changed, &g->lock);
	if (e->state == FAILED) {
		code = error_set(err, e->why.code, e->why.off, "%s",
				 e->why.msg);
		if (!--e->holders)
			entry_free(e);
	}
	return code;
}

int registry_get(struct registry *g, const char *key, registry_open_fn *open,
		 void *opaque, struct entry **ret, struct error *err)
{
	struct error why = { 0 };
	struct entry *e;
	void *object = NULL;
	int r;

	pthread_mutex_lock(&g->lock);
	e = find_settled(g, key);
	if (e) {
		e->holders++;
		r = join(g, e, err);
		pthread_mutex_unlock(&g->lock);
		if (r >= 0)
			*ret = e;
		return r;
	}
	e = add(g, key);
	if (e)
		e->holders = 1;
	pthread_mutex_unlock(&g->lock);
	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");

	r = open(opaque, &object, &why);
	if (r >= 0 && g->opened)
		g->opened(object, e);
	pthread_mutex_lock(&g->lock);
	e->object = object;
	settle(g, e, r, &why);
	r = join(g, e, err);
	pthread_mutex_unlock(&g->lock);
	if (r >= 0)
		*ret = e;
	return r;
}

bool registry_find(struct registry *g, const char *key, struct entry **ret)
{
	struct entry *e;
	bool found;

	pthread_mutex_lock(&g->lock);
	e = find_settled(g, key);
	if (e)
		e->holders++;
	found = e && join(g, e, NULL) >= 0;
	pthread_mutex_unlock(&g->lock);
	if (found)
		*ret = e;
	return found;
}

void registry_put(struct registry *g, struct entry *e)
{
	pthread_mutex_lock(&g->lock);
	while (e->state == ALONE)
		wait_on(&g->changed, &g->lock);
	if (--e->holders) {
		pthread_mutex_unlock(&g->lock);
		return;
	}
	e->state = ALONE;
	if (g->retire)
		g->retire(e->object);
	while (e->visitors)
		wait_on(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);

	g->close(e->object);
	pthread_mutex_lock(&g->lock);
	take_out(g, e);
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	entry_free(e);
}

unsigned int registry_holders(struct registry *g, const struct entry *e)
{
	unsigned int n;

	pthread_mutex_lock(&g->lock);
	n = e->holders;
	pthread_mutex_unlock(&g->lock);
	return n;
}

int registry_run_alone(struct registry *g, struct entry *e, unsigned int n,
		       int (*run)(void *opaque, struct error *err),
		       void *opaque, struct error *err)
{
	bool alone;
	int r;

	pthread_mutex_lock(&g->lock);
	while (e->state == ALONE)
		wait_on(&g->changed, &g->lock);
	alone = e->holders == n;
	if (alone)
		e->state = ALONE;
	pthread_mutex_unlock(&g->lock);
	if (!alone)
		return -EBUSY;

	r = run(opaque, err);
	pthread_mutex_lock(&g->lock);
	e->state = OPEN;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	return r;
}

/* Under the lock. */
static bool is_open(const struct entry *e)
{
	return e->holders && (e->state == OPEN || e->state == ALONE);
}

int registry_each(struct registry *g,
		  int (*each)(void *opaque, void *object, unsigned int holders),
		  void *opaque)
{
	struct entry *e;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	for (e = g->first; e && !r; e = e->next)
		if (is_open(e))
			r = each(opaque, e->object, e->holders);
	pthread_mutex_unlock(&g->lock);
	return r;
}

int registry_visit(struct registry *g,
		   int (*each)(void *opaque, void *object,
			       unsigned int holders),
		   void *opaque)
{
	unsigned int holders;
	struct entry *e;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	for (e = g->first; e && !r; e = e->next) {
		if (!is_open(e))
			continue;
		e->visitors++;
		holders = e->holders;
		pthread_mutex_unlock(&g->lock);
		r = each(opaque, e->object, holders);
		pthread_mutex_lock(&g->lock);
		e->visitors--;
		pthread_cond_broadcast(&g->changed);
	}
	pthread_mutex_unlock(&g->lock);
	return r;
}

void registry_close_all(struct registry *g)
{
	while (g->first) {
		struct entry *e = g->first;

		g->first = e->next;
		if (g->retire)
			g->retire(e->object);
		g->close(e->object);
		entry_free(e);
	}
}
