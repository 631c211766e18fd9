/* SPDX-License-Identifier: BSD-3-Clause */
/* An image's layers, as far as they can be opened. */
#include <string.h>

#include "formats/chain.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"

int layers_open(const struct cmd *c, bool chain, struct layers *ret,
		struct error *err)
{
	struct open_options options;
	struct chain opened = { 0 };
	int r;

	*ret = (struct layers){ 0 };
	config_open_options(&c->config, &options);
	if (chain) {
		r = chain_open_partial(c->config.image, &options, &opened,
				       &ret->verdict, &ret->reason);
	} else {
		r = chain_open_top(c->config.image, &options, &opened.layers[0],
				   &ret->reason);
		opened.depth = r ? 0 : 1;
	}
	if (!opened.depth) {
		*err = ret->reason;
		return r;
	}
	memcpy(ret->layers, opened.layers,
	       opened.depth * sizeof(*opened.layers));
	ret->depth = opened.depth;
	ret->complete = !r;
	return 0;
}

void layers_done(struct layers *l)
{
	while (l->depth)
		layer_unref(l->layers[--l->depth]);
}
