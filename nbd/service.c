/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/service.h"

#include <errno.h>

#include "formats/cache.h"
#include "formats/chain.h"
#include "formats/codec/codec.h"
#include "formats/containers/container.h"
#include "formats/streams/pass.h"
#include "glance/find.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/sources/http-engine.h"
#include "nbd/control.h"
#include "nbd/descriptors.h"
#include "nbd/export-list.h"
#include "nbd/export.h"
#include "nbd/keep.h"
#include "nbd/metrics.h"
#include "nbd/overlays.h"
#include "nbd/peers.h"
#include "nbd/replay.h"

void service_init(struct service *s)
{
	*s = (struct service){ 0 };
	descriptors_raise();
	config_init(&s->config);
	keep_take();
}

int service_set(struct service *s, const char *key, const char *value,
		struct error *err)
{
	int r = config_set(&s->config, key, value, err);

	return r == -ENOENT
		       ? error_set(err, r, 0, "unknown parameter \"%s\"", key)
		       : r;
}

int service_complete(struct service *s, void (*say)(const char *line),
		     struct error *err)
{
	int r = config_check(&s->config, err);

	replay_configure(say);
	return r < 0 ? r : config_apply(&s->config, say, err);
}

/* Its members are told of by what is open: to look again may take long. */
static int keep_archive(struct service *s, const char *image, const char *path,
			struct error *err)
{
	struct archive *a = &s->archives[s->n_archives];
	struct open_options options;
	int r;

	config_open_options(&s->config, &options);
	r = chain_open_container(path, &options, &a->container, err);
	if (r < 0 || !a->container)
		return r;
	a->image = image;
	s->n_archives++;
	return 0;
}

static int open_one(struct service *s, const char *image, const char *path,
		    struct error *err)
{
	int r = export_open_standing(&s->config, image,
				     &s->standing[s->n_standing], err);

	s->n_standing += r >= 0;
	/* An overlay is over one of them. */
	if (r != -ENOTUNIQ || s->config.overlay_temp ||
	    (!*image && s->config.overlay))
		return r;
	error_clear(err);
	return keep_archive(s, image, path, err);
}

static int open_standing(struct service *s, struct error *err)
{
	const struct config *c = &s->config;
	size_t i;
	int r = 0;

	s->standing = calloc(c->n_exports + 1, sizeof(*s->standing));
	s->archives = calloc(c->n_exports + 1, sizeof(*s->archives));
	if (!s->standing || !s->archives)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (c->image)
		r = open_one(s, "", c->image, err);
	for (i = 0; i < c->n_exports && r >= 0; i++)
		r = open_one(s, c->exports[i].name, c->exports[i].path, err);
	return r;
}

int service_prepare(struct service *s, const struct nbd_door *door,
		    struct error *err)
{
	int r = 0;

	if (s->config.glance.store)
		r = glance_prepare(&s->config.glance, &s->glance, err);
	if (s->glance) {
		export_use_store(glance_find_image, s->glance);
		s->glance->add_metrics = metrics_add;
		s->glance->nbd = *door;
	}
	if (r >= 0)
		r = peers_use(keep_peers(), err);
	if (r >= 0)
		r = open_standing(s, err);
	if (r >= 0 && s->config.control)
		r = control_listen(s->config.control, &s->control, err);
	return r;
}

int service_start(struct service *s, struct error *err)
{
	int r = 0;

	descriptors_raise();
	if (s->glance)
		r = glance_start(s->glance, err);
	if (r >= 0)
		r = disk_cache_start(err);
	if (r >= 0)
		replay_start();
	if (r >= 0 && s->control)
		r = control_start(s->control, &s->config, err);
	return r;
}

void service_stop_waiting(void)
{
	http_engine_stop();
	passes_stop();
}

void service_stop(struct service *s)
{
	control_free(TAKE_PTR(s->control));
	glance_free(TAKE_PTR(s->glance));
	service_stop_waiting();
	replay_stop();
	disk_cache_stop();
}

void service_done(struct service *s)
{
	while (s->n_standing)
		export_close(s->standing[--s->n_standing]);
	free(TAKE_PTR(s->standing));
	while (s->n_archives)
		container_unref(s->archives[--s->n_archives].container);
	free(TAKE_PTR(s->archives));
	export_close_all();
	config_done(&s->config);
	cache_shutdown();
	codec_shutdown();
}

struct lister {
	int (*each)(void *opaque, const char *name, const char *description);
	void *opaque;
};

static int list_overlay(void *opaque, const char *name)
{
	const struct lister *l = opaque;

	return l->each(l->opaque, name, "overlay");
}

static int list_image(const struct service *s, const char *image,
		      unsigned int max, const struct lister *l)
{
	size_t i;

	for (i = 0; i < s->n_standing; i++)
		if (!strcmp(s->standing[i]->id, image))
			return export_list(&s->standing[i]->image->chain, image,
					   max, l->each, l->opaque);
	for (i = 0; i < s->n_archives; i++)
		if (!strcmp(s->archives[i].image, image))
			return export_list_members(s->archives[i].container,
						   image, max, l->each,
						   l->opaque);
	return 0;
}

int service_list(const struct service *s, unsigned int max,
		 int (*each)(void *opaque, const char *name,
			     const char *description),
		 void *opaque)
{
	const struct config *c = &s->config;
	struct lister l = { each, opaque };
	size_t i;
	int r = 0;

	if (c->image)
		r = list_image(s, "", max, &l);
	for (i = 0; i < c->n_exports && !r; i++)
		r = list_image(s, c->exports[i].name, max, &l);
	if (!r && s->glance)
		r = glance_each_image(s->glance, max / 4, each, opaque);
	/*
	 * A folder that cannot be read hides what is in it, not the image.
	 * Nobody is told of others' overlays.
	 */
	if (!r && !(s->glance && glance_asks(s->glance)))
		overlays_each(&s->config, list_overlay, &l);
	return r;
}
