/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/container.h"
#include "iouring/util.h"
#include "nbd/export-list.h"
#include "nbd/export-name.h"

char *export_state_name(const char *image, const struct history_state *s)
{
	struct export_name n = { .image = (char *)image,
				 .state.at = (char *)s->name };

	return export_name_format(&n);
}

struct listing {
	const char *image;
	unsigned int left;
	int (*each)(void *opaque, const char *name, const char *description);
	void *opaque;
};

static int list_state(void *opaque, const struct history_state *s)
{
	struct listing *l = opaque;
	CLEANUP(freep) char *name = export_state_name(l->image, s);
	char description[128];

	if (!l->left)
		return 1;
	if (!name)
		return 0;
	l->left--;
	if (s->depth)
		snprintf(description, sizeof(description),
			 "layer %u below the top, %s, %" PRIu64 " bytes",
			 s->depth, s->format, s->bytes);
	else
		snprintf(description, sizeof(description),
			 "snapshot of the %s image, %" PRIu64 " bytes",
			 s->format, s->bytes);
	return l->each(l->opaque, name, description);
}

int export_list(const struct chain *c, const char *image, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque)
{
	const struct export_name bare = { .image = (char *)image };
	CLEANUP(freep) char *name = export_name_format(&bare);
	struct listing l = {
		.image = image, .left = max, .each = each, .opaque = opaque
	};
	const struct layer *top = c->layers[0];
	char description[128];
	int r;

	if (!name)
		return 0;
	snprintf(description, sizeof(description),
		 "%s image, %" PRIu64 " bytes", top->ops->name, top->bytes);
	r = each(opaque, name, description);
	/* A damaged table of snapshots does not hide the image. */
	if (!r && l.left--)
		history_each(c, list_state, &l, NULL);
	return r;
}

static int list_member(void *opaque, const struct member *m)
{
	struct listing *l = opaque;
	const struct export_name n = { .image = (char *)l->image,
				       .member = m->name };
	CLEANUP(freep) char *name = export_name_format(&n);
	char description[64];

	if (!l->left)
		return 1;
	if (!name)
		return 0;
	l->left--;
	snprintf(description, sizeof(description),
		 "member of a container, %" PRIu64 " bytes", m->bytes);
	return l->each(l->opaque, name, description);
}

int export_list_members(const struct container *c, const char *image,
			unsigned int max,
			int (*each)(void *opaque, const char *name,
				    const char *description),
			void *opaque)
{
	struct listing l = {
		.image = image, .left = max, .each = each, .opaque = opaque
	};

	return container_each_disk(c, list_member, &l);
}
