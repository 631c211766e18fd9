/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "nbd/export-list.h"
#include "nbd/export-name.h"

char *export_state_name(const struct history_state *s)
{
	struct export_name n = { .image = (char *)"",
				 .state.at = (char *)s->name };

	return export_name_format(&n);
}

struct listing {
	unsigned int left;
	int (*each)(void *opaque, const char *name, const char *description);
	void *opaque;
};

static int list_state(void *opaque, const struct history_state *s)
{
	struct listing *l = opaque;
	CLEANUP(freep) char *name = export_state_name(s);
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

int export_list(const struct chain *c, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque)
{
	struct listing l = { .left = max, .each = each, .opaque = opaque };
	const struct layer *top = c->layers[0];
	char description[128];
	int r;

	snprintf(description, sizeof(description),
		 "%s image, %" PRIu64 " bytes", top->ops->name, top->bytes);
	r = each(opaque, "", description);
	/* A damaged table of snapshots does not hide the image. */
	if (!r && l.left--)
		history_each(c, list_state, &l, NULL);
	return r;
}
