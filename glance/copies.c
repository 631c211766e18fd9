/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/copies.h"
#include "glance/log.h"
#include "glance/record-rows.h"
#include "glance/tombstone.h"

int copies_drop(struct glance *g, struct index_tx *tx, const char *id,
		struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, id, &image, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* it is buried as a whole */
	if (image.status != IMAGE_ACTIVE && image.status != IMAGE_DEACTIVATED)
		return 0;
	if (record_is_in(&image, ""))
		return 0;
	store_file_unlink(g->store, id, STORE_DATA);
	return store_sync(g->store, id, err);
}

struct sweep {
	struct glance *g;
	const char *id;
};

/* In one step, so that no copy comes in between. */
static int sweep(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct sweep *s = opaque;
	int r = copies_drop(s->g, tx, s->id, err);

	return r < 0 ? r : tombstone_drop(tx, TOMBSTONE_COPY, s->id, err);
}

void copies_sweep(struct glance *g, const char *id)
{
	struct sweep s = { g, id };
	struct error err = { 0 };

	if (index_write(g->index, sweep, &s, &err) < 0)
		log_line("store: image %s: %s", id, err.msg);
}
