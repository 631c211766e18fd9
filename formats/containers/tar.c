/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/containers/tar.h"
#include "iouring/util.h"

static int add_file(void *opaque, struct tar_entry *e, struct error *err)
{
	if (e->type != TAR_FILE)
		return 0;
	return container_add(opaque,
			     &(struct member){ .name = e->name,
					       .off = e->off,
					       .bytes = e->bytes,
					       .sparse = e->sparse,
					       .runs = TAKE_PTR(e->runs),
					       .n_runs = e->n_runs },
			     err);
}

static int list(struct container *c, struct error *err)
{
	return tar_each(c->src, add_file, c, err);
}

const struct container_ops container_tar = {
	.name = "tar",
	.what = "a tar archive",
	.probe = tar_probe,
	.list = list,
};
