/* SPDX-License-Identifier: BSD-3-Clause */
/* An image's layers, as far as they can be opened. */
#include <string.h>

#include "formats/chain.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/operand.h"

/* Of a state, whose image must be whole, or of an export. */
static int open_more(const struct cmd *c, bool chain, struct layers *ret,
		     struct error *err)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	int r = operand_open(&c->config, c->config.image, c->config.format,
			     &img, &ret->reason);
	unsigned int i;

	if (r < 0) {
		*err = ret->reason;
		return r;
	}
	ret->depth = chain ? img->chain.depth : 1;
	for (i = 0; i < ret->depth; i++)
		ret->layers[i] = layer_ref(img->chain.layers[i]);
	ret->complete = true;
	ret->of_state = true;
	return 0;
}

int layers_open(const struct cmd *c, bool chain, struct layers *ret,
		struct error *err)
{
	struct open_options options;
	struct chain opened = { 0 };
	int r;

	*ret = (struct layers){ 0 };
	if (operand_is_more(c->config.image))
		return open_more(c, chain, ret, err);
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
